"""Held-out rows and samples: seeded, stratified, and equal to what the usual library draws."""

from collections import Counter

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttune.data.splits import grouped_holdout, holdout, sample
from fasttune.errors import DataError

LABELS = [0] * 60 + [1] * 30 + [2] * 10


def test_a_holdout_is_stratified_ascending_and_complete():
    train, validation = holdout(LABELS, 0.2, seed=1)
    assert Counter(LABELS[index] for index in validation) == {0: 12, 1: 6, 2: 2}
    assert train == sorted(train) and validation == sorted(validation)
    assert sorted(train + validation) == list(range(100))


def test_a_holdout_depends_on_the_seed_alone():
    assert holdout(LABELS, 0.2, seed=1) == holdout(LABELS, 0.2, seed=1) != holdout(LABELS, 0.2, seed=2)


@settings(max_examples=50)
@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_class_stays_in_training(counts, fraction, seed):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    train, validation = holdout(labels, fraction, seed)
    assert {labels[index] for index in train} == set(range(len(counts)))
    assert len(validation) >= len(counts) and not set(train) & set(validation)


def test_a_small_fraction_still_holds_out_one_row_for_each_class():
    assert len(holdout([0, 1, 2] * 4, 0.1, seed=0)[1]) == 3


def test_classes_with_one_row_are_all_named():
    with pytest.raises(DataError) as caught:
        holdout([0, 0, 1, 2, 2, 3], 0.2, seed=0, names=["a", "b", "c", "d"])
    assert [(problem.code, problem.found) for problem in caught.value.problems] == [
        ("E213", "1 row of class 'b'"),
        ("E213", "1 row of class 'd'"),
    ]


@pytest.mark.parametrize(("labels", "fraction"), [([], 0.1), ([0, 0, 1, 1], 0.9), ([0, 0], 0.0), ([0, 0], 1.0)])
def test_what_cannot_be_split(labels, fraction):
    with pytest.raises(DataError, match="E255"):
        holdout(labels, fraction, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
@pytest.mark.parametrize(("num_rows", "limit"), [(1, 1), (10, 3), (1000, 100), (5, 9)])
def test_a_sample_is_what_datasets_draws(num_rows, limit, seed):
    dataset = datasets.Dataset.from_dict({"row": list(range(num_rows))})
    expected = dataset.shuffle(seed=seed).select(range(min(limit, num_rows)))["row"][:]
    assert sample(num_rows, limit, seed) == expected


def test_without_a_limit_rows_keep_their_order():
    assert sample(5, None, 0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(6))
def test_a_large_group_stays_in_training(seed: int) -> None:
    groups = ["a"] * 95 + ["b"] * 5
    train, validation = grouped_holdout(groups, 0.1, seed)
    assert (len(train), len(validation)) == (95, 5)
    groups = ["a"] * 400 + [f"text {number}" for number in range(40)]
    train, validation = grouped_holdout(groups, 0.1, seed)
    assert 30 <= len(validation) <= 40 and not {groups[row] for row in train} & {groups[row] for row in validation}


def test_groups_that_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="rows belong to one group"):
        grouped_holdout(["a"] * 5, 0.1, 0)
    assert [len(side) for side in grouped_holdout(["a", "b"], 0.1, 0)] == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_of_a_rare_class_one_row_at_least_is_on_either_side(seed):
    labels = [0] * 300 + [1, 1, 2, 2, 2]
    train, validation = holdout(labels, 0.1, seed)
    assert sorted(train + validation) == list(range(305)) and not set(train) & set(validation)
    assert {labels[row] for row in validation} == {labels[row] for row in train} == {0, 1, 2}
