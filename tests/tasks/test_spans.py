"""The best spans beside brute force over all pairs of start and end."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fasttune.tasks.spans import best_spans, sliding_maximum


def by_brute_force(
    start_logits: list[float], end_logits: list[float], allowed: list[bool], max_answer_length: int
) -> list[tuple[float, int, int]]:
    """All valid spans, best first."""
    places = [place for place, is_allowed in enumerate(allowed) if is_allowed]
    spans = [
        (start_logits[start] + end_logits[end], start, end)
        for start in places
        for end in places
        if start <= end < start + max_answer_length
    ]
    return sorted(spans, reverse=True)


@given(
    windows=st.integers(1, 3),
    size=st.integers(1, 24),
    longest=st.integers(1, 30),
    n=st.integers(1, 25),
    seed=st.integers(0, 10_000),
)
def test_all_pairs_are_considered(windows: int, size: int, longest: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start_logits, end_logits = (torch.randn(windows, size, generator=generator) for _ in range(2))
    first, last = sorted(torch.randint(0, size + 1, (2,), generator=generator).tolist())
    allowed = torch.zeros(windows, size, dtype=torch.bool)
    allowed[:, first:last] = True
    found = best_spans(start_logits, end_logits, allowed, longest, n)
    assert found.scores.shape == found.starts.shape == found.ends.shape == (windows, n)
    for window in range(windows):
        expected = by_brute_force(start_logits[window], end_logits[window], allowed[window], longest)[:n]
        places = list(zip(found.starts[window].tolist(), found.ends[window].tolist(), strict=True))
        assert places[: len(expected)] == [(start, end) for _, start, end in expected]
        assert found.scores[window, : len(expected)].tolist() == pytest.approx([float(span[0]) for span in expected])
        assert found.scores[window, len(expected) :].isinf().all()


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=20), st.integers(1, 25))
def test_sliding_maximum(values: list[int], width: int) -> None:
    found = sliding_maximum(torch.tensor([values], dtype=torch.float32), width)
    assert found[0].tolist() == [max(values[place : place + width]) for place in range(len(values))]
