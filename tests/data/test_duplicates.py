"""Planted repetitions are found, others are not; exact similarity is the reference."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data import duplicates
from fasttune.data.duplicates import SIMILAR, WORDS, exact_groups, find


def similarity(one: str, other: str) -> float:
    """As the module defines it, said once more in plain Python."""

    def pairs(text: str) -> set[tuple[str, str]]:
        words = ["<", *WORDS.findall(text.casefold()), ">"]
        return set(pairwise(words))

    return len(pairs(one) & pairs(other)) / len(pairs(one) | pairs(other))


def sentence(generator: random.Random, number: int = 20) -> list[str]:
    """Words as they are distributed in texts: few are frequent, most are rare."""
    return [f"w{int(generator.paretovariate(0.7))}" for _ in range(number)]


def together(groups: np.ndarray, one: int, other: int) -> bool:
    return bool(groups[one] == groups[other])


def test_case_blanks_and_unicode_forms_do_not_tell_texts_apart() -> None:
    texts = ["Caf\u00e9  au lait", "cafe\u0301 au LAIT ", "Cafe au lait", "\uff23af\u00e9 au lait"]
    assert exact_groups(texts).tolist() == [0, 0, 2, 0]
    assert find(texts).exact.tolist() == [0, 0, 2, 0]


def test_planted_near_repetitions_are_found_and_nothing_else() -> None:
    """Recall at least .95 and precision at least .99, among texts that share many words by chance."""
    generator = random.Random(0)
    originals = [sentence(generator) for _ in range(4000)]
    texts, planted = [" ".join(words) for words in originals], []
    for row in range(0, 4000, 4):
        words = list(originals[row])
        for place in generator.sample(range(20), generator.choice([1, 2])):
            words[place] = f"new{generator.randrange(10**6)}"
        planted.append((row, len(texts)))
        texts.append(" ".join(words).upper() + "!")
    near = find(texts).near
    found = [pair for pair in planted if together(near, *pair)]
    assert len(found) >= 0.95 * len(planted)
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(near.tolist()):
        groups.setdefault(group, []).append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    right = sum(any(similarity(texts[rows[0]], texts[row]) >= SIMILAR for row in rows[1:]) for rows in several)
    assert right >= 0.99 * len(several)


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join), min_size=1, max_size=30))
def test_only_what_is_similar_is_put_together(texts: list[str]) -> None:
    near = find(texts).near
    for row, group in enumerate(near.tolist()):
        assert near[group] == group <= row
        others = [other for other in range(len(texts)) if near[other] == group and other != row]
        assert not others or any(
            " ".join(texts[row].split()) == " ".join(texts[other].split())
            or similarity(texts[row], texts[other]) >= SIMILAR
            for other in others
        )


def test_long_texts_are_compared_as_a_whole() -> None:
    """Letters under one letterhead and above one signature are different letters."""
    generator = random.Random(1)
    head, foot = (" ".join(sentence(generator, 100)) for _ in range(2))
    bodies = [sentence(generator, 400) for _ in range(5)]
    texts = [f"{head} {' '.join(body)} {foot}" for body in bodies]
    assert find(texts).near.tolist() == [0, 1, 2, 3, 4]
    edited = bodies[3].copy()
    for place in range(0, 400, 20):
        edited[place] = f"new{place}"
    near = find([*texts, f"{' '.join(edited)} {foot}", " ".join(bodies[1])]).near
    assert near.tolist() == [0, 1, 2, 3, 4, 3, 1]


def test_similarity_of_long_texts_is_that_of_their_sets() -> None:
    """The estimate from sketches beside the exact value; of sets that fit, it is the exact value."""
    generator = random.Random(2)
    words = [sentence(generator, number) for number in (50, 150, 190, 300, 1000, 3000)]
    for number, own in enumerate(words):
        for share in (0.05, 0.2, 0.5):
            other = [f"x{place}" if generator.random() < share else word for place, word in enumerate(own)]
            texts = [" ".join(own), " ".join(other)]
            pairs, sizes = duplicates._word_pairs(texts)
            kept = np.minimum(sizes, duplicates.SKETCH)
            features = np.concatenate([pairs[: kept[0]], pairs[sizes[0] : sizes[0] + kept[1]]])
            sets = duplicates._Sets(duplicates._short(features), np.concatenate([[0], np.cumsum(kept)]))
            (found,) = sets.similarity(np.array([[0, 1]]))
            tolerance = 4 * 0.035 if max(sizes) >= duplicates.SKETCH else 1e-12
            assert abs(found - similarity(*texts)) <= tolerance, (number, share)


def test_chinese_is_compared_by_characters() -> None:
    text = "这家酒店的房间非常干净服务员也很热情我们下次还会再来住"
    near = find([text, text.replace("酒店", "宾馆"), "新买的笔记本电脑用了三天就坏了客服还不给退货真让人生气"]).near
    assert near.tolist() == [0, 0, 2]


def test_texts_without_words_are_similar_to_themselves_only() -> None:
    assert find(["!!!", "???", "!!!", "a b c"]).near.tolist() == [0, 1, 0, 3]


def test_a_bucket_of_boilerplate_does_not_hide_others() -> None:
    same = [f"Dear customer, thank you for your order number {number}." for number in range(300)]
    near = find([*same, "We never ordered this.", "We never ordered this!"]).near
    assert len(set(near[:300].tolist())) == 1
    assert near[300] == near[301] != near[0]


def test_no_texts() -> None:
    assert find([]).near.tolist() == []


def test_direct_similarity_is_that_of_every_pair() -> None:
    """Beside all pairs measured one by one; a chain of similar texts has ends that share nothing."""
    words = [f"word{number}" for number in range(60)]
    chain = [" ".join(words[place : place + 12]) for place in range(48)]
    alone = [" ".join(f"other{number}{place}" for place in range(8)) for number in range(10)]
    texts = [*chain, *alone, chain[3], alone[2].upper()]
    found = find(texts)
    assert len(set(found.near[: len(chain)])) == 1, "one chain"
    rows, others = np.arange(0, len(texts), 2), np.arange(1, len(texts), 2)

    def pairs(text: str) -> set[tuple[str, str]]:
        own = ["^", *text.lower().split(), "$"]
        return set(pairwise(own))

    def similar(one: str, other: str) -> bool:
        return len(pairs(one) & pairs(other)) / len(pairs(one) | pairs(other)) >= SIMILAR

    expected = [any(similar(texts[row], texts[other]) for other in others) for row in rows]
    assert found.similar_to(rows, others).tolist() == expected
    far = np.array([0]), np.array([len(chain) - 1])
    assert found.near[far[0]] == found.near[far[1]] and not found.similar_to(*far).any()


def test_direct_similarity_of_many_groups_and_of_one_large_one() -> None:
    """Neither takes the number of groups, or the square of a group's size, times the rows."""
    groups = [
        f"this is text number {place} of all {place * 7} texts here {copy}" for place in range(3000) for copy in "ab"
    ]
    template = [f"dear customer your order of {place} has left our house and is on its way" for place in range(3000)]
    texts = [*groups, *template]
    found = find(texts)
    rows, others = np.arange(0, len(texts), 2), np.arange(1, len(texts), 2)
    assert found.similar_to(rows, others).mean() > 0.95
