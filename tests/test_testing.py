"""`check_task`: the built-in tasks pass, and each kind of broken task is rejected with the right message."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny import make_rows, write_csv

import fasttune
from fasttune.recipe import types
from fasttune.recipe.types import TASK_NAMES
from fasttune.tasks import TASKS, QuestionAnswering, TextClassification, TokenClassification
from fasttune.testing import check_task

TEXTS = [row["text"] for row in make_rows(18, seed=2, longest=60)]
LABELLED = [{"text": text, "label": ["a", "b", "c"][number % 3]} for number, text in enumerate(TEXTS)]


def questions(answered: float) -> list[dict[str, Any]]:
    rng = random.Random(1)
    rows = []
    for text in TEXTS:
        word = rng.choice(text.split())
        has = rng.random() < answered
        answers = {"text": [word] if has else [], "answer_start": [text.index(word)] if has else []}
        rows.append({"question": "what was good", "context": text, "answers": answers})
    return rows


def tagged(*names: str) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [{"tokens": text.split(), "tags": [rng.choice(names) for _ in text.split()]} for text in TEXTS]


CASES: dict[str, tuple[type, list[dict[str, Any]], Any, dict[str, Any]]] = {
    "classes": (TextClassification, LABELLED, ["fine", "not good"], {}),
    "weighted": (TextClassification, LABELLED, ["fine"], {"training": {"class_weights": "balanced"}}),
    "windows": (TextClassification, LABELLED, ["fine", TEXTS[3]], {"preprocessing": {"long_text": "windows"}}),
    "head and tail": (TextClassification, LABELLED, TEXTS[:3], {"preprocessing": {"long_text": "head_tail"}}),
    "several labels": (
        TextClassification,
        [{"text": text, "label": [["a"], ["a", "b"], []][number % 3]} for number, text in enumerate(TEXTS)],
        ["fine"],
        {},
    ),
    "numbers": (TextClassification, [{"text": text, "label": len(text) / 7} for text in TEXTS], ["fine"], {}),
    "pairs": (
        TextClassification,
        [{**row, "text_pair": row["text"][:40]} for row in LABELLED],
        [("fine", "good")],
        {},
    ),
    "questions": (QuestionAnswering, questions(1.0), [("who", "she")], {"preprocessing": {"doc_stride": 8}}),
    "questions without answers": (
        QuestionAnswering,
        questions(0.6),
        ("who", "she"),
        {"preprocessing": {"doc_stride": 8}},
    ),
    "entities": (TokenClassification, tagged("O", "B-A", "I-A"), ["fine, good", ["a", "b"]], {}),
    "tags": (TokenClassification, tagged("N", "V"), "fine, good", {"training": {"label_smoothing_factor": 0.1}}),
}


def test_every_task_is_checked_and_has_a_name_that_recipes_know() -> None:
    assert {case[0] for case in CASES.values()} == set(TASKS.values())
    assert list(TASKS) == TASK_NAMES


def test_the_example_of_the_guide(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "guides" / "add-a-task.md").read_text(encoding="utf-8")
    module = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", module)
    for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL):
        exec(
            compile(block, "add-a-task.md", "exec"), vars(module)
        )  # the second block checks the task that the first defines
    monkeypatch.setitem(TASKS, "ordinal-classification", module.OrdinalClassification)
    monkeypatch.setattr(types, "TASK_NAMES", [*TASK_NAMES, "ordinal-classification"])
    rows = [{"text": " ".join(["good"] * (number % 3) + ["w1"] * 5), "label": str(number % 3)} for number in range(60)]
    recipe = {
        "task": "ordinal-classification",
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "rows.csv", rows))},
        "training": {
            "preset": "tutorial",
            "num_train_epochs": 8,
            "learning_rate": 3e-3,
            "precision": "fp32",
            "device": "cpu",
        },
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert run.metrics["eval_accuracy"] > 0.9
    assert [
        one["label"] for one in fasttune.load(run.folder).predict(["w1 w1 w1 w1 w1", "good good w1 w1 w1 w1 w1"])
    ] == [
        "0",
        "2",
    ]


@pytest.mark.parametrize("case", CASES)
def test_our_tasks_keep_the_contract(case: str) -> None:
    task, rows, inputs, settings = CASES[case]
    check_task(task, rows, inputs, settings)


class Mean(TextClassification):
    def loss(self, outputs: Any, batch: Any, training: bool) -> Any:
        return super().loss(outputs, batch, training) / self.weight(batch.targets)


class OneWeightToMany(TextClassification):
    def weight(self, targets: Any) -> float:
        return super().weight(targets) + 1


class Reversed(TextClassification):
    def decode(self, *args: Any) -> Iterator[Any]:
        return reversed(list(super().decode(*args)))


class SeesTheBatch(TokenClassification):
    def result(self, outputs: Any, batch: Any) -> Any:
        found = super().result(outputs, batch)
        return found - found.mean(0)


class Forgets(TextClassification):
    def state(self) -> dict[str, Any]:
        kept = super().state()
        return {**kept, "id2label": {key: f"LABEL_{key}" for key in kept["id2label"]}}


class Random(TextClassification):
    def encode(self, *args: Any) -> Any:
        store = super().encode(*args)
        return replace(store, targets={"labels": np.random.default_rng().integers(0, 3, len(store))})


class Leaks(TextClassification):
    def encode(self, *args: Any) -> Any:
        store = super().encode(*args)
        return replace(store, targets=store.targets or {"labels": np.zeros(len(store), dtype=np.int64)})


class NoMetric(TextClassification):
    def score(self, *args: Any) -> dict[str, float]:
        return {"f1_macro": 0.5}


class Padded(QuestionAnswering):
    def loss(self, outputs: Any, batch: Any, training: bool) -> Any:
        batch.inputs["attention_mask"][:] = 1
        return super().loss(outputs, batch, training)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Mean, "loss must be a sum, not a mean"),
        (OneWeightToMany, "weights do not add up"),
        (Reversed, "one prediction per row, in order"),
        (Forgets, "a saved and loaded task decodes differently"),
        (Random, "a different result the second time"),
        (Leaks, "encode gives unlabelled rows targets"),
        (NoMetric, "score lacks accuracy"),
    ],
)
def test_what_is_broken_is_named(task: type, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_task(task, LABELLED, ["fine"])


def test_a_loss_that_padding_changes_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"padding changes the loss|losses do not add up"):
        check_task(Padded, questions(1.0), ("who", "she"), {"preprocessing": {"doc_stride": 8}})


def test_results_that_other_rows_change_are_noticed() -> None:
    with pytest.raises(AssertionError, match="results depend on what else is in the micro-batch"):
        check_task(SeesTheBatch, tagged("N", "V"), "fine")


def test_a_task_without_a_target_is_noticed() -> None:
    class NothingToLearn(TextClassification):
        columns = tuple(replace(column, is_target=False) for column in TextClassification.columns)

    with pytest.raises(AssertionError, match="there is nothing to learn"):
        check_task(NothingToLearn, LABELLED, ["fine"])
