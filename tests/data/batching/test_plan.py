"""Properties of the plan: training sees the same examples at any memory budget and number of ranks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data.batching.plan import Plan, evaluation_microbatches, microbatch_seed

lengths_arrays = st.lists(st.integers(1, 60), min_size=1, max_size=50).map(np.array)
plans = st.builds(
    Plan,
    lengths=lengths_arrays,
    batch_size=st.integers(1, 12),
    tokens_per_microbatch=st.integers(1, 200),
    seed=st.integers(0, 5),
    padded=st.booleans(),
    num_ranks=st.integers(1, 3),
)


def all_microbatches(plan: Plan, step: int) -> list[np.ndarray]:
    return [cut for rank in range(plan.num_ranks) for cut in plan.microbatches(step, rank)]


@given(plans, st.integers(0, 3))
def test_every_example_once_an_epoch(plan: Plan, epoch: int) -> None:
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    seen = np.concatenate([cut for step in steps for cut in all_microbatches(plan, step)])
    assert sorted(seen) == list(range(len(plan.lengths)))


@given(plans)
def test_the_budget_is_kept_unless_one_example_exceeds_it_alone(plan: Plan) -> None:
    for cut in all_microbatches(plan, 0):
        lengths = plan.lengths[cut]
        cost = len(cut) * lengths.max() if plan.padded else lengths.sum()
        assert cost <= plan.tokens_per_microbatch or len(cut) == 1


@given(plans, st.integers(1, 400), st.integers(1, 3))
def test_a_step_holds_the_same_examples_for_any_budget_and_ranks(plan: Plan, budget: int, ranks: int) -> None:
    other = replace(plan, tokens_per_microbatch=budget, padded=not plan.padded, num_ranks=ranks)
    for step in (0, plan.steps_per_epoch):
        ours, theirs = (np.concatenate(all_microbatches(which, step)) for which in (plan, other))
        assert sorted(ours) == sorted(theirs)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = np.arange(1, 101)

    def drawn(seed: int, step: int) -> tuple[int, ...]:
        return tuple(Plan(lengths=lengths, batch_size=10, tokens_per_microbatch=10**6, seed=seed).examples(step))

    assert len({drawn(seed=1, step=0), drawn(seed=2, step=0), drawn(seed=1, step=10)}) == 3
    assert drawn(seed=1, step=10) == drawn(seed=1, step=10)


def test_ranks_get_nearly_equal_numbers_of_tokens() -> None:
    lengths = np.random.default_rng(0).integers(5, 500, size=640)
    plan = Plan(lengths=lengths, batch_size=64, tokens_per_microbatch=4096, seed=1, num_ranks=4)
    for step in range(plan.steps_per_epoch):
        shares = [sum(lengths[cut].sum() for cut in plan.microbatches(step, rank)) for rank in range(4)]
        assert max(shares) < 1.1 * min(shares)


@given(lengths_arrays, st.integers(1, 200), st.booleans())
def test_evaluation_visits_everything_once_longest_first(lengths: np.ndarray, budget: int, padded: bool) -> None:
    order = np.concatenate(evaluation_microbatches(lengths, budget, padded))
    assert sorted(order) == list(range(len(lengths)))
    assert list(lengths[order]) == sorted(lengths, reverse=True)


def test_seeds_of_dropout_masks_differ_by_place() -> None:
    places = list(itertools.product(range(3), range(20), range(2), range(5)))  # seed, step, rank, micro-batch
    assert len({microbatch_seed(place) for place in places}) == len(places)
