"""Collation equals the obvious loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data.batching.collate import Padding, collate
from fasttune.data.tokens.store import TokenStore


def store_of(sequences: list[list[int]]) -> TokenStore:
    starts = np.cumsum([0, *map(len, sequences)])
    labels = np.arange(len(sequences), dtype=np.int64) * 10
    flat = np.array([token for sequence in sequences for token in sequence], dtype=np.int32)
    rows = np.arange(len(sequences))
    return TokenStore({"input_ids": flat}, starts, rows, np.zeros(len(sequences), dtype=np.int64), {"labels": labels})


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=7), st.data())
def test_padded_on_the_right_to_the_longest(sequences: list[list[int]], data: st.DataObject) -> None:
    examples = data.draw(st.lists(st.sampled_from(range(len(sequences))), min_size=1, max_size=6))
    batch = collate(store_of(sequences), np.array(examples))
    longest = max(len(sequences[example]) for example in examples)
    expected = [sequences[example] + [0] * (longest - len(sequences[example])) for example in examples]
    assert batch.inputs["input_ids"].tolist() == expected
    assert batch.inputs["attention_mask"].tolist() == [[int(token > 0) for token in row] for row in expected]
    assert batch.targets["labels"].tolist() == [example * 10 for example in examples]
    assert batch.num_tokens == sum(len(sequences[example]) for example in examples)


@pytest.mark.parametrize(("padded_length", "width"), [(None, 67), (128, 128)])
def test_the_tutorial_s_batch_of_pairs(padded_length: int | None, width: int) -> None:
    lengths = [50, 59, 47, 67, 59, 50, 62, 32]
    batch = collate(store_of([[5] * length for length in lengths]), np.arange(8), Padding(length=padded_length))
    assert batch.inputs["input_ids"].shape == (8, width)
    assert batch.inputs["attention_mask"].sum(1).tolist() == lengths
    assert batch.inputs["input_ids"].dtype == batch.inputs["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize(
    ("padding", "longest", "width"),
    [
        (Padding(), 67, 67),
        (Padding(multiple=32, most=128), 67, 96),
        (Padding(multiple=32, most=128), 96, 96),
        (Padding(multiple=32, most=80), 67, 80),  # no wider than what the model takes
        (Padding(multiple=32, most=64), 67, 67),  # and never narrower than a sequence
        (Padding(length=128, multiple=32, most=96), 67, 128),
    ],
)
def test_how_wide_a_micro_batch_is(padding: Padding, longest: int, width: int) -> None:
    batch = collate(store_of([[5] * longest, [6, 7]]), np.arange(2), padding)
    assert batch.inputs["input_ids"].shape == (2, width)
    assert batch.inputs["attention_mask"].sum() == batch.num_tokens == longest + 2
