"""Every shipped recipe trains, scores and predicts, on rows of its own columns that are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from sklearn.metrics import f1_score
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


# --- the data sets of the hub, as they declare their columns --------------------------------------------------------

EMOTIONS = [f"feeling {number}" for number in range(27)] + ["neutral"]
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
ANSWERS = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))}
SQUAD = {name: datasets.Value("string") for name in ("id", "title", "context", "question")} | {"answers": ANSWERS}
PAIR = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"), "idx": datasets.Value("int32")}
STAR_NAMES = ["1 star", "2 star", "3 stars", "4 stars", "5 stars"]
HUB: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {  # features and splits
    "imdb": (
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])},
        ("train", "test", "unsupervised"),
    ),
    "mrpc": (
        {**PAIR, "label": datasets.ClassLabel(names=["not_equivalent", "equivalent"])},
        ("train", "validation", "test"),
    ),
    "stsb": ({**PAIR, "label": datasets.Value("float32")}, ("train", "validation", "test")),
    "goemotions": (
        {
            "text": datasets.Value("string"),
            "labels": datasets.List(datasets.ClassLabel(names=EMOTIONS)),
            "id": datasets.Value("string"),
        },
        ("train", "validation", "test"),
    ),
    "yelp": (
        {"label": datasets.ClassLabel(names=STAR_NAMES), "text": datasets.Value("string")},
        ("train", "test"),
    ),
    "yelp-full": (
        {"label": datasets.ClassLabel(names=STAR_NAMES), "text": datasets.Value("string")},
        ("train", "test"),
    ),
    "squad": (SQUAD, ("train", "validation")),
    "squad-v2": (SQUAD, ("train", "validation")),
    "cmrc": ({name: kind for name, kind in SQUAD.items() if name != "title"}, ("train", "validation", "test")),
    "ner": (
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "pos_tags": datasets.List(datasets.Value("int64")),
            "chunk_tags": datasets.List(datasets.Value("int64")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=TAGS)),
        },
        ("train", "validation", "test"),
    ),
}


def row_of(name: str, number: int, split: str) -> dict[str, Any]:
    """A row as the data set has it; the label of row `number` follows from its number."""
    text = f"{TEXTS[number % len(TEXTS)]} w{number % 60}"
    if name == "imdb":
        return {"text": text, "label": -1 if split == "unsupervised" else number % 2}
    if name in ("mrpc", "stsb"):
        label = number % 2 if name == "mrpc" else -1.0 if split == "test" else (number % 11) / 2
        return {"sentence1": text, "sentence2": text[:15], "label": label, "idx": number}
    if name == "goemotions":
        return {"text": text, "labels": sorted({number % 28, 27}) if number % 3 else [number % 28], "id": f"e{number}"}
    if name.startswith("yelp"):
        return {"label": number % 5, "text": text}
    if name == "ner":
        words = text.split()
        tags = [number % 9 if word == "good" else 0 for word in words]
        return {"id": str(number), "tokens": words, "pos_tags": tags, "chunk_tags": tags, "ner_tags": tags}
    (question,) = make_questions(1, unanswered=0.5 if name == "squad-v2" else 0.0, seed=number, longest=12)
    row = {"title": "one", **question, "id": f"{split}-{number}"}
    return row if name != "cmrc" else {key: value for key, value in row.items() if key != "title"}


@pytest.mark.parametrize("name", HUB)
def test_a_recipe_takes_its_data_set_as_the_hub_declares_it(name: str, tiny_model: Path, tmp_path: Path) -> None:
    features, splits = HUB[name]
    place, sizes = tmp_path / "set", {"train": 120, "validation": 36, "test": 45, "unsupervised": 10}
    made = {
        split: datasets.Dataset.from_list(
            [row_of(name, number, split) for number in range(sizes[split])], features=datasets.Features(features)
        )
        for split in splits
    }
    datasets.DatasetDict(made).save_to_disk(place)
    shipped = recipes.load(name)
    asked = {
        role: f"{place}:{spec.rpartition(':')[2]}" if ":" in spec else str(place)
        for role in ("train", "validation", "test")
        if (spec := getattr(shipped.data, role)) is not None
    }
    is_questions = shipped.task == "question-answering"
    changes = {
        "model": str(tiny_model),
        "data": asked,
        "preprocessing": {"max_length": 60, **({"doc_stride": 16} if is_questions else {})},
        "training": {"max_steps": 2, "warmup_steps": 0, "device": "cpu", "precision": "fp32"},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipes.load(shipped, changes), output=tmp_path / "run", progress=False)
    report = json.loads((run.folder / "data_report.json").read_text())["splits"]
    names = list(json.loads((run.folder / "config.json").read_text()).get("id2label", {}).values())
    declared = {
        "imdb": ["negative", "positive"],
        "mrpc": ["not_equivalent", "equivalent"],
        "goemotions": EMOTIONS,
        "yelp": ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"],
        "yelp-full": ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"],
        "ner": TAGS,
    }
    if name in declared:
        assert names == declared[name], "the classes in the order of their numbers"
    assert ("test" in report) == ("test" in splits and name != "stsb"), "of stsb the test rows have no labels"
    if "test" in report:
        limit = shipped.data.max_eval_samples or sizes["test"]
        assert report["test"]["num_rows"] == run.metrics["test_samples"] == min(sizes["test"], limit)
    if "validation" in splits:
        assert report["validation"]["num_rows"] == sizes["validation"]
    if name in ("mrpc", "imdb"):
        lines = (run.folder / "predictions" / "test.jsonl").read_text().splitlines()
        found = [names.index(json.loads(line)["label"]) for line in lines]
        gold = [made["test"][int(json.loads(line)["id"])]["label"] for line in lines]
        assert run.metrics["test_f1"] == f1_score(gold, found, pos_label=1, zero_division=0.0)
