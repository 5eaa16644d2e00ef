"""The prefetcher follows the plan, even if the plan changes or a step is repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fasttune.data.batching.collate import NO_MORE_THAN_NEEDED, collate
from fasttune.data.batching.plan import Plan
from fasttune.data.batching.prefetch import StorePrefetcher
from fasttune.data.tokens.store import TokenStore

LENGTHS = np.random.default_rng(0).integers(2, 30, size=50)
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
STORE = TokenStore(
    {"input_ids": np.arange(STARTS[-1], dtype=np.int32)},
    STARTS,
    np.arange(50),
    np.zeros(50, dtype=np.int64),
    {"labels": np.arange(50) % 3},
)
PLAN = Plan(lengths=LENGTHS, batch_size=8, tokens_per_microbatch=60, seed=3, num_ranks=2)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_step_is_the_plan_s_whatever_was_asked_before(rank: int) -> None:
    prefetcher = StorePrefetcher(NO_MORE_THAN_NEEDED, rank, store=STORE)
    smaller = replace(PLAN, tokens_per_microbatch=30)
    for plan, step in [(PLAN, 0), (PLAN, 1), (PLAN, 1), (smaller, 1), (smaller, 2), (PLAN, 40), (PLAN, 41), (PLAN, 3)]:
        found = prefetcher.microbatches(plan, step)
        expected = [collate(STORE, cut) for cut in plan.microbatches(step, rank)]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one.examples, other.examples) and one.num_tokens == other.num_tokens
            assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in other.inputs)
            assert torch.equal(one.targets["labels"], other.targets["labels"])
    prefetcher.close()


def test_a_fault_in_the_background_is_raised_where_the_step_is_asked_for() -> None:
    broken = replace(STORE, starts=STARTS[:40])  # as a damaged store might be
    prefetcher = StorePrefetcher(NO_MORE_THAN_NEEDED, store=broken)
    with pytest.raises(IndexError):
        for step in range(PLAN.steps_per_epoch):
            prefetcher.microbatches(PLAN, step)
    prefetcher.close()
