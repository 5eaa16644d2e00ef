"""Each metric is scikit-learn's, whatever a split happens to hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import sklearn.metrics
import torch

from fasttune import recipe
from fasttune.tasks.metrics import classification, entities, multilabel, regression, squad

ALL = {"labels": range(4), "zero_division": 0.0}
REFERENCE: dict[str, Callable] = {
    "accuracy": sklearn.metrics.accuracy_score,
    "f1_macro": lambda y, p: sklearn.metrics.f1_score(y, p, average="macro", **ALL),
    "f1_micro": lambda y, p: sklearn.metrics.f1_score(y, p, average="micro", **ALL),
    "f1_weighted": lambda y, p: sklearn.metrics.f1_score(y, p, average="weighted", **ALL),
    "precision_macro": lambda y, p: sklearn.metrics.precision_score(y, p, average="macro", **ALL),
    "recall_macro": lambda y, p: sklearn.metrics.recall_score(y, p, average="macro", **ALL),
    "matthews_correlation": sklearn.metrics.matthews_corrcoef,
    "quadratic_kappa": partial(sklearn.metrics.cohen_kappa_score, weights="quadratic"),
    "mae": sklearn.metrics.mean_absolute_error,
}


def make(num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, size=60)
    predicted = np.where(rng.random(60) < 0.6, labels, rng.integers(0, num_classes, size=60))
    return labels, predicted


def test_a_recipe_may_name_exactly_the_metrics_there_are() -> None:
    known = [*classification.METRICS, *multilabel.METRICS, *regression.METRICS, *squad.METRICS, *entities.METRICS]
    assert set(known) == set(recipe.METRICS)
    assert {*REFERENCE, "f1"} == set(classification.METRICS)


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("seed", range(3))
def test_a_metric_of_four_classes(name: str, seed: int) -> None:
    labels, predicted = make(4, seed)
    expected = REFERENCE[name](labels, predicted)
    assert classification.score(labels, predicted, 4, [name]) == {name: pytest.approx(expected, abs=1e-12)}


@pytest.mark.parametrize("name", REFERENCE)
def test_a_class_that_a_split_lacks_still_counts(name: str) -> None:
    labels, predicted = make(2, 0)
    found = classification.score(labels, predicted, 4, [name])[name]
    assert found == pytest.approx(REFERENCE[name](labels, predicted), abs=1e-12)
    if name == "f1_macro":
        assert found == pytest.approx(sklearn.metrics.f1_score(labels, predicted, average="macro") / 2)


def test_f1_of_two_classes_is_that_of_the_second() -> None:
    labels, predicted = make(2, 1)
    second, first = (sklearn.metrics.f1_score(labels, predicted, pos_label=label) for label in (1, 0))
    assert second != pytest.approx(first)
    assert classification.score(labels, predicted, 2, ["f1"]) == {"f1": pytest.approx(second, abs=1e-12)}


def test_a_class_never_predicted_scores_zero_without_a_warning() -> None:
    labels, predicted = np.array([0, 1, 1]), np.array([0, 0, 0])
    found = classification.score(labels, predicted, 2, list(classification.METRICS))
    assert (found["f1"], found["matthews_correlation"]) == (0.0, 0.0)
    assert found["accuracy"] == pytest.approx(1 / 3) and found["precision_macro"] == pytest.approx(1 / 6)


def test_the_defaults_follow_the_number_of_classes() -> None:
    assert classification.default_metrics(2) == ("accuracy", "f1")
    assert classification.default_metrics(3) == ("accuracy", "f1_macro")


def test_softmax_is_torch_s_and_survives_large_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * np.float32(4)
    expected = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    np.testing.assert_allclose(classification.softmax(logits), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(classification.softmax(np.array([[1e4, 0.0]], dtype=np.float32)), [[1.0, 0.0]])
