"""Generated questions and pairs: their rows are consistent, and nothing leaks between splits."""

from __future__ import annotations

import re
from collections import Counter

from fasttune.data.starter import pairs, questions
from fasttune.data.starter.facts import KINDS


def test_answers_stand_where_they_are_said_to() -> None:
    splits = questions.generate()
    assert {split: len(rows) for split, rows in splits.items()} == questions.SPLIT_SIZES
    unanswered = 0
    for row in (row for rows in splits.values() for row in rows):
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert len(texts) == len(starts) <= 1
        unanswered += not texts
        for text, start in zip(texts, starts, strict=True):
            assert row["context"].startswith(text, start)
    assert 0.15 < unanswered / 1400 < 0.25


def test_no_context_stands_in_two_splits_and_some_are_long() -> None:
    splits = questions.generate()
    contexts = [{row["context"] for row in rows} for rows in splits.values()]
    assert not contexts[0] & contexts[1] and not contexts[0] & contexts[2] and not contexts[1] & contexts[2]
    assert 0 < sum(len(context.split()) > 300 for context in contexts[0]) < 30


def test_what_is_unanswerable_is_asked_of_a_place_in_the_text_and_not_told_of_it() -> None:
    asked = {
        re.escape(template).replace(r"\{subject\}", "(.+)"): kind
        for kind in KINDS.values()
        for template in kind.questions
    }
    for row in questions.generate()["train"]:
        matches = ((re.fullmatch(pattern, row["question"], re.IGNORECASE), kind) for pattern, kind in asked.items())
        subject, kind = next((found[1], kind) for found, kind in matches if found)
        assert subject.lower() in row["context"].lower()
        noun = f"the {subject.split()[-1].lower()}"
        told = [
            re.escape(template).replace(r"\{subject\}", f"({subject}|{noun})").replace(r"\{value\}", "[^.]+")
            for template in kind.statements
        ]
        is_told = any(re.search(pattern, row["context"], re.IGNORECASE) for pattern in told)
        assert is_told == bool(row["answers"]["text"]), row


def test_pairs_are_balanced_and_none_is_twice() -> None:
    splits = pairs.generate()
    rows = [row for rows in splits.values() for row in rows]
    assert {split: len(rows) for split, rows in splits.items()} == pairs.SPLIT_SIZES
    assert len({(row["sentence1"], row["sentence2"]) for row in rows}) == len(rows)
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == set(pairs.LABELS) and min(counts.values()) > 0.4 * len(rows)
    assert all(row["sentence1"] != row["sentence2"] for row in rows)


def test_both_are_functions_of_the_seed() -> None:
    for module in (pairs, questions):
        assert module.generate(7) == module.generate(7) != module.generate(8)
