"""Fillers reduce the number of different token counts, and never affect a result."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fasttune.unpadding.boundaries import Boundaries


def boundaries_of(lengths: list[int]) -> Boundaries:
    return Boundaries.from_mask(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=60))
def test_fillers_are_short_few_and_dropped_again(lengths: list[int]) -> None:
    plain = boundaries_of(lengths)
    filled = plain.filled()
    assert filled.lengths[: len(lengths)] == plain.lengths
    assert max(filled.lengths) == max(lengths) and min(filled.lengths) > 0
    assert sum(filled.lengths) - sum(lengths) < max(sum(lengths) / 31, 1)
    padded = torch.randn(len(lengths), max(lengths), 3, requires_grad=True)
    packed = filled.gather(padded)
    assert packed.shape[1] == sum(filled.lengths) == filled.starts[-1]
    assert torch.equal(packed[:, : sum(lengths)], plain.gather(padded))
    back = filled.scatter(packed)
    assert torch.equal(back, plain.scatter(plain.gather(padded)))
    back.sum().backward()
    is_real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    assert torch.equal(padded.grad, is_real[..., None].expand(-1, -1, 3).float()), "fillers carry no gradient"


def test_numbers_of_tokens_are_few() -> None:
    totals = {sum(boundaries_of([tokens]).filled().lengths) for tokens in range(1024, 4096)}
    assert len(totals) <= 65
