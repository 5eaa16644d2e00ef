"""A label means the same in training, evaluation, prediction and a later run: value -> class -> name, kept once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score
from tiny import make_rows, make_sentences, write_csv, write_jsonl

import fasttune

TRAINING = {"preset": "tutorial", "max_steps": 6, "precision": "fp32", "device": "cpu", "learning_rate": 1e-3}


def fit(model: Path, folder: Path, data: dict[str, Any], **sections: Any) -> fasttune.Run:
    recipe = {"model": str(model), "data": data, "training": TRAINING, "tracking": {"report_to": "none"}}
    return fasttune.fit(recipe, output=folder, progress=False, **sections)


def config_of(run: fasttune.Run) -> dict[str, Any]:
    return json.loads((run.folder / "config.json").read_text())


def predicted(run: fasttune.Run, split: str = "validation") -> list[str]:
    path = run.folder / "predictions" / f"{split}.jsonl"
    return [json.loads(line)["label"] for line in path.read_text().splitlines()]


def numbered_rows(num_classes: int, num_rows: int = 100) -> list[dict[str, str]]:
    rows = make_rows(num_rows)
    return [{"text": row["text"], "label": str(place % num_classes)} for place, row in enumerate(rows)]


def test_numbers_that_are_also_names_of_other_classes(tiny_model: Path, tmp_path: Path) -> None:
    """0 to 4 named "1" to "5": a "3" of the data is the class "4"."""
    path = write_csv(tmp_path / "rows.csv", numbered_rows(5))
    names = ["1", "2", "3", "4", "5"]
    run = fit(tiny_model, tmp_path / "run", {"train": str(path), "test": str(path), "label_names": names})
    again = fasttune.evaluate(run.folder, data=str(path))
    gold = [names[int(row["label"])] for row in numbered_rows(5)]
    assert again["eval_accuracy"] == run.metrics["test_accuracy"] == accuracy_score(gold, predicted(run, "test"))
    assert again["eval_loss"] == pytest.approx(run.metrics["test_loss"], abs=1e-6)
    # A file of which every label is a name, and not every one a value of the training data, is read by names.
    named = [{**row, "label": names[int(row["label"])]} for row in numbered_rows(5)]
    by_name = fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "named.csv", named)))
    assert by_name["eval_accuracy"] == again["eval_accuracy"]


def with_classes(rows: list[dict[str, Any]], names: list[str], column: str = "label") -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), column: datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_list(rows, features=features)


@pytest.fixture
def paraphrases(tmp_path: Path) -> Path:
    """Labels as GLUE declares them: not_equivalent is 0, equivalent is 1, against the alphabet."""
    rows = [{"text": row["text"], "label": int(row["label"] == "positive")} for row in make_rows(100)]
    with_classes(rows, ["not_equivalent", "equivalent"]).to_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_declared_classes_keep_their_order_and_f1_is_that_of_the_second(
    tiny_model: Path, tmp_path: Path, paraphrases: Path
) -> None:
    run = fit(tiny_model, tmp_path / "run", {"train": str(paraphrases), "test": str(paraphrases)})
    assert config_of(run)["id2label"] == {"0": "not_equivalent", "1": "equivalent"}
    gold = ["equivalent" if row["label"] == "positive" else "not_equivalent" for row in make_rows(100)]
    expected = f1_score(gold, predicted(run, "test"), pos_label="equivalent", zero_division=0.0)
    assert run.metrics["test_f1"] == expected
    # The same rows as the published text files hold them, by number.
    rows = [{"text": row["text"], "label": str(int(row["label"] == "positive"))} for row in make_rows(100)]
    by_number = fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "rows.csv", rows)))
    assert by_number["eval_f1"] == run.metrics["test_f1"]


@pytest.mark.parametrize(
    ("label_names", "expected"),
    [
        (["no", "yes"], ["no", "yes"]),  # new names, by number
        (["equivalent", "not_equivalent"], ["equivalent", "not_equivalent"]),  # another order
        ({0: "no", 1: "yes"}, ["no", "yes"]),
        ({"not_equivalent": "no", "equivalent": "yes"}, ["no", "yes"]),
    ],
)
def test_declared_classes_are_renamed_or_reordered(
    tiny_model: Path, tmp_path: Path, paraphrases: Path, label_names: Any, expected: list[str]
) -> None:
    data = {"train": str(paraphrases), "test": str(paraphrases), "label_names": label_names}
    run = fit(tiny_model, tmp_path / "run", data)
    assert list(config_of(run)["id2label"].values()) == expected
    assert fasttune.evaluate(run.folder)["test_accuracy"] == run.metrics["test_accuracy"]
    names = {"not_equivalent": "no", "equivalent": "yes"} if "yes" in expected else {}
    gold = ["equivalent" if row["label"] == "positive" else "not_equivalent" for row in make_rows(100)]
    assert run.metrics["test_accuracy"] == accuracy_score([names.get(one, one) for one in gold], predicted(run, "test"))


def test_names_for_other_classes_than_the_declared_ones_are_refused(
    tiny_model: Path, tmp_path: Path, paraphrases: Path
) -> None:
    for names in (["a", "b", "c"], {0: "a", 7: "b"}):
        with pytest.raises(fasttune.Error, match=r"E220 data\.label_names"):
            fit(tiny_model, tmp_path / "run", {"train": str(paraphrases), "label_names": names})


def test_a_number_that_no_declared_class_has_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    for wrong in (7, -2):
        rows = [{"text": row["text"], "label": wrong if place == 3 else 0} for place, row in enumerate(make_rows(20))]
        table = with_classes([{**row, "label": 0} for row in rows], ["a", "b", "c"])
        numbers = [row["label"] for row in rows]
        arrow = table.with_format("arrow")[:].set_column(1, table.features.arrow_schema.field("label"), [numbers])
        import pyarrow.parquet as pq

        pq.write_table(arrow.replace_schema_metadata(table.features.arrow_schema.metadata), tmp_path / "rows.parquet")
        with pytest.raises(fasttune.Error, match=rf"E205 .*found {wrong} \(row 4\)"):
            fit(tiny_model, tmp_path / "run", {"train": str(tmp_path / "rows.parquet")})


def test_commas_in_declared_classes_separate_nothing(tiny_model: Path, tmp_path: Path) -> None:
    names = ["Paris", "Texas", "Paris,Texas"]
    rows = [{"text": row["text"], "label": place % 3} for place, row in enumerate(make_rows(60))]
    with_classes(rows, names).to_parquet(tmp_path / "rows.parquet")
    run = fit(tiny_model, tmp_path / "run", {"train": str(tmp_path / "rows.parquet")})
    assert list(config_of(run)["id2label"].values()) == names


def test_names_for_the_numbers_of_a_regression_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{**row, "label": "1.5"} for row in make_rows(40)])
    data = {"train": str(path), "label_names": {"1.5": "good", "2.5": "better"}}
    with pytest.raises(fasttune.Error, match=r"E313 data\.label_names"):
        fit(tiny_model, tmp_path / "run", data, problem="regression")


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviewer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    """A classifier that has learned its two classes."""
    folder = tmp_path_factory.mktemp("reviewer")
    data = str(write_csv(folder / "rows.csv", make_rows(80)))
    training = {"max_steps": 80, "learning_rate": 3e-3}
    return fit(tiny_model, folder / "run", {"train": data, "validation": data}, training=training)


def unchanged(run: fasttune.Run, folder: Path, data: dict[str, Any], **sections: Any) -> fasttune.Run:
    """A run that starts from another and moves nothing."""
    return fit(
        run.folder, folder, data, training={"preset": "tutorial", "max_steps": 1, "learning_rate": 1e-9}, **sections
    )


def test_a_head_of_the_same_labels_in_another_order_follows_them(reviewer: fasttune.Run, tmp_path: Path) -> None:
    path = str(reviewer.folder.parent / "rows.csv")
    assert reviewer.metrics["eval_accuracy"] > 0.9
    data = {"train": path, "validation": path, "label_names": ["positive", "negative"]}
    run = unchanged(reviewer, tmp_path / "run", data)
    assert config_of(run)["id2label"] == {"0": "positive", "1": "negative"}
    assert run.metrics["eval_accuracy"] == reviewer.metrics["eval_accuracy"]


def test_a_head_of_other_labels_is_made_new_and_that_is_said(
    reviewer: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{**row, "label": {"positive": "gut", "negative": "schlecht"}[row["label"]]} for row in make_rows(80)]
    path = str(write_csv(tmp_path / "rows.csv", rows))
    recipe = {"model": str(reviewer.folder), "data": {"train": path}, "training": {**TRAINING, "max_steps": 1}}
    run = fasttune.fit(recipe, output=tmp_path / "run", tracking={"report_to": "none"})
    assert " classifier  initialised with seed" in re.sub(r" {2,}", "  ", capsys.readouterr().err)
    weights = [transformers.AutoModelForSequenceClassification.from_pretrained(one.folder) for one in (reviewer, run)]
    assert not torch.allclose(weights[0].classifier.weight, weights[1].classifier.weight, atol=0.01)


def test_a_head_for_words_is_none_for_texts(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Three tags, then three classes: a layer of the same name and shape."""
    words = str(write_jsonl(tmp_path / "words.jsonl", make_sentences(40)))
    tagger = fit(tiny_model, tmp_path / "tagger", {"train": words}, task="token-classification")
    assert len(config_of(tagger)["id2label"]) == 3
    path = str(write_csv(tmp_path / "rows.csv", numbered_rows(3)))
    recipe = {"model": str(tagger.folder), "data": {"train": path}, "training": {**TRAINING, "max_steps": 1}}
    fasttune.fit(recipe, output=tmp_path / "run", tracking={"report_to": "none"})
    assert " classifier  initialised with seed" in re.sub(r" {2,}", "  ", capsys.readouterr().err)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_questions_from_a_model_that_was_a_classifier(tiny_model: Path, tmp_path: Path, family: str) -> None:
    """A span head has two outputs, whatever number of classes config.json brings along."""
    from tiny import make_questions

    folder = tmp_path / "model"
    config = {"num_labels": 5, "vocab_size": 79, "max_position_embeddings": 64}
    if family == "bert":
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**config, **sizes))
    else:
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}
        model = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**config, **sizes))
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    rows = str(write_jsonl(tmp_path / "rows.jsonl", make_questions(30, longest=20)))
    run = fit(
        folder, tmp_path / "run", {"train": rows}, task="question-answering", preprocessing={"doc_stride": 8}
    )  # fmt: skip
    loaded = transformers.AutoModelForQuestionAnswering.from_pretrained(run.folder)
    assert loaded.qa_outputs.out_features == 2 and "eval_f1" in run.metrics
