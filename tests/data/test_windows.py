"""Windows and answer positions, compared with brute force."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import WORDS, tiny_tokenizer

from fasttune.data.tokens.store import IGNORED
from fasttune.data.tokens.windows import answer_positions, windows
from fasttune.errors import DataError

TEXT = st.lists(st.sampled_from([*WORDS, "w1", "unknowable"]), min_size=1, max_size=40).map("  ".join)


@cache
def tokenizer_of(side: str):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    return tokenizer


@given(
    question=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join),
    context=TEXT,
    max_length=st.integers(13, 30),
    stride=st.integers(0, 4),
    side=st.sampled_from(["right", "left"]),
    data=st.data(),
)
def test_every_window_holds_the_question_and_what_its_offsets_say(
    question: str, context: str, max_length: int, stride: int, side: str, data: st.DataObject
) -> None:
    tokenizer = tokenizer_of(side)
    words = [(part.start(), part.end()) for part in re.finditer(r"\S+", context)]
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 3, len(words) - 1)))
    span = (words[first][0], words[last][1])
    store = windows([question], [context], tokenizer, max_length, stride, "rows")
    targets = answer_positions(store, [span], [True])
    asked, number = question.split(), 0
    step = max_length - 3 - len(asked) - stride  # BERT: [CLS] and two [SEP]
    # An answer at the border of two windows may be in neither; it is then not learned from.
    is_held = any(place * step <= first and last < place * step + step + stride for place in range(len(store)))
    for window in range(len(store)):
        tokens = tokenizer.convert_ids_to_tokens(
            store.inputs["input_ids"][store.starts[window] : store.starts[window + 1]].tolist()
        )
        own = words[number : number + step + stride]
        held = ["[UNK]" if context[begin:end] == "unknowable" else context[begin:end] for begin, end in own]
        parts = [asked, held] if side == "right" else [held, asked]
        assert tokens == ["[CLS]", *parts[0], "[SEP]", *parts[1], "[SEP]"]
        types = store.inputs["token_type_ids"][store.starts[window] : store.starts[window + 1]]
        assert types.tolist() == [0] * (len(parts[0]) + 2) + [1] * (len(parts[1]) + 1)
        begin, end = store.features["context"][window]
        offsets = store.token_features["offsets"][store.starts[window] : store.starts[window + 1]]
        assert offsets[begin:end].tolist() == [list(word) for word in own]
        assert not offsets[:begin].any() and not offsets[end:].any()
        inside = number <= first and last < number + len(own)
        outside = 0 if is_held else IGNORED
        expected = (begin + first - number, begin + last - number) if inside else (outside, outside)
        assert (targets["start_positions"][window], targets["end_positions"][window]) == expected
        number += step
    assert number - step + step + stride >= len(words), "the last window reaches the end"


def test_an_answer_inside_a_token_takes_the_whole_token() -> None:
    store = windows(["good"], ["bad food room"], tiny_tokenizer(), 20, 2, "rows")
    targets = answer_positions(store, [(5, 7)], [True])  # "oo" of "food"
    assert (targets["start_positions"][0], targets["end_positions"][0]) == (4, 4)


def test_rows_without_an_answer_point_to_cls_and_unknown_ones_nowhere() -> None:
    store = windows(["good"] * 2, ["bad food"] * 2, tiny_tokenizer(), 20, 2, "rows")
    targets = answer_positions(store, [None, None], [True, False])
    assert targets["start_positions"].tolist() == targets["end_positions"].tolist() == [0, IGNORED]


def test_spaces_before_a_question_take_no_room() -> None:
    first, second = (windows([text], ["bad food"], tiny_tokenizer(), 20, 2, "rows") for text in ("good", "\t  good"))
    assert np.array_equal(first.inputs["input_ids"], second.inputs["input_ids"])


@pytest.mark.parametrize(
    ("words", "max_length", "stride", "hint"),
    [
        (3, 20, 14, "preprocessing.doc_stride=13"),  # 20 - 3 marks - 3 words: 14 tokens, of which none would be new
        (3, 20, 128, "preprocessing.doc_stride=13"),
        (17, 20, 0, "shorter questions, or a larger max_length"),
        (30, 20, 0, "shorter questions, or a larger max_length"),
    ],
)
def test_what_leaves_no_room_is_refused_before_the_tokenizer_sees_it(
    words: int, max_length: int, stride: int, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        windows(["good", "good " * words], ["bad food " * 20] * 2, tiny_tokenizer(), max_length, stride, "rows")
    (problem,) = caught.value.problems
    assert problem.code == "E257" and problem.hint == hint and "row 2" in problem.found
    if hint.startswith("preprocessing"):
        windows(["good " * words], ["bad food " * 20], tiny_tokenizer(), max_length, int(hint.split("=")[1]), "rows")


@pytest.mark.parametrize("context", [" \u200b", "\u200b"])
def test_a_context_without_tokens_is_a_window_without_context(context: str) -> None:
    store = windows(["good"], [context], tiny_tokenizer(), 20, 2, "rows")
    assert store.features["context"].tolist() == [[0, 0]] and not store.token_features["offsets"].any()


@pytest.mark.parametrize(
    ("context", "span", "expected"),
    [
        ("good food \u202e", (5, 11), (4, 4)),  # the last character makes no token
        ("\u202egood food", (0, 5), (3, 3)),
    ],
)
def test_an_answer_may_reach_beyond_the_tokens_at_the_ends(
    context: str, span: tuple[int, int], expected: tuple[int, int]
) -> None:
    store = windows(["bad"], [context], tiny_tokenizer(), 20, 2, "rows")
    targets = answer_positions(store, [span], [True])
    assert (targets["start_positions"][0], targets["end_positions"][0]) == expected


def test_an_answer_longer_than_every_window_teaches_nothing() -> None:
    context = " ".join(["good"] * 40)
    store = windows(["bad"], [context], tiny_tokenizer(), 20, 2, "rows")
    targets = answer_positions(store, [(0, len(context))], [True])
    assert len(store) > 1 and set(targets["start_positions"].tolist()) == {IGNORED}
