"""The CPU kernels against torch's own attention, one sequence at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttune.unpadding.attention import MAX_DENSE_LENGTH, attention
from fasttune.unpadding.boundaries import Boundaries, group_by_length

HEADS, WIDTH = 3, 8
lengths_lists = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def boundaries_of(lengths: list[int]) -> Boundaries:
    return Boundaries.from_mask(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def make_tensors(num_tokens: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, HEADS, num_tokens, WIDTH, generator=generator) for _ in range(3)]
    return [tensor.to(dtype).requires_grad_() for tensor in made]


def one_by_one(tensors: list[torch.Tensor], boundaries: Boundaries, scale: float) -> torch.Tensor:
    parts = [tensor.split(boundaries.lengths, dim=2) for tensor in tensors]
    outputs = [F.scaled_dot_product_attention(q, k, v, scale=scale) for q, k, v in zip(*parts, strict=True)]
    return torch.cat(outputs, dim=2).transpose(1, 2)


def run(tensors: list[torch.Tensor], boundaries: Boundaries, scale: float) -> torch.Tensor:
    return attention(torch.nn.Module(), *tensors, boundaries, scaling=scale)[0]


@settings(max_examples=40)
@given(lengths_lists)
def test_dense_blocks_equal_each_sequence_alone(lengths: list[int]) -> None:
    boundaries = boundaries_of(lengths)
    tensors = make_tensors(sum(lengths), torch.float32)
    expected, found = one_by_one(tensors, boundaries, 0.3), run(tensors, boundaries, 0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), tensors),
        torch.autograd.grad((expected * weight).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    boundaries = boundaries_of([5, 4, 2, 1])
    tensors = [tensor.detach().double().requires_grad_() for tensor in make_tensors(12, torch.float32)]

    def dense(*qkv: torch.Tensor) -> torch.Tensor:
        from fasttune.unpadding.attention import BucketedAttention

        return BucketedAttention.apply(*qkv, boundaries.buckets, 0.3)

    assert torch.autograd.gradcheck(dense, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[MAX_DENSE_LENGTH[torch.float32] + 1, 3], [600, 20], [128, 128]])
def test_long_sequences_and_low_precision(dtype: torch.dtype, lengths: list[int]) -> None:
    boundaries = boundaries_of(lengths)
    tensors = make_tensors(sum(lengths), dtype)
    expected = one_by_one([tensor.float() for tensor in tensors], boundaries, 0.3)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(run(tensors, boundaries, 0.3).float(), expected, rtol=0, atol=tolerance)


@given(lengths_lists, st.floats(0, 1))
def test_buckets_hold_all_sequences_in_order_within_the_padding_allowed(lengths: list[int], allowed: float) -> None:
    groups = group_by_length(lengths, allowed)
    assert [first for first, _ in groups[1:]] == [last for _, last in groups[:-1]]
    assert (groups[0][0], groups[-1][1]) == (0, len(lengths))
    for first, last in groups:
        chosen = lengths[first:last]
        assert max(chosen) * len(chosen) <= sum(chosen) * (1 + allowed) + 1e-9


@given(lengths_lists)
def test_gather_and_scatter_are_inverse(lengths: list[int]) -> None:
    boundaries = boundaries_of(lengths)
    padded = torch.randn(len(lengths), max(lengths), 4)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    assert torch.equal(boundaries.scatter(boundaries.gather(padded)), padded * mask[..., None])
