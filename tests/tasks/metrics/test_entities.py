"""Entities of tag sequences and their scores, by hand-made cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data.tokens.tags import form_of
from fasttune.tasks.metrics.entities import entities_of, score


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER", [(0, 1, "PER")]),
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),  # another type continues nothing
        ("I-PER I-PER O", [(0, 2, "PER")]),  # IOB1, and what a model may say
        ("O I-PER B-PER", [(1, 2, "PER"), (2, 3, "PER")]),
        ("B-PER I-PER E-PER S-LOC", [(0, 3, "PER"), (3, 4, "LOC")]),  # BIOES
        ("S-PER I-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-PER E-PER I-PER", [(0, 2, "PER"), (2, 3, "PER")]),
        ("E-PER O", [(0, 1, "PER")]),
        ("B-PER L-PER U-LOC", [(0, 2, "PER"), (2, 3, "LOC")]),  # BILOU
        ("B-PER M-PER E-PER", [(0, 3, "PER")]),  # BMES
        ("B-GPE.NAM I-GPE.NAM", [(0, 2, "GPE.NAM")]),
        ("B-a-b I-a-b", [(0, 2, "a-b")]),
        ("", []),
    ],
)
def test_what_is_an_entity(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert entities_of(tags.split()) == expected


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b", "E-a", "S-b"]), max_size=12))
def test_entities_are_in_order_and_cover_every_tag_but_outside(tags: list[str]) -> None:
    found = entities_of(tags)
    covered = [place for start, stop, _ in found for place in range(start, stop)]
    assert covered == [place for place, tag in enumerate(tags) if tag != "O"]
    assert all(tags[place][2:] == kind for start, stop, kind in found for place in range(start, stop))


def test_scores_by_hand() -> None:
    right = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"], ["B-ORG"]]
    found = [["B-PER", "I-PER", "O", "B-ORG"], ["B-PER", "B-PER"], ["O"]]
    # Right: PER 0-2, PER 1-2 of the second; wrong: ORG for LOC, one PER too many; missed: LOC, ORG.
    assert score(found, right) == pytest.approx(
        {
            "precision": 2 / 4,
            "recall": 2 / 4,
            "f1": 2 / 4,
            "f1_macro": (0.8 + 0 + 0) / 3,  # PER: 2 of 3 found, 2 of 2 there
            "accuracy": 4 / 7,
        }
    )
    assert list(score(found, right, ["f1"])) == ["f1"]


def test_half_an_entity_counts_for_nothing() -> None:
    assert score([["B-PER", "O"]], [["B-PER", "I-PER"]], ["f1", "accuracy"]) == {"f1": 0.0, "accuracy": 0.5}


def test_nothing_to_find() -> None:
    assert score([["O"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0, "f1_macro": 0, "accuracy": 1}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-PER", "I-PER"], "prefix"),
        (["O", "B_PER", "I_PER"], "prefix"),
        (["S-LOC", "O"], "prefix"),
        (["O", "PER-B", "PER-I"], "suffix"),
        (["O", "B", "I"], "bare"),
        (["NOUN", "VERB"], None),
        (["O"], None),
        (["O", "PER"], None),
        (["O", "B-"], None),
        (["O", "B-PER", "PER"], None),
        (["X", "O"], None),
    ],
)
def test_which_tags_are_of_entities(tags: list[str], expected: str | None) -> None:
    assert form_of(tags) == expected


@pytest.mark.parametrize(
    ("tags", "form"),
    [
        ("PER-B PER-I O LOC-B", "suffix"),
        ("B_PER I_PER O B_LOC", "prefix"),
        ("B-PER M-PER O W-LOC", "prefix"),  # BMEWO
    ],
)
def test_other_forms_mark_the_same_entities(tags: str, form: str) -> None:
    assert form_of(tags.split()) == form
    assert entities_of(tags.split(), form) == [(0, 2, "PER"), (3, 4, "LOC")]  # type: ignore[arg-type]


def test_bare_positions_are_entities_of_one_kind() -> None:
    assert entities_of(["B", "I", "O", "B", "B"], "bare") == [(0, 2, ""), (3, 4, ""), (4, 5, "")]
    assert score([["B", "I"]], [["B", "I"]], ["f1", "f1_macro"], "bare") == {"f1": 1.0, "f1_macro": 1.0}
