"""Training on from a run: labels keep their rows of the head, replayed rows what was known, and the card says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_questions, make_rows, make_sentences, write_jsonl

import fasttune
from fasttune.errors import RecipeError

SETTINGS: dict[str, Any] = {
    "training": {"preset": "tutorial", "precision": "fp32", "learning_rate": 2e-3},
    "evaluation": {"baselines": False, "calibrate": False},
    "tracking": {"report_to": "none"},
}
WORDS = {"food": "good", "service": "bad", "place": "room", "price": "slow"}  # label -> the word that tells it


def rows_of(labels: list[str], number: int, seed: int) -> list[dict[str, str]]:
    """One word decides the label of each row; the other words are noise."""
    rows = make_rows(number, seed=seed, longest=8)
    for at, row in enumerate(rows):
        label = labels[at % len(labels)]
        noise = [word for word in row["text"].split() if word.startswith("w") and word[1:].isdigit()]
        row |= {"text": " ".join([*noise, WORDS[label]]), "label": label}
    return rows


def fit(
    model: Path, folder: Path, rows: list[dict[str, Any]], task: str = "text-classification", **sections: Any
) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = {"task": task, "model": str(model), "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))}}
    shared = SETTINGS if task == "text-classification" else {**SETTINGS, "evaluation": {}}
    sections = {name: {**shared.get(name, {}), **sections.get(name, {})} for name in {*shared, *sections}}
    return fasttune.fit({**recipe, **sections}, output=folder / "run", progress=False).folder


@pytest.fixture(scope="module")
def three(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = rows_of(["food", "service", "place"], 240, seed=1)
    return fit(tiny_model, tmp_path_factory.mktemp("three"), rows, training={"num_train_epochs": 6})


def accuracy(run: Path, labels: list[str], folder: Path) -> float:
    rows = write_jsonl(folder / f"{'-'.join(labels)}.jsonl", rows_of(labels, 120, seed=99))
    return fasttune.evaluate(run, data=str(rows), progress=False)["eval_accuracy"]


def test_a_fourth_label_is_added_without_forgetting(three: Path, tmp_path: Path) -> None:
    old = ["food", "service", "place"]
    before = accuracy(three, old, tmp_path)
    assert before > 0.95
    run = fit(three, tmp_path / "four", rows_of(["price"], 80, seed=2), training={"replay": 1.5, "num_train_epochs": 3})
    assert json.loads((run / "config.json").read_text())["label2id"].keys() == {*old, "price"}
    assert accuracy(run, ["price"], tmp_path) > 0.95
    labels = [row["label"] for row in rows_of(old, 120, seed=99)]
    predicted = fasttune.load(run).predict([row["text"] for row in rows_of(old, 120, seed=99)])
    now = sum(one["label"] == label for one, label in zip(predicted, labels, strict=True)) / len(labels)
    assert now > before - 0.01
    report = json.loads((run / "data_report.json").read_text())
    assert report["splits"]["train"]["num_rows"] == 72 + 108 and report["splits"]["validation"]["num_rows"] == 8 + 12
    environment = json.loads((run / "environment.json").read_text())
    assert "rows of 'food', 'place', 'service' kept" in environment["new_weights"]["reason"]
    # The validation rows, of which some are another run's, are found again.
    scores = fasttune.evaluate(run, split="validation", progress=False)
    assert scores["eval_accuracy"] == json.loads((run / "all_results.json").read_text())["eval_accuracy"]


def test_card_and_environment_tell_the_lineage(three: Path, tmp_path: Path) -> None:
    second = fit(three, tmp_path / "second", rows_of(["food", "price"], 60, seed=4), training={"max_steps": 2})
    third = fit(second, tmp_path / "third", make_sentences(40), "token-classification", training={"max_steps": 2})
    lineage = json.loads((third / "environment.json").read_text())["lineage"]
    assert [one.get("run") for one in lineage] == [None, "run", "run"]
    assert lineage[1]["task"] == "text-classification" and lineage[1]["num_rows"] == 216
    card = (third / "README.md").read_text()
    assert "## Lineage" in card and "2. run (text-classification, 216 rows)" in card and "4. this model" in card
    assert str(tmp_path) not in card


def test_held_out_rows_that_the_first_run_was_trained_on_are_told(three: Path, tmp_path: Path) -> None:
    rows = rows_of(["food", "service", "place"], 240, seed=1)[:100]  # the file that the first run had
    run = fit(three, tmp_path / "again", rows, training={"max_steps": 2})
    notes = json.loads((run / "data_report.json").read_text())["notes"]
    (found,) = [note for note in notes if "was trained on" in note]
    assert "scores on them are optimistic" in found
    other = fit(three, tmp_path / "other", rows_of(["food", "place"], 60, seed=5), training={"max_steps": 2})
    assert not [n for n in json.loads((other / "data_report.json").read_text())["notes"] if "was trained on" in n]


@pytest.mark.parametrize(
    ("task", "rows"), [("question-answering", make_questions(40)), ("token-classification", make_sentences(60))]
)
def test_questions_and_words_are_replayed_too(task: str, rows: list[Any], tiny_model: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"preprocessing": {"doc_stride": 8}} if task == "question-answering" else {}
    first = fit(tiny_model, tmp_path / "first", rows[:20], task, **settings, training={"max_steps": 2})
    run = fit(first, tmp_path / "second", rows[20:], task, **settings, training={"max_steps": 2, "replay": 0.5})
    splits = json.loads((run / "data_report.json").read_text())["splits"]
    new = json.loads((first / "data_report.json").read_text())["splits"]["train"]["num_rows"]
    assert splits["train"]["num_rows"] > len(rows[20:]) * 0.9 + 0.4 * new


def test_what_cannot_be_replayed_is_refused(three: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(["food", "price"], 60, seed=6)
    with pytest.raises(RecipeError, match=r"E418 training\.replay=1: found model .*: no run of this machine"):
        fit(tiny_model, tmp_path / "model", rows, training={"replay": 1})
    pairs = [{**row, "text_pair": row["text"]} for row in rows]
    with pytest.raises(RecipeError, match="rows with label, text, expected rows with label, text, text_pair, as here"):
        fit(three, tmp_path / "pairs", pairs, training={"replay": 1})
    with pytest.raises(RecipeError, match="a run of text-classification, expected a run of token-classification"):
        fit(three, tmp_path / "words", make_sentences(40), "token-classification", training={"replay": 1})
    (three.parent / "rows.jsonl").rename(three.parent / "moved.jsonl")
    try:
        with pytest.raises(RecipeError, match="E418"):
            fit(three, tmp_path / "gone", rows, training={"replay": 1})
        run = fit(three, tmp_path / "gone", rows, training={"max_steps": 2})
        notes = json.loads((run / "data_report.json").read_text())["notes"]
        assert any("cannot tell whether" in note for note in notes)
    finally:
        (three.parent / "moved.jsonl").rename(three.parent / "rows.jsonl")


def test_runs_that_were_renamed_or_deleted_stop_nobody(tiny_model: Path, tmp_path: Path) -> None:
    """A run that is now at the place of its own model, and one whose model is gone though it replayed its rows."""
    rows = rows_of(["food", "service"], 60, seed=1)
    first = fit(tiny_model, tmp_path / "a", rows, training={"max_steps": 2})
    second = fit(
        first, tmp_path / "b", rows_of(["food", "service"], 60, seed=2), training={"max_steps": 2, "replay": 1}
    )
    first.rename(tmp_path / "older")
    second.rename(first)  # its recipe names the folder in which it is
    third = fit(first, tmp_path / "c", rows_of(["food", "service"], 60, seed=3), training={"max_steps": 2})
    notes = json.loads((third / "data_report.json").read_text())["notes"]
    (note,) = [note for note in notes if "cannot tell whether" in note]
    assert note.endswith("its rows cannot be read again")
    with pytest.raises(RecipeError, match="its rows cannot be read again"):
        fit(first, tmp_path / "d", rows, training={"max_steps": 2, "replay": 1})
    with pytest.raises(RecipeError, match="another run is there now"):
        fasttune.evaluate(first, split="validation", progress=False)
