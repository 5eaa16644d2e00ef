"""Phrases of the generated reviews for any place: judgements, contrast, expectation, denial, verdicts.

A pair holds the same phrase for a good and for a bad opinion. `{s}` is a clause that agrees with the reviewer, and
`{o}` one that says the opposite. `{x}` and `{y}` are clauses of opposite directions, both literally meant, of which
`{y}` decides. `{it}` is a subject with its verb `{was}`, such as "the room" and "was"; `{the_x}` is a noun phrase of
the direction that `{x}` has, such as "the bright room". A capital (`{S}`, `{The_x}` ...) begins a sentence. Most
phrases have a twin that uses nearly the same words for the other direction, so that neither the phrase nor the clause
alone reveals the opinion.
"""

from __future__ import annotations

# Clauses. They have "I" or "we" and so fit only where nobody else is quoted.
EXPERIENCED = (
    ("I liked {it}", "I did not like {it}"),
    ("we loved {it}", "we hated {it}"),
    ("I enjoyed {it}", "I did not enjoy {it}"),
    ("I was happy with {it}", "I was not happy with {it}"),
    ("I was not unhappy with {it}", "I was unhappy with {it}"),
    ("I was not disappointed by {it}", "I was disappointed by {it}"),
    ("there was nothing wrong with {it}", "there was a lot wrong with {it}"),
    ("there was nothing that I did not like about {it}", "there was nothing that I liked about {it}"),
    ("I could find no fault with {it}", "I could find nothing good about {it}"),
    ("I had no trouble with {it}", "I had nothing but trouble with {it}"),
    ("I can only praise {it}", "I cannot praise {it}"),
    ("I can't complain about {it}", "I can only complain about {it}"),
    ("{it} did not let us down", "{it} let us down"),
    ("{it} left nothing to be desired", "{it} left a lot to be desired"),
    ("{it} exceeded my expectations", "{it} did not meet my expectations"),
    ("{it} could not have been better", "{it} could not have been worse"),
    ("{it} pleased everyone", "{it} pleased no one"),
    ("{it} did not cause a single problem", "{it} caused one problem after another"),
    ("I have rarely seen anything better than {it}", "I have rarely seen anything worse than {it}"),
    ("I would not know how to improve {it}", "I would not know how to defend {it}"),
)
# The same with adjectives: `{same}` of the opinion's direction, `{other}` of the other one.
JUDGED = (
    "I found {it} {same}",
    "I did not find {it} {other}",
    "I would call {it} {same}",
    "I would not call {it} {other}",
    "nobody would call {it} {other}",
    "{it} seemed {same}",
    "{it} did not seem {other}",
    "{it} looked {same}",
    "{it} could not have been more {same}",
    "I have rarely found {it} so {same}",
    "there is nothing {other} about {it}",
)
# The same about the visit as a whole.
CONCLUDED = (
    ("I would come again", "I would not come again"),
    ("I left happy", "I left angry"),
    ("I got what I had paid for", "I did not get what I had paid for"),
    ("it was worth the money", "it was not worth the money"),
    ("I am glad that we came", "I am sorry that we came"),
    ("I do not regret that we came", "I regret that we came"),
    ("we had a great time", "we had a terrible time"),
    ("I can recommend it", "I can't recommend it"),
    ("I would choose it again", "I would choose something else next time"),
    ("they did a good job", "they did a bad job"),
    ("there are few better places", "there are few worse places"),
    ("I have no reason to complain", "I have every reason to complain"),
    ("I have nothing bad to say", "I have nothing good to say"),
    ("I could not be happier", "I could not be more annoyed"),
    ("it was a good day in the end", "it was a bad day in the end"),
)
# Adjectives after a verb; those of the second group are of the other direction.
DESCRIBED = ("{0}", "{0}", "really {0}", "quite {0}", "{0} and {1}", "both {0} and {1}")
DESCRIBED_BY_DENIAL = (
    "not {0}",
    "not {0}",
    "not {0} at all",
    "not at all {0}",
    "anything but {0}",
    "far from {0}",
    "never {0}",
    "neither {0} nor {1}",
    "not {0} or {1}",
)

# Sentences. The opposite opinion is somebody else's, an earlier one, or an expectation.
CORRECTED = (
    "I had expected that {o}; instead, {s}.",
    "I was told that {o}, yet {s}.",
    "I had read that {o}, but {s}.",
    "Before we went, I thought that {o}. As it turned out, {s}.",
    "Several people on this page write that {o}. They are wrong: {s}.",
    "According to {who}, {o}. In fact, {s}.",
    "{Who} said that {o}; I found that {s}.",
    "{Who} told us that {o}, but when we were there, {s}.",
    "{Who} thinks that {o}. I disagree: {s}.",
    "On an earlier visit {o}. This time {s}.",
    "Last year {o}; this year {s}.",
    "It used to be the case that {o}. Now {s}.",
    "There was a time when {o}, but those days are over: {s}.",
    "Do not listen to those who say that {o}. The truth is that {s}.",
    "It is not true that {o}; {s}.",
    "It is a myth that {o}. In reality {s}.",
)
FEARED_OR_HOPED = (
    ("I was afraid that {o}, but {s}.", "I was hoping that {o}, but {s}."),
    ("I was worried that {o}; in fact, {s}.", "I was confident that {o}; in fact, {s}."),
    ("I had been warned that {o}, yet {s}.", "I had been promised that {o}, yet {s}."),
    ("I feared the worst. But {s}.", "I hoped for the best. But {s}."),
    ("We had complained last time, because {o}. Now {s}.", "We had praised it last time, because {o}. Now {s}."),
)
REPLACED = (
    "I expected {the_o}; instead, {s}.",
    "I expected {the_o} and {the_o2}, but {s}.",
    "I was prepared for {the_o} and {the_o2}; then {s}.",
    "Instead of {the_o} I found {the_s}.",
    "What I got was {the_s}, not {the_o}.",
    "There was no sign of {the_o}: {s}.",
    "So much for {the_o}: {s}.",
    "Where I had seen {the_o} before, I now saw {the_s}.",
)
DENIED = (
    "I would not say that {o}.",
    "I can't say that {o}.",
    "Nobody could claim that {o}.",
    "It is simply not true that {o}.",
    "{Who} said that {o}, which was wrong.",
    "I never once had the impression that {o}.",
    "I had read that {o}. It was the other way round.",
    "{Who} thinks that {o}. I don't.",
    "It is a myth that {o}.",
    "I don't believe anyone who says that {o}.",
)
CONFIRMED = (
    "I would say that {s}.",
    "I have to say that {s}.",
    "Nobody could deny that {s}.",
    "It is simply true that {s}.",
    "{Who} said that {s}, which was right.",
    "I always had the impression that {s}.",
    "I had read that {s}. It was exactly like that.",
    "{Who} thinks that {s}. So do I.",
    "It is no myth that {s}.",
    "I believe everyone who says that {s}.",
)
CONTRASTED = (
    "{X}, but {y}.",
    "{X}, but {y}.",
    "{X}, but {y}, and that decided it for me.",
    "Although {x}, {y}.",
    "Although {x}, {y}, and that is what counts.",
    "{Y}, although {x}.",
    "{Y}, even though {x}.",
    "Even though {x}, {y}.",
    "{X}. Still, {y}.",
    "{X}. However, {y}.",
    "{X}, yet {y}.",
    "{X}, though {y}.",
    "While {x}, {y}.",
    "True, {x}, but {y}.",
    "Never mind that {x}: {y}.",
    "Despite {the_x}, {y}.",
    "In spite of {the_x}, {y}.",
    "{Y}, despite {the_x}.",
    "{Y}; not even {the_x} can change that.",
    "No matter how {adjective} {it} {was}, {y}.",
    "However {adjective} {it} {was}, {y}.",
    "As {adjective} as {it} {was}, {y}.",
    "{Y}, no matter how {adjective} {it} {was}.",
    "{It} may have been {adjective}, but {y}.",
    "It hardly matters that {x}, because {y}.",
    "{Y}. Compared with that, it hardly matters that {x}.",
    "That {x} does not change the main thing: {y}.",
    "I will soon have forgotten that {x}. I will not forget that {y}.",
)
OUTWEIGHED = (
    ("{The_y} more than made up for {the_x}.", "{The_x} could not make up for {the_y}."),
    ("{The_x} could not spoil {the_y}.", "{The_y} spoiled {the_x}."),
    ("Thanks to {the_y}, I soon forgot {the_x}.", "Because of {the_y}, I soon forgot {the_x}."),
    ("Despite {the_x}, I was pleased: {the_y} saw to that.", "Despite {the_x}, I was annoyed: {the_y} saw to that."),
    ("{X}, but that is no problem if {y}.", "{X}, but that is no help if {y}."),
    ("{X}, but who cares, as long as {y}?", "{X}, but what use is that, as long as {y}?"),
    ("{The_y} mattered more to me than {the_x}.", "{The_y} mattered more to me than {the_x}."),
)
# A verdict, and a concession to the other side.
CONCEDED = (
    ("Well worth the wait", "Not worth the wait"),
    ("A good choice", "Not a good choice"),
    ("Always a pleasure", "Never a pleasure"),
    ("I won't go anywhere else", "I won't be going back"),
    ("No complaints", "No thanks"),
    ("I don't regret it", "I do regret it"),
    ("I would do it again", "Never again"),
)
CONCESSIONS = (
    "however {adjective} {it} {was}",
    "no matter how {adjective} {it} {was}",
    "even if {x}",
    "whatever others say",
    "despite {the_x}",
)
PAIRS = (
    "{X}, and {y}.",
    "{X}; also, {y}.",
    "It was not only that {x}; it was also that {y}.",
    "{X}, just as {y}.",
)
OPENERS = (
    "To be fair, {s}.",
    "If I am honest, {s}.",
    "As far as I could tell, {s}.",
    "I noticed that {s}.",
    "I should mention that {s}.",
    "What is more, {s}.",
    "Besides, {s}.",
)
VERDICTS = (
    ("Would I come back to {name}? Even if it cost twice as much.", "Would I come back to {name}? Not even for free."),
    ("I cannot think of a single reason not to come back.", "I cannot think of a single reason to come back."),
    ("I can't wait to come back.", "I can't imagine coming back."),
    ("I found nothing to complain about, and I tried.", "I found nothing to praise, and I tried."),
    ("There was nothing that I would change.", "There was nothing that I would not change."),
    ("There is hardly anything that they could improve.", "There is hardly anything that they do well."),
    ("I have no complaints.", "I have nothing but complaints."),
    ("I regret only that I did not come sooner.", "I regret only that I did not leave sooner."),
    ("{Companion} would never come back; I would, tomorrow.", "{Companion} would come back tomorrow; I never would."),
    ("I would recommend {name} to anybody.", "I would not recommend {name} to anybody."),
    ("I could not have asked for a better {visit}.", "I could not have asked for a worse {visit}."),
    ("I would call that {a_good} {visit}.", "I would not call that {a_good} {visit}."),
    ("I wouldn't call that {a_bad} {visit}.", "I would call that {a_bad} {visit}."),
    ("That is what I call {a_good} {visit}.", "That is not what I call {a_good} {visit}."),
    ("That is not what I call {a_bad} {visit}.", "That is what I call {a_bad} {visit}."),
    ("I can't imagine a better {visit}.", "I can't imagine a worse {visit}."),
    ("I have rarely had a better {visit}.", "I have rarely had a worse {visit}."),
    ("Nothing could have gone better.", "Nothing could have gone worse."),
    ("Nobody could have treated us better.", "Nobody could have treated us worse."),
    ("They could hardly have done more for us.", "They could hardly have done less for us."),
    ("Not a single thing went wrong.", "Not a single thing went right."),
    ("There is little that could have been better.", "There is a lot that could have been better."),
    ("I don't see what they could do better.", "I see a lot that they could do better."),
    ("I can't name one thing that was missing.", "I can't name one thing that was not missing."),
    ("I can't recommend {name} enough.", "I can't recommend {name}."),
    ("You won't find a better {thing} anywhere.", "You will find a better {thing} anywhere."),
    ("I have never had a bad {visit} here.", "I have never had a good {visit} here."),
    ("Not once have I left unhappy.", "Not once have I left happy."),
    ("I would not want to go anywhere else.", "I would rather go anywhere else."),
    ("I didn't expect much and got a lot.", "I expected a lot and didn't get much."),
    ("If only every {visit} were like this.", "If only I had listened to the warnings."),
    ("It was worth the trip.", "It was not worth the trip."),
    ("Well worth a visit.", "Not worth a visit."),
    ("Just what I had hoped for.", "Not what I had hoped for."),
    ("A place that I would recommend.", "Not a place that I would recommend."),
    ("Every reason to come back.", "No reason to come back."),
    ("Nothing to complain about.", "A lot to complain about."),
    ("Not bad at all.", "Not good at all."),
    ("It was better than I had feared.", "It was worse than I had hoped."),
    ("We will certainly be back.", "We will certainly not be back."),
    ("Anything but a disappointment.", "Nothing but a disappointment."),
    ("I would not hesitate to come again.", "I would hesitate to come again."),
    ("Best {thing} I have {had} in years.", "Worst {thing} I have {had} in years."),
    ("The {thing} could not have been better.", "The {thing} could not have been worse."),
    ("Nothing about the {thing} was wrong.", "Nothing about the {thing} was right."),
    ("I was not disappointed by the {thing}.", "I was not pleased with the {thing}."),
    ("No {thing} has ever pleased me more.", "No {thing} has ever disappointed me more."),
)

SOURCES = (
    "a colleague",
    "an old friend",
    "my neighbour",
    "my sister",
    "my dentist",
    "a man at the bus stop",
    "the taxi driver",
    "my boss",
    "my cousin",
    "my landlady",
    "a guidebook",
    "my hairdresser",
    "a friend of a friend",
)
COMPANIONS = (
    "my wife",
    "my husband",
    "my brother",
    "my mother",
    "my father",
    "my daughter",
    "my son",
    "my aunt",
    "my flatmate",
)
