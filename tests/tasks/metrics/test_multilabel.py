"""Scores of several labels a row beside scikit-learn, and thresholds beside every possible one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score

from fasttune.tasks.metrics import multilabel

RNG = np.random.default_rng(0)
LABELS = RNG.random((200, 4)) < [0.5, 0.2, 0.1, 0.02]
PROBABILITIES = np.clip(0.4 * LABELS + 0.6 * RNG.random((200, 4)), 0, 1)


def test_scores_are_scikit_learn_s() -> None:
    predicted = PROBABILITIES >= 0.5
    assert multilabel.score(LABELS, predicted, multilabel.METRICS) == {
        **{
            f"f1_{average}": pytest.approx(f1_score(LABELS, predicted, average=average, zero_division=0.0))
            for average in ("micro", "macro", "weighted")
        },
        "precision_macro": pytest.approx(precision_score(LABELS, predicted, average="macro", zero_division=0.0)),
        "recall_macro": pytest.approx(np.mean([predicted[LABELS[:, k], k].mean() for k in range(4)])),
        "accuracy": pytest.approx(accuracy_score(LABELS, predicted)),
    }


@given(data=st.data(), size=st.integers(25, 60))
def test_a_threshold_is_the_best_of_all_cuts(data: st.DataObject, size: int) -> None:
    shares = np.array(data.draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))) / 20
    wanted = np.zeros(size, dtype=bool)
    wanted[data.draw(st.lists(st.integers(0, size - 1), min_size=22, max_size=size, unique=True))] = True
    (found,) = multilabel.best_thresholds(shares[:, None], wanted[:, None])
    best = max(f1_score(wanted, shares >= limit, zero_division=0.0) for limit in {*shares, 2.0})
    assert f1_score(wanted, shares >= found, zero_division=0.0) == pytest.approx(best)


def test_labels_of_few_rows_share_the_threshold_of_all() -> None:
    found = multilabel.best_thresholds(PROBABILITIES, LABELS)
    assert LABELS[:, 3].sum() < multilabel.MIN_ROWS <= LABELS[:, 1].sum()
    shared = multilabel.best_thresholds(PROBABILITIES.reshape(-1, 1), LABELS.reshape(-1, 1))
    assert found[3] == shared[0] != found[1]


def test_without_any_label_the_threshold_stays() -> None:
    assert multilabel.best_thresholds(PROBABILITIES, np.zeros_like(LABELS)).tolist() == [0.5] * 4
