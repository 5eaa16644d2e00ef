"""Every shipped recipe trains, scores and predicts, on rows of its own columns that are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_questions, make_rows, write_jsonl

import fasttune
from fasttune import recipe as recipes

TEXTS = [row["text"] for row in make_rows(40, seed=8, longest=12)]
STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
ROWS: dict[str, tuple[list[dict[str, Any]], Any]] = {  # rows of the data set's own columns, and what to predict
    "classes": ([{"text": text, "label": number % 2} for number, text in enumerate(TEXTS)], TEXTS[:2]),
    "stars": ([{"text": text, "label": number % 5} for number, text in enumerate(TEXTS)], TEXTS[:2]),
    "pairs": (
        [{"sentence1": text, "sentence2": text[:20], "label": number % 2} for number, text in enumerate(TEXTS)],
        [("good", "bad")],
    ),
    "alike": (
        [{"sentence1": text, "sentence2": text[:20], "label": len(text) / 7} for text in TEXTS],
        [("good", "bad")],
    ),
    "feelings": (
        [{"text": text, "labels": [number % 3, 3][: number % 2 + 1]} for number, text in enumerate(TEXTS)],
        TEXTS,
    ),
    "questions": (make_questions(40, longest=12), [("who", "she was")]),
    "questions without answers": (make_questions(40, unanswered=0.3, longest=12), [("who", "she was")]),
    "names": (
        [
            {"tokens": text.split(), "ner_tags": ["B-X" if word == "good" else "O" for word in text.split()]}
            for text in TEXTS
        ],
        TEXTS[:2],
    ),
}
OWN = {
    "chnsenticorp": "classes",
    "cmrc": "questions",
    "goemotions": "feelings",
    "imdb": "classes",
    "mrpc": "pairs",
    "ner": "names",
    "pairs-starter": "pairs",
    "quickstart": "stars",
    "squad": "questions",
    "squad-starter": "questions without answers",
    "squad-v2": "questions without answers",
    "stsb": "alike",
    "yelp": "stars",
    "yelp-full": "stars",
}


def test_every_recipe_is_here() -> None:
    assert list(OWN) == list(recipes.shipped())


@pytest.mark.parametrize("name", OWN)
def test_a_shipped_recipe_trains_scores_and_predicts(name: str, tiny_model: Path, tmp_path: Path) -> None:
    rows, asked = ROWS[OWN[name]]
    data = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    shipped = recipes.load(name)
    used = {split: data for split in ("train", "validation", "test") if getattr(shipped.data, split) is not None}
    task = shipped.task
    length = {"max_length": 60, "doc_stride": 16} if task == "question-answering" else {"max_length": 40}
    changes = {
        "model": str(tiny_model),
        "data": {**used, "max_train_samples": None, "max_eval_samples": None},
        "preprocessing": length,
        "training": {"max_steps": 2, "batch_size": 4, "warmup_steps": 0, "device": "cpu", "precision": "fp32"},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipes.load(shipped, changes), output=tmp_path / "run", progress=False)
    metric = recipes.load(run.folder / "recipe.yaml").evaluation.metric_for_best_model
    assert f"eval_{metric}" in run.metrics and ("test_loss" in run.metrics) == ("test" in used)
    found = fasttune.load(run.folder).predict(asked)
    assert len(found) == len(asked) and json.dumps(found)


@pytest.mark.parametrize("name", ["squad-starter", "pairs-starter"])
def test_the_starters_need_no_file(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Read and split as they are; the embedded model learns them outside of the tests."""
    changes = {
        "model": str(tiny_model),
        "data": {"max_train_samples": 16, "max_eval_samples": 8},
        "preprocessing": {"max_length": 64, **({"doc_stride": 8} if "squad" in name else {})},
        "training": {"max_steps": 1, "device": "cpu", "precision": "fp32", "warmup_steps": 0},
        "tracking": {"report_to": "none"},
    }
    with pytest.raises(fasttune.Error, match="E254"):  # the tiny model knows none of the words
        fasttune.fit(recipes.load(name, changes), output=tmp_path / "run", progress=False)
