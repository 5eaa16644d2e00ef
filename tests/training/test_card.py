"""The model card says what a reader of the folder needs to know of its data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback_hub import serve
from tiny import make_rows, write_csv, write_jsonl

import fasttune
from fasttune import recipe as recipes
from fasttune.training.card import base_model, front_matter, gain_of
from fasttune.training.card import card as make_card


def test_the_card_tells_rows_lengths_decisions_and_doubts(tmp_path: Path, tiny_model: Path) -> None:
    rows = make_rows(60)
    rows[7] = rows[3]
    rows[9] = {**rows[4], "label": "negative" if rows[4]["label"] == "positive" else "positive"}
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "rows.csv", rows)), "validation_fraction": 0.2},
        "training": {"max_steps": 2, "device": "cpu", "precision": "fp32"},
    }
    fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    card = (tmp_path / "run" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "text-classification"
    section = card.partition("## Data\n")[2].partition("\n## ")[0]
    assert "| train | 48 |" in section and "| validation | 12 |" in section
    assert "- validation: 12 rows (20%) held out of the training rows" in section
    assert "W258" in section and "W251" in section and "(`data.drop_duplicates=true`)" in section
    assert rows[3]["text"] not in section, "rows are named, not shown"


def fit(folder: Path, model: Path, rows: list[dict], **sections: object) -> tuple[dict, str, fasttune.Run]:
    """The front matter and the text of the card."""
    recipe = {
        "model": str(model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))},
        "training": {"max_steps": 2, "device": "cpu", "precision": "fp32"},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=folder / "run", progress=False, **sections)
    card = (run.folder / "README.md").read_text()
    return yaml.safe_load(card.split("---")[1]), card, run


def test_nothing_of_the_machine_is_in_the_card(tmp_path: Path, tiny_model: Path) -> None:
    front, card, _ = fit(tmp_path, tiny_model, make_rows(60))
    assert str(tmp_path) not in card and str(tiny_model.parent) not in card
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "rows.jsonl"
    assert "base_model" not in front, "a local folder, which others cannot look up"
    assert "fine-tuned from `model` with fasttune" in card


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("embedded", "sentence-transformers/all-MiniLM-L6-v2"),
        ("google-bert/bert-base-cased", "google-bert/bert-base-cased"),
        ("bert-base-cased", "bert-base-cased"),
        ("/home/ann/models/bert", None),
        ("./bert", None),
        ("models/of/mine", None),
    ],
)
def test_only_a_model_of_the_hub_is_a_base_model(model: str, expected: str | None) -> None:
    assert base_model(recipes.load({"model": model, "data": {"train": "rows.csv"}})) == expected


@pytest.mark.parametrize(
    ("model", "train", "expected"),
    [
        ("embedded", "rows.csv", {"license": "apache-2.0", "language": "en", "datasets": None}),
        (
            "google-bert/bert-base-cased",
            "user/reviews@main:plain:train",
            {"license": None, "datasets": ["user/reviews"]},
        ),
        ("./bert", ["a/b", "starter"], {"license": None, "base_model": None, "datasets": ["a/b"]}),
    ],
)
def test_the_hub_accepts_the_metadata(
    model: str, train: str | list[str], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard, constants

    recipe = recipes.load({"model": model, "data": {"train": train}})
    report = {"splits": {}, "notes": [], "warnings": []}
    environment = {"device": {"value": "cpu"}, "precision": {"value": "fp32"}, "versions": {}}
    text = make_card(
        name="run",
        recipe=recipe,
        label_names=["no", "yes"],
        results={"eval_accuracy": 0.9, "eval_f1": float("nan"), "eval_samples": 20},
        data_report=report,
        environment=environment,
    )
    front = yaml.safe_load(text.split("---")[1])
    assert {name: front.get(name) for name in expected} == expected
    with serve(tmp_path) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        own = ModelCard(text)
        own.validate(repo_type="model")
        assert own.data.eval_results[0].metric_value == 0.9  # type: ignore[union-attr,index]
        with pytest.raises(ValueError, match="pipeline_tag: guessing"):
            ModelCard(text.replace("pipeline_tag: text-classification", "pipeline_tag: guessing")).validate("model")


def test_another_language_than_the_model_reads_is_not_claimed() -> None:
    recipe = recipes.load({"data": {"train": "rows.csv"}})
    assert front_matter("run", recipe, "test", {}, None)["language"] == "en"
    assert "language" not in front_matter("run", recipe, "test", {}, None, ["W267"])


def test_a_smaller_error_is_a_gain() -> None:
    baseline = {"metric": "rmse", "difference": -0.2, "difference_low": -0.3, "difference_high": -0.1}
    assert gain_of(baseline) == (0.2, 0.1, 0.3)
    assert gain_of({**baseline, "metric": "f1"}) == (-0.2, -0.3, -0.1)


def snippet(card: str, folder: Path) -> str:
    return card.partition("```python\n")[2].partition("```")[0].replace("PATH OF THIS FOLDER", str(folder))


@pytest.mark.parametrize("kind", ["classes", "long texts", "several labels", "a number", "pairs"])
def test_the_lines_of_the_card_run_and_give_the_model_s_answers(kind: str, tmp_path: Path, tiny_model: Path) -> None:
    rows: list[dict] = [dict(row) for row in make_rows(60)]
    sections: dict = {}
    for number, row in enumerate(rows):
        if kind == "several labels":
            row["label"] = [["a"], ["b"], ["a", "b"]][number % 3]
        elif kind == "a number":
            row["label"] = 0.5 + number % 4
        elif kind == "pairs":
            row["text_pair"] = "good food"
    if kind == "long texts":
        sections = {"preprocessing": {"long_text": "windows", "max_length": 12}}
    _, card, run = fit(tmp_path, tiny_model, rows, **sections)
    text = " ".join(["good food"] * 200)
    lines = snippet(card, run.folder)
    asked = f'("{text}", "bad")' if kind == "pairs" else f'"{text}"'
    lines = lines.replace('("...", "...")' if kind == "pairs" else '"..."', asked)
    *before, last = lines.strip().splitlines()
    names: dict = {}
    exec("\n".join([*before, f"answer = {last}"]), names)
    expected = fasttune.predict(run.folder, [(text, "bad")] if kind == "pairs" else [text])[0]
    if kind == "classes":
        assert names["answer"][0]["label"] == expected["label"]
        assert names["answer"][0]["score"] == pytest.approx(expected["score"], abs=1e-5)
    else:
        assert names["answer"] == [expected]


def test_scores_that_chose_something_say_so(tmp_path: Path, tiny_model: Path) -> None:
    _, card, _ = fit(tmp_path, tiny_model, make_rows(60))
    assert "These validation rows also chose the epoch" in card
    assert "| validation (6 rows) metric | value | 95 % interval |" in card


def test_names_from_the_data_are_only_text(tmp_path: Path, tiny_model: Path) -> None:
    labels = ["<script>alert(1)</script>", "a`b``c", "x\n# heading", "| cell |"]
    rows = [{"text": row["text"], "label": labels[number % 4]} for number, row in enumerate(make_rows(60))]
    _, card, _ = fit(tmp_path, tiny_model, rows)
    assert "\n# heading" not in card.replace("\n# run", "") and "```` ``" not in card
    body = card.partition("---\n\n")[2]
    spans = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", body, flags=re.DOTALL)
    assert "<script>" not in spans and "| cell |" not in spans
    assert "``` a`b``c ```" in body
