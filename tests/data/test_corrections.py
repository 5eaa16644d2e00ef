"""data.corrections: the edited file of `fasttune labels`."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv, write_jsonl

import fasttune
from fasttune.data.pipeline import read_splits
from fasttune.errors import DataError
from fasttune.recipe import load as load_recipe
from fasttune.tasks import TASKS

ROWS = make_rows(40)


def corrections(path: Path, entries: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("row", "label", "suggestion", "loss", "text"), restval="")
        writer.writeheader()
        writer.writerows(entries)
    return path


def read(data: Path, file: Path, **changes: Any) -> Any:
    recipe = {"data": {"train": str(data), "corrections": str(file), "validation_fraction": 0.2, **changes}}
    return read_splits(load_recipe(recipe), TASKS)


def other(label: str) -> str:
    return "negative" if label == "positive" else "positive"


def test_changed_labels_are_taken_over_and_others_stay(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", ROWS)
    plain = read_splits(load_recipe({"data": {"train": str(data), "validation_fraction": 0.2}}), TASKS)
    ids, texts = list(plain.train.rows.ids), list(plain.train.rows.values["text"])
    labels = list(map(str, plain.train.rows.values["label"]))
    entries = [{"row": ids[row], "label": other(labels[row]), "text": texts[row]} for row in (3, 7)]
    entries.append({"row": ids[5], "label": labels[5], "text": texts[5]})
    found = read(data, corrections(tmp_path / "labels.csv", entries))
    expected = [other(label) if row in (3, 7) else label for row, label in enumerate(labels)]
    assert list(map(str, found.train.rows.values["label"])) == expected
    assert list(found.validation.rows.ids) == list(plain.validation.rows.ids)  # type: ignore[union-attr]
    assert any("2 labels changed" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"text": "another text"}, "has another text in the data"),
        ({"row": "1000"}, "is not a training row"),
        ({"label": " "}, "no label"),
        ({"label": "neutral"}, "neutral"),
    ],
)
def test_what_cannot_be_a_correction_is_refused(tmp_path: Path, change: dict[str, str], expected: str) -> None:
    data = write_csv(tmp_path / "rows.csv", ROWS)
    rows = read_splits(load_recipe({"data": {"train": str(data), "validation_fraction": 0.2}}), TASKS).train.rows
    entry = {"row": rows.ids[0], "label": "negative", "text": rows.values["text"][0], **change}
    with pytest.raises(DataError, match=expected):
        read(data, corrections(tmp_path / "labels.csv", [entry]))


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", ROWS)
    (tmp_path / "labels.csv").write_text("id,y\n1,positive\n")
    with pytest.raises(DataError, match="no column row; columns: id, y"):
        read(data, tmp_path / "labels.csv")
    with pytest.raises(DataError, match="cannot read the file"):
        read(data, tmp_path / "absent.csv")


def test_a_spreadsheet_may_have_saved_it_with_semicolons_and_formulas_are_unescaped(tmp_path: Path) -> None:
    rows = [{"text": f"-{row['text']}", "label": row["label"]} for row in ROWS]
    data = write_csv(tmp_path / "rows.csv", rows)
    train = read_splits(load_recipe({"data": {"train": str(data), "validation_fraction": 0.2}}), TASKS).train.rows
    line = f"{train.ids[2]};{other(str(train.values['label'][2]))};;;'{train.values['text'][2]}\n"
    (tmp_path / "labels.csv").write_text("\ufeffrow;label;suggestion;loss;text\n" + line, encoding="utf-8")
    found = read(data, tmp_path / "labels.csv")
    assert str(found.train.rows.values["label"][2]) == other(str(train.values["label"][2]))


@pytest.mark.parametrize("problem", ["single-label", "multi-label"])
def test_every_label_is_ranked_out_of_fold_and_comes_back(tiny_model: Path, tmp_path: Path, problem: str) -> None:
    is_multi = problem == "multi-label"
    rows: list[dict[str, Any]] = make_rows(60)
    if is_multi:
        rows = [{**row, "label": [row["label"], *["long"] * (len(row["text"]) > 80)]} for row in rows]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(data)},
        "training": {"preset": "tutorial", "num_train_epochs": 1, "precision": "fp32"},
        "evaluation": {"baselines": False},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    ranked, path = fasttune.rank_labels(run.folder, folds=3, progress=False)
    training = json.loads((run.folder / "data_report.json").read_text())["splits"]["train"]["num_rows"]
    assert len({one.row for one in ranked}) == len(ranked) == training
    assert [one.loss for one in ranked] == sorted((one.loss for one in ranked), reverse=True)
    kept = {path.name: path.stat().st_mtime_ns for path in (run.folder / "labels").glob("fold-*.json")}
    assert len(kept) == 3 and not (run.folder / "labels" / "fold-1").exists()
    again, _ = fasttune.rank_labels(run.folder, folds=3, progress=False)  # nothing is trained again
    assert again == ranked
    assert kept == {path.name: path.stat().st_mtime_ns for path in (run.folder / "labels").glob("fold-*.json")}
    with path.open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    before = entries[0]["label"]
    entries[0]["label"] = json.dumps(["long"]) if is_multi else other(before)
    assert entries[0]["label"] != before
    edited = corrections(tmp_path / "edited.csv", entries)
    own = load_recipe(run.folder / "recipe.yaml", {"data": {"corrections": str(edited)}})
    assert any("1 label changed" in note for note in read_splits(own, TASKS).notes)


def ranked_run(tiny_model: Path, folder: Path, rows: list[dict[str, Any]], **recipe: Any) -> Path:
    made = {
        "model": str(tiny_model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows)), **recipe.pop("data", {})},
        "training": {"preset": "tutorial", "num_train_epochs": 6, "precision": "fp32", "learning_rate": 3e-3},
        "evaluation": {"baselines": False},
        **recipe,
    }
    return fasttune.fit(made, output=folder / "run", progress=False).folder


def test_flipped_labels_come_first_and_an_edited_file_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": str(number), "text": f"{word} w{number % 60} w{number // 60}", "label": label}
        for number, (word, label) in enumerate([("good", "positive"), ("bad", "negative")] * 200)
    ]
    flipped = {*map(str, random.Random(0).sample(range(400), 20))}
    for row in rows:
        row["label"] = other(row["label"]) if row["id"] in flipped else row["label"]
    run = ranked_run(tiny_model, tmp_path, rows)
    ranked, path = fasttune.rank_labels(run, progress=False)
    first = [one.row for one in ranked[: len(flipped)]]
    assert len(flipped & {*first}) >= 0.8 * len(flipped), "folds have learned"
    edited = path.read_text().replace("positive", "negative")
    path.write_text(edited)
    _, second = fasttune.rank_labels(run, progress=False)
    assert path.read_text() == edited and second.name == "labels-2.csv"


def test_rows_of_a_group_are_in_one_fold(tiny_model: Path, tmp_path: Path) -> None:
    from fasttune.evaluation.label_ranking import _folds

    rows = [{**row, "user": f"u{number % 12}"} for number, row in enumerate(make_rows(120))]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = {"data": {"train": str(data), "columns": {"group": "user"}}}
    splits = read_splits(load_recipe(recipe), TASKS)
    fold_of = _folds(splits.task, splits.train, 3, 1)  # type: ignore[arg-type]
    groups: dict[str, set[int]] = {}
    for user, fold in zip(splits.train.rows.values["group"], fold_of, strict=True):
        groups.setdefault(str(user), set()).add(int(fold))
    assert all(len(folds) == 1 for folds in groups.values()) and {*fold_of} == {0, 1, 2}


def test_suggestions_are_written_as_the_labels_are(tiny_model: Path, tmp_path: Path) -> None:
    rows = [
        {**row, "label": f"{row['label']};long" if len(row["text"]) > 80 else row["label"]} for row in make_rows(90)
    ]
    run = ranked_run(tiny_model, tmp_path, rows, problem="multi-label", data={"label_separator": ";"})
    ranked, path = fasttune.rank_labels(run, progress=False)
    with path.open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    for entry in entries:
        assert not entry["suggestion"].startswith("[")
        entry["label"] = entry["suggestion"] or entry["label"]
    taken = read_splits(
        load_recipe(run / "recipe.yaml", {"data": {"corrections": str(corrections(tmp_path / "all.csv", entries))}}),
        TASKS,
    )
    assert {*map(str, taken.train.rows.values["label"])} <= {*(one["label"] for one in entries)}
    assert len(ranked) == len(entries)


def test_ids_that_repeat_and_texts_with_apostrophes(tmp_path: Path) -> None:
    rows = [
        {"id": f"user{number % 4}", "text": f"'-{row['text']}", "label": row["label"]}
        for number, row in enumerate(ROWS)
    ]
    data = write_csv(tmp_path / "rows.csv", rows)
    train = read_splits(load_recipe({"data": {"train": str(data), "validation_fraction": 0.2}}), TASKS).train.rows
    entries = [
        {"row": train.ids[row], "label": str(train.values["label"][row]), "text": train.values["text"][row]}
        for row in range(len(train))
    ]
    entries[5]["label"] = other(entries[5]["label"])
    found = read(data, corrections(tmp_path / "labels.csv", entries))
    assert [str(label) for label in found.train.rows.values["label"]] == [entry["label"] for entry in entries]


def test_a_list_of_labels_must_be_one(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": row["text"], "label": [row["label"], "a"]} for row in ROWS]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    train = read_splits(load_recipe({"data": {"train": str(data), "validation_fraction": 0.2}}), TASKS).train.rows
    entry = {"row": train.ids[0], "text": train.values["text"][0]}
    for label, expected in (("[5", None), ("a", ("a",)), ('["positive"]', ("positive",))):
        file = corrections(tmp_path / "labels.csv", [{**entry, "label": label}])
        if expected is None:
            with pytest.raises(DataError, match="is not a list of labels"):
                read(data, file)
        else:
            assert tuple(read(data, file).train.rows.values["label"][0]) == expected
