"""Random rows for people to look at."""

import datasets
import pytest

from fasttune.data.preview import sample_rows
from fasttune.errors import UsageError

FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
DATASET = datasets.Dataset.from_dict({"text": list("abcdef"), "label": [0, 1, 0, 1, -1, None]}, features=FEATURES)


def test_rows_without_repeats_and_with_class_names():
    rows = sample_rows(DATASET, 6, seed=3)
    assert sorted((row["text"], row["label"]) for row in rows[:]) == [
        ("a", "neg"),
        ("b", "pos"),
        ("c", "neg"),
        ("d", "pos"),
        ("e", None),
        ("f", None),
    ]
    assert list(rows[0]) == ["text", "label"]


def test_the_seed_decides():
    assert sample_rows(DATASET, 3, seed=1) == sample_rows(DATASET, 3, seed=1)
    assert len({tuple(row["text"] for row in sample_rows(DATASET, 3, seed=seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("num_rows", [0, -1, 7])
def test_more_rows_than_there_are_is_refused(num_rows):
    with pytest.raises(UsageError, match=r"expected 1 to 6$"):
        sample_rows(DATASET, num_rows, seed=0)
