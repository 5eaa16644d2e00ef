"""Independent judges agree with every number, on random data sets: at the end of training, in `evaluate`, and computed
anew by other libraries from the predictions that were written.

Each seed draws a task, labels, a file format and a way to split. What is right is kept here, by the id of the row.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import seqeval.metrics
from scipy import stats
from sklearn import metrics
from tiny import make_questions, make_rows, make_sentences
from torchmetrics.functional.text import squad

import fasttune

NUM_QUICK, NUM_ALL = 20, 200
Row = dict[str, Any]


@dataclass
class Case:
    """`gold`: id of a row -> what is right, as predictions write it. `judge`: what is right, predictions -> metrics."""

    task: str
    rows: list[Row]
    gold: dict[str, Any]
    judge: Callable[[list[Any], list[Row]], dict[str, float]]
    data: dict[str, Any] = field(default_factory=dict)
    features: Any = None  # of `datasets`, where the format has types
    formats: tuple[str, ...] = ("csv", "tsv", "jsonl", "json", "parquet", "saved")


# --- tasks and the forms of their labels ----------------------------------------------------------------------------


def classes(rng: random.Random, rows: list[Row]) -> Case:
    """Classes under several kinds of names, declared or not, renamed or not."""
    number = rng.choice([2, 3, 5])
    codes = [rng.randrange(number) if place >= 4 * number else place % number for place in range(len(rows))]
    form = rng.choice(["names", "numbers", "numbers from 1", "list of names", "table of names", "declared", "renamed"])
    names = {2: ["zulu", "alpha"], 3: ["c", "a", "b"], 5: ["1 star", "2 star", "3 stars", "4 stars", "5 stars"]}[number]
    data: dict[str, Any] = {}
    features, formats = None, Case.formats
    if form == "names":
        values, order = [names[code] for code in codes], sorted(names)
        said = dict(zip(names, names, strict=True))
    elif form in ("numbers", "numbers from 1"):
        first = int(form == "numbers from 1")
        values, order = [str(code + first) for code in codes], [str(code + first) for code in range(number)]
        said = {name: name for name in order}
    elif form == "list of names":  # of which some are values of other classes
        order = [str(code + 1) for code in range(number)]
        values, data["label_names"] = [str(code) for code in codes], order
        said = {str(code): order[code] for code in range(number)}
    elif form == "table of names":
        values = [str(code + 10) for code in codes]
        data["label_names"] = {str(code + 10): names[code] for code in reversed(range(number))}
        order, said = list(data["label_names"].values()), data["label_names"]
    else:
        values, order, formats = codes, list(names), ("parquet", "saved")
        features = {"label": datasets.ClassLabel(names=names)}
        if form == "renamed":
            order = data["label_names"] = [f"new {code}" for code in range(number)]
        said = {code: order[code] for code in range(number)}
    rows = [{**row, "label": value} for row, value in zip(rows, values, strict=True)]
    gold = {row["id"]: said[row["label"]] for row in rows}

    def judge(right: list[str], predictions: list[Row]) -> dict[str, float]:
        found = [prediction["label"] for prediction in predictions]
        how: dict[str, Any] = {"labels": order, "zero_division": 0.0}
        scores = {"accuracy": metrics.accuracy_score(right, found)}
        if number == 2:
            scores["f1"] = metrics.f1_score(right, found, pos_label=order[1], zero_division=0.0)
        else:
            scores["f1_macro"] = metrics.f1_score(right, found, average="macro", **how)
        shares = [prediction["probabilities"][label] for prediction, label in zip(predictions, right, strict=True)]
        return {**scores, "loss": float(-np.log(shares).mean())}

    return Case("text-classification", rows, gold, judge, data, features, formats)


def several_labels(rng: random.Random, rows: list[Row]) -> Case:
    names = ["joy", "fear", "anger"]
    sets = [[name for name in names if rng.random() < 0.4] or [rng.choice(names)] for _ in rows]
    sets[:3] = [[name] for name in names]
    in_cells = rng.random() < 0.5  # labels of one cell with a mark between them
    mark = rng.choice([",", "|", ";"])
    rows = [{**row, "label": mark.join(labels) if in_cells else labels} for row, labels in zip(rows, sets, strict=True)]
    gold = {row["id"]: labels for row, labels in zip(rows, sets, strict=True)}

    def judge(right: list[list[str]], predictions: list[Row]) -> dict[str, float]:
        wanted = np.array([[name in labels for name in sorted(names)] for labels in right])
        found = np.array([[name in one["labels"] for name in sorted(names)] for one in predictions])
        shares = np.array([[one["probabilities"][name] for name in sorted(names)] for one in predictions])
        loss = -np.where(wanted, np.log(shares), np.log1p(-shares)).mean()
        scores = {
            f"f1_{how}": metrics.f1_score(wanted, found, average=how, zero_division=0.0) for how in ("micro", "macro")
        }
        return {**scores, "accuracy": metrics.accuracy_score(wanted, found), "loss": float(loss)}

    data = {"label_separator": mark} if in_cells and rng.random() < 0.5 else {}
    formats = ("csv", "tsv", "jsonl") if in_cells else ("jsonl", "json", "parquet", "saved")
    case = Case("text-classification", rows, gold, judge, data, None, formats)
    case.data["problem"] = "multi-label"
    return case


def numbers(rng: random.Random, rows: list[Row]) -> Case:
    values = [round(rng.uniform(0, 5), 2) for _ in rows]
    values[0] = 2.5
    rows = [{**row, "label": value} for row, value in zip(rows, values, strict=True)]

    def judge(right: list[float], predictions: list[Row]) -> dict[str, float]:
        wanted, found = np.array(right), np.array([one["score"] for one in predictions])
        return {
            "pearson": float(stats.pearsonr(wanted, found).statistic),
            "spearman": float(stats.spearmanr(wanted, found).statistic),
            "rmse": float(metrics.root_mean_squared_error(wanted, found)),
            "loss": float(metrics.mean_squared_error(wanted, found)),
        }

    return Case("text-classification", rows, {row["id"]: row["label"] for row in rows}, judge)


def questions(rng: random.Random, rows: list[Row]) -> Case:
    """By torchmetrics' scorer; with questions that have no answer by a second reading of the rules of version 2."""
    unanswered = rng.choice([0.0, 0.3])
    rows = make_questions(len(rows), unanswered, seed=rng.randrange(10**6), longest=25)
    gold = {row["id"]: row["answers"]["text"] for row in rows}

    def judge(right: list[list[str]], predictions: list[Row]) -> dict[str, float]:
        def by_torchmetrics(chosen: list[int]) -> dict[str, float]:
            found = [{"prediction_text": predictions[place]["answer"], "id": str(place)} for place in chosen]
            wanted = [
                {"answers": {"text": right[place] or [""], "answer_start": [0]}, "id": str(place)} for place in chosen
            ]
            return {name: float(value) for name, value in squad(found, wanted).items()} if chosen else {}

        everything = by_torchmetrics(list(range(len(right))))
        scores = {"exact_match": everything["exact_match"], "f1": everything["f1"]}
        if any(not answers for answers in right):
            for name, has in (("HasAns", True), ("NoAns", False)):
                chosen = [place for place, answers in enumerate(right) if bool(answers) == has]
                own = by_torchmetrics(chosen)
                scores |= {f"{name}_exact": own["exact_match"], f"{name}_f1": own["f1"]} if own else {}
        return scores

    return Case("question-answering", rows, gold, judge, formats=("jsonl", "json", "parquet"))


def words(rng: random.Random, rows: list[Row]) -> Case:
    rows = [{**row, "id": f"t{number}"} for number, row in enumerate(make_sentences(len(rows)))]
    gold = {row["id"]: row["ner_tags"] for row in rows}

    def judge(right: list[list[str]], predictions: list[Row]) -> dict[str, float]:
        found = [prediction["tags"] for prediction in predictions]
        with np.errstate(all="ignore"):
            return {
                "precision": float(seqeval.metrics.precision_score(right, found, zero_division=0)),
                "recall": float(seqeval.metrics.recall_score(right, found, zero_division=0)),
                "f1": float(seqeval.metrics.f1_score(right, found, zero_division=0)),
                "accuracy": float(seqeval.metrics.accuracy_score(right, found)),
            }

    return Case("token-classification", rows, gold, judge, formats=("jsonl", "json", "parquet", "saved"))


TASKS = (classes, classes, classes, several_labels, numbers, questions, words)


# --- formats and splits ---------------------------------------------------------------------------------------------


def write(case: Case, rows: list[Row], form: str, path: Path) -> Path:
    if form in ("csv", "tsv"):
        path = path.with_suffix(f".{form}")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if form == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif form in ("jsonl", "json"):
        path = path.with_suffix(f".{form}")
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n" if form == "jsonl" else f"[{', '.join(lines)}]")
    else:
        dataset = datasets.Dataset.from_list(rows)
        for name, feature in (case.features or {}).items():
            dataset = dataset.cast_column(name, feature)
        path = path.with_suffix(".parquet")
        dataset.to_parquet(path)
    return path


def placed(case: Case, form: str, way: str, folder: Path, rng: random.Random) -> dict[str, Any]:
    """The data section of a recipe, with the files that it names."""
    rows, cut = case.rows, len(case.rows) * 3 // 4
    parts = {"train": rows[:cut], "validation": rows[cut : cut + len(rows) // 8], "test": rows[cut + len(rows) // 8 :]}
    if way == "held out":
        fractions = {"validation_fraction": 0.2, "test_fraction": rng.choice([0.0, 0.2])}
        return {"train": str(write(case, rows, "parquet" if form == "saved" else form, folder / "rows")), **fractions}
    if form == "saved" or way in ("own splits", "named split"):
        place = folder / "set"
        place.mkdir()
        if form == "saved":
            made = {}
            for name, own in parts.items():
                made[name] = datasets.Dataset.from_list(own)
                for column, feature in (case.features or {}).items():
                    made[name] = made[name].cast_column(column, feature)
            datasets.DatasetDict(made).save_to_disk(place)
        else:
            for name, own in parts.items():
                write(case, own, form, place / name)
        return {"train": f"{place}:train" if way == "named split" else str(place)}
    return {name: str(write(case, own, form, folder / f"part-{name}")) for name, own in parts.items()}


def agree(found: dict[str, float], expected: dict[str, float], prefix: str, about: str) -> None:
    """Metrics to the last digit but those that a correlation rounds, losses to 1e-6."""
    for name, value in expected.items():
        tolerance = 1e-6 if name in ("loss", "rmse") else 1e-9 if name in ("pearson", "spearman") else 1e-12
        # torchmetrics adds in fp32
        tolerance = 2e-4 if "exact" in name or (name.endswith("f1") and value > 1) else tolerance
        assert found[f"{prefix}_{name}"] == pytest.approx(value, abs=tolerance, rel=1e-6), f"{about}: {name}"


@pytest.mark.parametrize(
    "seed", [*range(NUM_QUICK), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(NUM_QUICK, NUM_ALL))]
)
@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
def test_judges_agree(seed: int, tiny_model: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    texts = make_rows(rng.choice([64, 96]), seed=seed)
    case = TASKS[seed % len(TASKS)](
        rng, [{"id": f"r{number}", "text": row["text"]} for number, row in enumerate(texts)]
    )
    form = rng.choice(case.formats)
    way = rng.choice(["held out", "own splits", "named split", "files"])
    data = placed(case, form, way, tmp_path, rng)
    problem = case.data.pop("problem", None)
    recipe: dict[str, Any] = {
        "task": case.task,
        "model": str(tiny_model),
        "data": {**data, **case.data},
        "training": {"max_steps": rng.choice([2, 12]), "learning_rate": 3e-3, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }
    if problem is not None and rng.random() < 0.5:
        recipe["problem"] = problem
    if case.task == "question-answering":
        recipe["preprocessing"] = {"doc_stride": 8}
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    about = f"{case.task}, {form}, {way}, {case.data}"
    scored = [(split, prefix) for split, prefix in (("validation", "eval"), ("test", "test"))]
    for split, prefix in scored:
        if f"{prefix}_loss" not in run.metrics:
            assert split == "test" and way == "held out", about
            continue
        lines = (run.folder / "predictions" / f"{split}.jsonl").read_text().splitlines()
        predictions = [json.loads(line) for line in lines]
        right = [case.gold[prediction["id"]] for prediction in predictions]
        expected = case.judge(right, predictions)
        assert run.metrics[f"{prefix}_samples"] == len(predictions) > 0
        agree(run.metrics, expected, prefix, about)
        agree(fasttune.evaluate(run.folder, split=split), expected, prefix, about)
        if way in ("files", "own splits", "named split"):
            ids = [row["id"] for row in case.rows]
            assert [prediction["id"] for prediction in predictions] == sorted(
                {prediction["id"] for prediction in predictions}, key=ids.index
            )
        if split in data:
            again = fasttune.evaluate(run.folder, data=data[split])
            agree(again, expected, "eval", f"{about}, --data")
