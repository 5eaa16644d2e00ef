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
    found = multilabel.best_cut(shares, wanted)
    best = max(f1_score(wanted, shares >= limit, zero_division=0.0) for limit in {*shares, 2.0})
    assert f1_score(wanted, shares >= found, zero_division=0.0) == pytest.approx(best)


def drawn(number: int, seed: int, rare: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model that is far too unsure of a rare label, and the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.random(number) < rare
    return 1 / (1 + np.exp(-(generator.normal(-4.0, 1.0, number) + 2.5 * labels))), labels


def test_a_threshold_for_a_rare_label_gains_on_other_rows() -> None:
    threshold = multilabel.chosen_threshold(*drawn(400, 0, rare=0.1))
    shares, labels = drawn(20_000, 1, rare=0.1)
    limits = np.linspace(0.01, 0.99, 99)
    best = max(f1_score(labels, shares >= limit, zero_division=0.0) for limit in limits)
    assert f1_score(labels, shares >= threshold) > best - 0.03
    assert f1_score(labels, shares >= 0.5) < best - 0.2


def test_chance_moves_no_threshold_away_from_a_good_one() -> None:
    """Where 0.5 is the best threshold there is, few rows seldom suggest another."""
    lost = []
    other, gold = honest(50_000, 100)
    for seed in range(20):
        threshold = multilabel.chosen_threshold(*honest(100, seed))
        lost.append(f1_score(gold, other >= 0.5) - f1_score(gold, other >= threshold))
    assert np.mean(lost) < 0.01
    own = [multilabel.best_cut(*honest(100, seed)) for seed in range(20)]
    assert np.mean(lost) < np.mean([f1_score(gold, other >= 0.5) - f1_score(gold, other >= limit) for limit in own])


def honest(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two clear groups: any threshold far from both is best."""
    generator = np.random.default_rng(seed)
    labels = generator.random(number) < 0.6
    return 1 / (1 + np.exp(-generator.normal(np.where(labels, 2.0, -2.0), 1.5))), labels


def test_labels_of_few_rows_share_the_threshold_of_all() -> None:
    found = multilabel.best_thresholds(PROBABILITIES, LABELS, per_label=True)
    assert LABELS[:, 3].sum() < multilabel.MIN_ROWS <= LABELS[:, 1].sum()
    shared = multilabel.best_thresholds(PROBABILITIES, LABELS, per_label=False)
    assert len({*shared}) == 1 and found[3] == shared[0]
    assert found[1] == multilabel.chosen_threshold(PROBABILITIES[:, 1], LABELS[:, 1])


def test_without_any_label_the_threshold_stays() -> None:
    assert multilabel.best_thresholds(PROBABILITIES, np.zeros_like(LABELS), per_label=True).tolist() == [0.5] * 4
