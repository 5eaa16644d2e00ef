"""A split is exactly the rows that its name says: in training, in `evaluate`, and in what is counted on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import yaml
from sklearn.metrics import accuracy_score
from tiny import make_rows, write_csv, write_jsonl

import fasttune

EXCHANGED = {"positive": "negative", "negative": "positive"}


def recipe_of(model: Path, data: dict[str, Any], **training: Any) -> dict[str, Any]:
    settings = {"max_steps": 60, "learning_rate": 3e-3, "precision": "fp32", "device": "cpu", **training}
    return {"model": str(model), "data": data, "training": settings, "tracking": {"report_to": "none"}}


def fit(model: Path, folder: Path, data: dict[str, Any], **training: Any) -> fasttune.Run:
    return fasttune.fit(recipe_of(model, data, **training), output=folder, progress=False)


def splits_of(run: fasttune.Run) -> dict[str, dict[str, Any]]:
    return json.loads((run.folder / "data_report.json").read_text())["splits"]


def exchanged(num_rows: int, seed: int) -> list[dict[str, str]]:
    """Rows whose labels are all wrong."""
    return [{**row, "label": EXCHANGED[row["label"]]} for row in make_rows(num_rows, seed=seed)]


def as_folder(splits: dict[str, list[dict[str, str]]], folder: Path) -> Path:
    folder.mkdir()
    for name, rows in splits.items():
        write_csv(folder / f"{name}.csv", rows)
    return folder


def as_saved(splits: dict[str, list[dict[str, str]]], folder: Path) -> Path:
    made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("form", [as_folder, as_saved])
def test_a_named_training_split_is_not_the_test_split_too(form: Any, tiny_model: Path, tmp_path: Path) -> None:
    place = form({"train": make_rows(80), "test": exchanged(40, seed=1)}, tmp_path / "set")
    run = fit(tiny_model, tmp_path / "run", {"train": f"{place}:train"})
    assert splits_of(run)["test"]["num_rows"] == run.metrics["test_samples"] == 40
    lines = (run.folder / "predictions" / "test.jsonl").read_text().splitlines()
    gold, found = [row["label"] for row in exchanged(40, seed=1)], [json.loads(line)["label"] for line in lines]
    assert run.metrics["test_accuracy"] == accuracy_score(gold, found)
    assert fasttune.evaluate(run.folder)["test_accuracy"] == run.metrics["test_accuracy"]


def test_splits_in_memory_are_told_by_their_names_and_not_by_words_in_them(tiny_model: Path, tmp_path: Path) -> None:
    parts = {
        "train": make_rows(40),
        "train_noisy": exchanged(40, seed=2),
        "validation_matched": make_rows(20, seed=3),
        "validation_mismatched": exchanged(20, seed=4),
        "test_other": exchanged(20, seed=5),
    }
    splits = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    run = fit(tiny_model, tmp_path / "run", {"train": splits}, max_steps=2)
    found = {name: split["num_rows"] for name, split in splits_of(run).items()}
    assert found == {"train": 36, "validation": 4}, "held out of train alone; no other split has a name of ours"


@pytest.mark.parametrize("unlabelled", ["-1", "no column", "empty"])
def test_a_test_split_without_labels_is_not_scored(unlabelled: str, tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in make_rows(10, seed=1)]
    if unlabelled != "no column":
        rows = [{**row, "label": "-1" if unlabelled == "-1" else ""} for row in rows]
    place = as_folder({"train": make_rows(40), "test": rows}, tmp_path / "set")
    run = fit(tiny_model, tmp_path / "run", {"train": str(place)}, max_steps=2)
    assert not any(name.startswith("test_") for name in run.metrics)
    notes = json.loads((run.folder / "data_report.json").read_text())["notes"]
    assert "test: the data set's own test split has no labels and is not scored" in notes


# --- evaluate -------------------------------------------------------------------------------------------------------


def test_all_rows_of_a_file_are_scored_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    data = {"train": str(write_csv(tmp_path / "rows.csv", make_rows(80))), "max_eval_samples": 5}
    run = fit(tiny_model, tmp_path / "run", data, max_steps=4)
    assert run.metrics["eval_samples"] == 5
    rows = make_rows(130, seed=9)
    found = fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "other.csv", rows)))
    labels = [one["label"] for one in fasttune.predict(run.folder, data=str(tmp_path / "other.csv"))]
    assert found["eval_samples"] == 130
    assert found["eval_accuracy"] == accuracy_score([row["label"] for row in rows], labels)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("trained")
    write_csv(folder / "rows.csv", make_rows(100))
    data = {"train": str(folder / "rows.csv"), "validation_fraction": 0.25, "test_fraction": 0.2}
    return fit(tiny_model, folder / "run", data, max_steps=4)


def rewritten(run: fasttune.Run, rows: list[dict[str, str]]) -> None:
    write_csv(run.folder.parent / "rows.csv", rows)


def test_held_out_rows_are_the_same_ones_again(trained: fasttune.Run) -> None:
    rewritten(trained, make_rows(100))
    for split, prefix in (("validation", "eval"), ("test", "test")):
        again = fasttune.evaluate(trained.folder, split=split)
        for name in ("samples", "accuracy", "f1"):
            assert again[f"{prefix}_{name}"] == trained.metrics[f"{prefix}_{name}"]
    # Rows that are added behind them change nothing.
    rewritten(trained, [*make_rows(100), *make_rows(50, seed=7)])
    assert fasttune.evaluate(trained.folder)["test_accuracy"] == trained.metrics["test_accuracy"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: rows[1:], id="one row less"),
        pytest.param(lambda rows: [*make_rows(1, seed=5), *rows], id="one row in front"),
        pytest.param(lambda rows: sorted(rows, key=lambda row: row["text"]), id="sorted"),
        pytest.param(lambda rows: rows[:20], id="cut"),
    ],
)
def test_rows_that_may_have_been_trained_on_are_not_scored(trained: fasttune.Run, change: Any) -> None:
    rewritten(trained, change(make_rows(100)))
    with pytest.raises(fasttune.Error, match=r"E531 .*the test rows differ from those that the run held out"):
        fasttune.evaluate(trained.folder)
    with pytest.raises(fasttune.Error, match=r"E531 .*: the file has changed since the run"):
        fasttune.evaluate(trained.folder, split="train")


def test_a_run_of_an_older_version_is_scored_while_its_file_is_unchanged(trained: fasttune.Run, tmp_path: Path) -> None:
    """Its data_report.json has no list of rows: they are drawn again."""
    rewritten(trained, make_rows(100))
    path = trained.folder / "data_report.json"
    content = path.read_text()
    report = json.loads(content)
    for split in report["splits"].values():
        for name in ("rows_sha256", "positions", "read_as"):
            split.pop(name, None)
    path.write_text(json.dumps(report))
    try:
        assert fasttune.evaluate(trained.folder)["test_accuracy"] == trained.metrics["test_accuracy"]
        rewritten(trained, make_rows(100)[1:])
        with pytest.raises(fasttune.Error, match="E531"):
            fasttune.evaluate(trained.folder)
    finally:
        path.write_text(content)


# --- what is counted on the training rows ---------------------------------------------------------------------------


def test_balanced_weights_are_counted_on_the_rows_that_are_trained_on(tiny_model: Path, tmp_path: Path) -> None:
    spam = [{"text": f"good w{number % 9}", "label": "spam"} for number in range(300)]  # nine different texts
    ham = [{"text": f"bad w{number % 60} w{number // 60} w{number % 7}", "label": "ham"} for number in range(60)]
    path = str(write_csv(tmp_path / "rows.csv", [*spam, *ham]))
    recipe = recipe_of(tiny_model, {"train": path, "drop_duplicates": True}, class_weights="balanced", max_steps=1)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    counts = splits_of(run)["train"]["labels"]
    weights = yaml.safe_load((run.folder / "recipe.yaml").read_text())["training"]["class_weights"]
    total = sum(counts.values())
    assert counts["spam"] < counts["ham"] and weights["spam"] > weights["ham"]
    assert weights == pytest.approx({name: total / (2 * number) for name, number in counts.items()})


def test_texts_of_one_template_are_not_all_dropped_as_copies(tiny_model: Path, tmp_path: Path) -> None:
    places = [f"w{number}" for number in range(60)]
    ship = [
        {"text": f"the staff was very good and the room was great {places[n % 60]} {places[n // 5]}", "label": "ship"}
        for n in range(100)
    ]
    other = [{"text": " ".join(f"w{(7 * n + k * k) % 60}" for k in range(12)), "label": "other"} for n in range(100)]
    path = str(write_csv(tmp_path / "rows.csv", [*ship, *other]))
    run = fit(tiny_model, tmp_path / "run", {"train": path, "drop_duplicates": True}, max_steps=1)
    assert splits_of(run)["train"]["labels"]["ship"] >= 80
    notes = json.loads((run.folder / "data_report.json").read_text())["notes"]
    assert any("of class 'ship' that are near-duplicates of held-out rows" in note for note in notes)


# --- columns to split by --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timestamp", "date", "decimal"])
def test_typed_columns_of_time_split_as_their_texts_do(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow.parquet as pq

    days = [datetime.datetime(2024, 1, 1) + datetime.timedelta(days=number) for number in range(60)]
    values = {
        "timestamp": days,
        "date": [day.date() for day in days],
        "decimal": [decimal.Decimal(number) / 4 for number in range(60)],
    }[kind]
    rows = make_rows(60)
    table = pa.table({**{name: [row[name] for row in rows] for name in ("text", "label")}, "when": values})
    pq.write_table(table, tmp_path / "rows.parquet")
    data = {"train": str(tmp_path / "rows.parquet"), "columns": {"time": "when"}}
    run = fit(tiny_model, tmp_path / "run", data, max_steps=2)
    assert splits_of(run)["validation"]["positions"] == list(range(54, 60))
    grouped = {"train": str(tmp_path / "rows.parquet"), "columns": {"group": "when"}}
    assert fit(tiny_model, tmp_path / "grouped", grouped, max_steps=2).is_complete


@pytest.mark.parametrize("problem", ["multi-label", "regression"])
def test_one_rare_target_is_no_class_without_rows(problem: str, tiny_model: Path, tmp_path: Path) -> None:
    """Strata are only for an even share; a stratum of one row is none that a user could mend."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(make_rows(60)):
        if problem == "multi-label":
            labels = [["a"], ["b"], ["a", "b"]][number % 3] if number != 30 else ["a", "rare"]
            rows.append({"text": row["text"], "labels": [] if number == 31 else labels})
        else:
            rows.append({"text": row["text"], "label": 5.0 if number == 30 else 1.5 + number % 3})
    run = fit(tiny_model, tmp_path / "run", {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows))}, max_steps=2)
    parts = {name: split["num_rows"] for name, split in splits_of(run).items()}
    assert parts == {"train": 54, "validation": 6} and np.isfinite(run.metrics["eval_loss"])
