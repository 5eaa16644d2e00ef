"""Phrases of the generated reviews for any place: denial, hearsay, contrast, verdicts.

`{s}` is a clause that agrees with the reviewer, and `{o}` one that says the opposite. Each frame has twins that use
nearly the same words for the other direction, so that neither the frame nor the clause alone reveals the opinion.
`{x}` and `{y}` are clauses about two aspects, both literally meant; `{X}` and `{Y}` begin a sentence.
"""

from __future__ import annotations

# For each source of an opinion: frames that correct it, frames that only deny it, and frames that confirm it. A review
# uses each source at most once.
FRAMES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "{Who} had told me that {o}. What I found is that {s}.",
            "{Who} insisted that {o}. When I was there, {s}.",
            "According to {who}, {o}. As I saw it, {s}.",
            "{Who} had gone on and on about how {o}; in fact, {s}.",
        ),
        (
            "{Who} had told me that {o}. I found the exact opposite.",
            "According to {who}, {o}. I saw nothing of the kind.",
            "{Who} had mentioned that {o}, which turned out to be wrong.",
        ),
        (
            "{Who} had told me that {s}. I found exactly that.",
            "According to {who}, {s}. I saw the same.",
            "{Who} had mentioned that {s}, which turned out to be right.",
        ),
    ),
    (
        (
            "Several people on this page write that {o}. I have to contradict them: {s}.",
            "I had read that {o}; the truth is that {s}.",
            "In one review it says that {o}. We must have been in two different places, because {s}.",
            "One can read here that {o}, but in reality {s}.",
        ),
        (
            "Several people on this page write that {o}. I cannot confirm that at all.",
            "I had read that {o}; there was no sign of it.",
        ),
        (
            "Several people on this page write that {s}. I can only confirm that.",
            "I had read that {s}; there was every sign of it.",
        ),
    ),
    (
        (
            "On an earlier visit {o}. This time {s}.",
            "Two years ago {o}; now I can report that {s}.",
            "The last time I was here, {o}. That has changed: {s}.",
            "There was a time when {o}. On this visit, {s}.",
        ),
        (
            "On an earlier visit {o}. This time it was the other way round.",
            "It used to be the case that {o}. Not any more.",
        ),
        (
            "On an earlier visit {s}. This time it was no different.",
            "It used to be the case that {s}. It still is.",
        ),
    ),
    (
        (
            "{Companion} maintains that {o}. I disagree and say that {s}.",
            "{Companion} thought that {o}, but I was there too, and {s}.",
            "If you ask {companion}, {o}. If you ask me, {s}.",
        ),
        ("{Companion} maintains that {o}. I disagree.",),
        ("{Companion} maintains that {s}. I agree.",),
    ),
    (
        (
            "I cannot say that {o}; rather, {s}.",
            "It would be wrong to say that {o}. On the contrary, {s}.",
            "It is not as if {o}; no, {s}.",
        ),
        (
            "Nobody could claim that {o}.",
            "I cannot say that {o}.",
        ),
        (
            "Nobody could deny that {s}.",
            "I have to say that {s}.",
        ),
    ),
    (
        (
            "Not once did I have the impression that {o}. Each time I looked, {s}.",
            "I looked for a sign that {o}. What I saw was that {s}.",
        ),
        ("Not once did I have the impression that {o}.",),
        ("More than once I had the impression that {s}.",),
    ),
    (
        (
            "I had pictured a place where {o}; instead, {s}.",
            "I had expected to write that {o}, but I write that {s}.",
            "Before I went, I would have bet that {o}. Now I know that {s}.",
        ),
        ("I had expected to write that {o}, but I got something else entirely.",),
        ("I had expected to write that {s}, and I got just what I expected.",),
    ),
    (
        (
            "The story that {o} is a myth; the truth is that {s}.",
            "Whoever thinks that {o} has not been here lately: {s}.",
        ),
        ("The story that {o} is a myth.", "Do not believe anyone who says that {o}."),
        ("The story that {s} is no myth.", "You can believe anyone who says that {s}."),
    ),
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
    "the couple next door",
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

OPENERS = (
    "To be fair, {s}.",
    "If I am honest, {s}.",
    "As far as I could tell, {s}.",
    "For what it is worth, {s}.",
    "I noticed that {s}.",
    "It struck me that {s}.",
    "I should mention that {s}.",
    "I may be hard to please, but {s}.",
    "It did not escape me that {s}.",
)
TURNS = ("However, {s}.", "Then again, {s}.", "On the other hand, {s}.", "But {s}.", "At the same time, {s}.")
LINKS = ("Also, {s}.", "What is more, {s}.", "Besides, {s}.", "And {s}.", "Moreover, {s}.")
PAIRS = (
    "{X}, and {y}.",
    "{X}; also, {y}.",
    "It was not only that {x}; it was also that {y}.",
    "{X}, just as {y}.",
    "It fits that {x} and that {y}.",
)

# Two aspects with opposite opinions. In the first group {y} weighs more, in the second both weigh the same.
DECIDED = (
    "{X}, but {y}, and that is what counts.",
    "Although {x}, {y}, and that decided it for me.",
    "It did not matter much that {x}, because {y}.",
    "That {x} is a detail when you consider that {y}.",
    "{Y}. Compared with that, it hardly matters that {x}.",
    "{Y}, and I give that more weight than the fact that {x}.",
    "Yes, {x}. Still, {y}, and that weighs more.",
    "{X}; on the other hand, {y}, which weighs more with me.",
    "{Y}; on the other hand, {x}, which weighs less with me.",
    "That {x} does not change the main thing: {y}.",
    "I will soon have forgotten that {x}. I will not forget that {y}.",
)
EVEN = (
    "{X}, but {y}, and one counts as much as the other.",
    "Although {x}, {y}, so nothing was decided for me.",
    "{X}; on the other hand, {y}, which weighs just as much with me.",
    "Yes, {x}. Still, {y}, and I cannot say which weighs more.",
    "It matters as much that {x} as that {y}.",
    "{X}, and I give that as much weight as the fact that {y}.",
)

# A very short review, or the last sentence of a longer one, by stars from 1 to 5.
VERDICTS: dict[int, tuple[str, ...]] = {
    1: (
        "Would I come back to {name}? Not even if it were free.",
        "I cannot think of a single reason to come back.",
        "I found nothing to praise, and I tried.",
        "There was nothing that I would not change.",
        "I regret only that I did not leave sooner.",
        "{Companion} would come back tomorrow; I never would.",
        "Some would call this the best address in town. I would call it the worst.",
        "I would not recommend {name} to anybody.",
        "I could not have asked for a worse {visit}.",
        "If I could give less, I would not hesitate.",
        "Not a single thing went right.",
    ),
    2: (
        "Hardly a complete disaster, but I would not come back to {name}.",
        "I would need a good reason to come back.",
        "I found little to praise, though not nothing.",
        "There was little that I would not change.",
        "I do not quite regret the {visit}, but I would not repeat it.",
        "{Companion} would come back; I would rather not.",
        "Some would call this a good {visit}. With one thing in its favour, I would not.",
        "I would hardly recommend {name}.",
        "I could have asked for a worse {visit}, but not for much worse.",
        "More went wrong than right.",
    ),
    3: (
        "Would I come back to {name}? Perhaps, perhaps not.",
        "I can think of as many reasons to come back as to stay away.",
        "I found something to praise and just as much to complain about.",
        "I would change half of it and leave the other half.",
        "I neither regret the {visit} nor long to repeat it.",
        "{Companion} would come back; I could take it or leave it.",
        "Some would call this a good {visit}, some a bad one. Both are right.",
        "I would neither recommend {name} nor advise against it.",
        "I could have asked for a better {visit}, and for a worse one.",
        "As much went right as went wrong.",
    ),
    4: (
        "Hardly perfect, but I would come back to {name}.",
        "I would not need much of a reason to come back.",
        "I found little to complain about, though not nothing.",
        "There was little that I would change.",
        "I do not regret the {visit}, and with one small change I would repeat it.",
        "{Companion} would not come back; I rather would.",
        "Some would call this a bad {visit}. Apart from one thing, I would not.",
        "I would recommend {name}, if not to everybody.",
        "I could have asked for a better {visit}, but not for a much better one.",
        "More went right than wrong.",
    ),
    5: (
        "Would I come back to {name}? Even if it cost twice as much.",
        "I cannot think of a single reason not to come back.",
        "I found nothing to complain about, and I tried.",
        "There was nothing that I would change.",
        "I regret only that I did not come sooner.",
        "{Companion} would never come back; I would, tomorrow.",
        "Some would call this the worst address in town. I would call it the best.",
        "I would recommend {name} to anybody.",
        "I could not have asked for a better {visit}.",
        "If I could give more, I would not hesitate.",
        "Not a single thing went wrong.",
    ),
}
# About a single thing; `{thing}` has no article.
SHORT: dict[int, tuple[str, ...]] = {
    1: (
        "Worst {thing} I have {had} in years.",
        "The {thing} could not have been worse.",
        "Nothing about the {thing} was right.",
        "Never again: the {thing} was bad and the rest was no better.",
    ),
    2: (
        "Not the worst {thing} I have {had}, but near it.",
        "The {thing} was good. Nothing else was.",
        "The {thing} could have been worse; everything else could not.",
        "One good thing, the {thing}, and a lot of bad ones.",
    ),
    3: (
        "Neither the best nor the worst {thing} I have {had}.",
        "The {thing} was good, the rest was just as bad.",
        "The {thing} could have been better and could have been worse.",
        "The {thing} was nothing more and nothing less than average.",
    ),
    4: (
        "Not the best {thing} I have {had}, but near it.",
        "The {thing} was bad. Nothing else was.",
        "The {thing} could have been better; everything else could not.",
        "One bad thing, the {thing}, and a lot of good ones.",
    ),
    5: (
        "Best {thing} I have {had} in years.",
        "The {thing} could not have been better.",
        "Nothing about the {thing} was wrong.",
        "Again, any time: the {thing} was good and the rest was no worse.",
    ),
}
