"""What a classifier learns of each row: losses beside transformers' own, answers, thresholds, weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tiny import make_rows, tiny_config

from fasttune import recipe as recipes
from fasttune.errors import DataError, RecipeError
from fasttune.tasks import Rows, TextClassification

CELLS = {
    "single-label": ["bad", "good", "fair", "good", "good", "bad"],
    "multi-label": [("a", "b"), ("b",), (), ("c",), ("a", "b", "c"), ("b",)],
    "regression": ["0.5", "3", "2.75", "5", "0", "1.25"],
}
PROBLEM_TYPE = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


def make_task(problem: str, **settings: object) -> TextClassification:
    recipe = recipes.load({"data": {"train": "rows.csv"}, **settings})
    rows = Rows(
        [str(row) for row in range(6)], {"text": [row["text"] for row in make_rows(6)], "label": CELLS[problem]}
    )
    return TextClassification.from_rows(rows, recipe, "rows")


def encoded(task: TextClassification, problem: str) -> np.ndarray:
    return task.target.encode(CELLS[problem], "rows")


def logits_of(task: TextClassification) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).normal(size=(6, len(task.state()["id2label"])))).float()


@pytest.mark.parametrize("problem", CELLS)
def test_losses_are_those_of_transformers(problem: str) -> None:
    import transformers
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    task = make_task(problem)
    assert task.state()["problem_type"] == PROBLEM_TYPE[problem] and task.settings()["problem"] == problem
    labels, logits = torch.from_numpy(encoded(task, problem)), logits_of(task)
    model = transformers.BertForSequenceClassification(tiny_config(**task.state()))
    model.bert.forward = lambda *args, **kwargs: BaseModelOutputWithPooling(torch.zeros(6, 4, 32), torch.zeros(6, 32))
    model.classifier = torch.nn.Identity()
    model.dropout.forward = lambda hidden: logits
    expected = model(
        input_ids=torch.zeros(6, 4, dtype=torch.long),
        labels=labels if problem == "single-label" else labels.float(),
    ).loss
    assert task.target.loss(logits, labels, True).item() / task.target.weight(labels) == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_answers_of_several_labels_follow_the_thresholds() -> None:
    task = make_task("multi-label")
    logits = np.array([[2.0, -2.0, 0.1], [-1.0, -1.0, -1.0]])
    store = _store(np.tile([[1, 0, 0], [0, 1, 0]], (40, 1)))
    calibrated = task.calibrated(np.tile(logits, (40, 1)), store, Rows([], {}))
    first, second = task.target.answers(logits)
    assert first["labels"] == ["a", "c"] and second["labels"] == []
    assert first["probabilities"]["a"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert set(calibrated.state()["thresholds"].values()) != {0.5}
    saved = TextClassification.from_state(
        {"id2label": {"0": "a", "1": "b", "2": "c"}, "thresholds": calibrated.state()["thresholds"]},
        recipes.load({"data": {"train": "rows.csv"}, "problem": "multi-label"}),
    )
    assert list(saved.target.answers(logits)) == list(calibrated.target.answers(logits))


def _store(labels: np.ndarray):
    from fasttune.data.tokens.store import TokenStore

    size = len(labels)
    return TokenStore({}, np.arange(size + 1), np.arange(size), np.zeros(size), {"labels": labels})


def test_balanced_weights_are_scikit_learn_s_and_travel_as_numbers() -> None:
    recipe = recipes.load({"data": {"train": "rows.csv"}, "training": {"class_weights": "balanced"}})
    rows = Rows(list("012345"), {"label": CELLS["single-label"]})
    task = make_task("single-label", training={"class_weights": "balanced"}).for_training_rows(rows, recipe)
    expected = compute_class_weight("balanced", classes=np.array(["bad", "fair", "good"]), y=CELLS["single-label"])
    assert task.target.class_weights == pytest.approx(tuple(expected))
    assert task.settings()["training"]["class_weights"] == pytest.approx(
        dict(zip(["bad", "fair", "good"], expected, strict=True))
    )
    again = make_task("single-label", training=task.settings()["training"])
    assert again.target.class_weights == pytest.approx(task.target.class_weights)


def test_weighted_losses_are_torch_s_weighted_mean() -> None:
    task = make_task("single-label", training={"class_weights": {"good": 3}, "label_smoothing_factor": 0.2})
    labels, logits = torch.from_numpy(encoded(task, "single-label")), logits_of(task)
    expected = torch.nn.functional.cross_entropy(logits, labels, torch.tensor([1.0, 1.0, 3.0]), label_smoothing=0.2)
    assert (task.target.loss(logits, labels, True) / task.target.weight(labels)).item() == pytest.approx(
        expected.item()
    )


@pytest.mark.parametrize(
    ("problem", "settings", "error", "message"),
    [
        ("single-label", {"training": {"class_weights": {"god": 2}}}, DataError, r"label 'god'.*\n.*did you mean good"),
        (
            "single-label",
            {"training": {"class_weights": {"x": 2, "y": 2}}},
            DataError,
            r"2 problems(.|\n)*'x'(.|\n)*'y'",
        ),
        ("multi-label", {"training": {"class_weights": "balanced"}}, RecipeError, "need single-label"),
        ("regression", {"training": {"label_smoothing_factor": 0.1}}, RecipeError, "no labels to smooth"),
        ("regression", {"evaluation": {"metrics": ["accuracy"]}}, RecipeError, "choose from pearson, spearman"),
        ("single-label", {"evaluation": {"metrics": ["f1"]}}, RecipeError, "metric f1 is not available"),
        (
            "multi-label",
            {"evaluation": {"metric_for_best_model": "pearson"}},
            RecipeError,
            "metric pearson is not available",
        ),
    ],
)
def test_settings_that_do_not_fit_the_labels_are_refused(
    problem: str, settings: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_task(problem, **settings)


@pytest.mark.parametrize("problem", CELLS)
def test_strata_are_one_number_a_row(problem: str) -> None:
    task = make_task(problem)
    rows = Rows(list("012345"), {"label": CELLS[problem]})
    strata = task.strata(rows, "rows")
    assert len(strata) == 6 and all(isinstance(stratum, int) for stratum in strata)
    if problem == "multi-label":
        assert strata == [0, 1, 3, 2, 0, 1], "the rarest label of each row, and one stratum for none"
