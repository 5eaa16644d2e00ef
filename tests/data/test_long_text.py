"""Long texts as head and tail or as windows, compared with slices of the whole text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tiny import make_rows, tiny_tokenizer

from fasttune.data.tokens.long_text import HEAD_TAIL, WINDOWS, special_tokens, tokenize_long
from fasttune.data.tokens.store import tokenize

TEXTS = ["good", *(row["text"] for row in make_rows(30)), "", "w1 " * 8, "w2 " * 9]


def whole(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_windows_hold_every_token_once() -> None:
    store = tokenize_long(TEXTS, tiny_tokenizer(), 10, WINDOWS)
    assert store.sequences is not None and store.sequence_lengths.max() == 10 and not store.num_tokens_cut.any()
    ids = store.inputs["input_ids"].tolist()
    for row, text in enumerate(TEXTS):
        bounds = [start for start in store.sequences.tolist() if store.starts[row] <= start <= store.starts[row + 1]]
        windows = [ids[begin:end] for begin, end in pairwise(bounds)]
        assert all(window[0] == 2 and window[-1] == 3 for window in windows)
        assert [token for window in windows for token in window[1:-1]] == whole(text)
        assert all(len(window) == 10 for window in windows[:-1])
        assert store.num_windows[row] == len(windows) == max(-(-len(whole(text)) // 8), 1)


def test_head_and_tail_of_a_long_text() -> None:
    store = tokenize_long(TEXTS, tiny_tokenizer(), 22, HEAD_TAIL)
    assert store.sequences is None
    for row, text in enumerate(TEXTS):
        found = store.inputs["input_ids"][store.starts[row] : store.starts[row + 1]].tolist()
        ids = whole(text)
        expected = ids if len(ids) <= 20 else ids[:5] + ids[-15:]
        assert found == [2, *expected, 3] and store.num_tokens_cut[row] == max(len(ids) - 20, 0)


@pytest.mark.parametrize("how", [HEAD_TAIL, WINDOWS])
def test_short_texts_are_as_ever(how: str) -> None:
    store, expected = tokenize_long(TEXTS, tiny_tokenizer(), 60, how), tokenize(TEXTS, tiny_tokenizer(), 60)
    assert store.inputs["input_ids"].tolist() == expected.inputs["input_ids"].tolist()
    assert store.fingerprint == expected.fingerprint


def test_special_tokens_of_a_text() -> None:
    assert special_tokens(tiny_tokenizer()) == ([2], [3])
