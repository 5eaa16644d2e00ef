"""Token classification from a file to entities: the loss, tags over windows, training, the saved model."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import make_sentences, tiny_config, tiny_tokenizer, write_jsonl

import fasttune
from fasttune import recipe as recipes
from fasttune.cli import commands as cli
from fasttune.data.batching.collate import collate
from fasttune.data.tokens.store import IGNORED
from fasttune.data.tokens.words import joined
from fasttune.tasks import Rows, TokenClassification

TAGS = [("O", "B-X", "I-X", "O"), ("O", "O"), ("B-Y", "O", "O", "B-Y", "I-Y")]
WORDS = [["w1", "good", "food", "w2"], ["w3", "w4"], ["bad", "w5", "w6", "bad", "room"]]


def make_rows(words: list[list[str]] = WORDS, tags: list[tuple[str, ...]] | None = TAGS) -> Rows:
    values: dict[str, Any] = {"tokens": [joined(row) for row in words]}
    return Rows([f"r{number}" for number in range(len(words))], values if tags is None else {**values, "tags": tags})


def make_recipe(**sections: Any) -> recipes.Recipe:
    return recipes.load({"task": "token-classification", "data": {"train": "rows.jsonl"}, **sections})


def make_task(rows: Rows | None = None, **sections: Any) -> TokenClassification:
    return TokenClassification.from_rows(rows or make_rows(), make_recipe(**sections), "rows")


@pytest.mark.parametrize("weights", [None, {"B-X": 3.0}])
def test_the_loss_is_transformers_own(weights: dict[str, float] | None) -> None:
    task = make_task(training={"class_weights": weights})
    store = task.encode(make_rows(), tiny_tokenizer(), 60, "rows")
    batch = collate(store, np.arange(3))
    torch.manual_seed(0)
    model = transformers.BertForTokenClassification(tiny_config(**task.state())).eval()
    outputs = model(**batch.inputs)
    total, weight = task.loss(outputs, batch, training=True), task.weight(batch.targets)
    assert weight == (11 if weights is None else 13)
    if weights is None:
        assert (total / weight).item() == pytest.approx(model(**batch.inputs, **batch.targets).loss.item(), rel=1e-6)
    else:
        table = torch.ones(5)
        table[task.target.vocabulary.index["B-X"]] = 3
        flat = batch.targets["labels"].flatten()
        expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), flat, table)
        assert (total / weight).item() == pytest.approx(expected.item(), rel=1e-6)


def test_labels_stand_at_the_first_token_of_each_word() -> None:
    task = make_task()
    store = task.encode(make_rows(), tiny_tokenizer(), 60, "rows")
    names = task.target.vocabulary.names
    labels = store.token_targets["labels"]
    found = [names[label] for label in labels if label != IGNORED]
    assert found == [tag for row in TAGS for tag in row]
    assert (labels == IGNORED).sum() == 6, "[CLS] and [SEP] of three rows"


def results_for(task: TokenClassification, rows: Rows, max_length: int, tags: list[tuple[str, ...]]) -> Any:
    """Results of a model that is sure of these tags and says the first name at every other token."""
    store = task.encode(rows, tiny_tokenizer(), max_length, "rows")
    names = task.target.vocabulary.names
    logits = torch.zeros(store.num_tokens, len(names))
    words = store.token_features["word"]
    row_of = np.repeat(store.rows, store.lengths)
    for token in range(store.num_tokens):
        tag = tags[row_of[token]][words[token]] if words[token] >= 0 else names[0]
        logits[token, names.index(tag)] = 5.0
    return task.result({"logits": logits[None]}, None)[0].numpy(), store


def test_tags_come_in_the_order_of_the_rows_over_any_number_of_windows() -> None:
    rng = random.Random(0)
    words = [[f"w{rng.randrange(60)}" for _ in range(length)] for length in (40, 3, 25)]
    tags = [tuple(rng.choice(["O", "B-X", "I-X"]) for _ in row) for row in words]
    rows = make_rows(words, tags)
    task = make_task(rows)
    results, store = results_for(task, rows, 12, tags)
    assert len(store) > 8
    found = list(task.decode(results, store, rows))
    assert [one["tags"] for one in found] == [list(row) for row in tags]
    assert [one["tokens"] for one in found] == words
    scores = task.score(results, store, rows)
    assert scores == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0}


def test_entities_are_spans_of_the_text() -> None:
    task, rows = make_task(), make_rows()
    results, store = results_for(task, rows, 60, TAGS)
    first, second, third = task.decode(results, store, rows)
    (entity,) = first["entities"]
    share = float(torch.tensor([5.0, 0, 0, 0, 0]).softmax(0)[0])
    assert entity == {"type": "X", "text": "good food", "start": 3, "end": 12, "score": pytest.approx(share)}
    assert first["text"][3:12] == "good food" and second["entities"] == []
    assert [one["text"] for one in third["entities"]] == ["bad", "bad room"]


def test_tags_that_are_no_entities_are_scored_by_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    tags = [("N", "V", "N", "P"), ("V", "V"), ("N", "P", "V", "N", "N")]
    said = [("N", "V", "P", "P"), ("V", "N"), ("N", "P", "V", "N", "V")]
    rows = make_rows(tags=tags)
    task = make_task(rows)
    assert task.primary_metric == "accuracy" and "do not mark entities" in task.notes[0]
    results, store = results_for(task, rows, 60, said)
    flat, flat_said = ([tag for row in part for tag in row] for part in (tags, said))
    assert task.score(results, store, rows) == {
        "accuracy": pytest.approx(accuracy_score(flat, flat_said)),
        "f1_macro": pytest.approx(f1_score(flat, flat_said, average="macro")),
    }
    assert "entities" not in next(task.decode(results, store, rows))


def test_unknown_tags_and_inputs_are_refused() -> None:
    task = make_task()
    with pytest.raises(fasttune.Error, match=r"label 'B-Z' in 1 row .*never in the training data"):
        task.strata(make_rows([["w1"]], [("B-Z",)]), "test.jsonl")
    for given in ("", [], 7, ["a", 3]):
        with pytest.raises(fasttune.Error, match=r"text 2: found .*expected a text, or a list of words"):
            task.rows_of(["fine", given])
    assert [row.words for row in task.rows_of(["so, so", ["U.S.", "w"]]).values["tokens"]] == [
        ["so", ",", "so"],
        ["U.S.", "w"],
    ]


def test_from_file_to_entities(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_sentences(100)
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = {
        "task": "token-classification",
        "model": str(tiny_model),
        "data": {"train": str(path)},
        "training": {"num_train_epochs": 2, "learning_rate": 3e-3, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert run.metrics["eval_f1"] > 0.9
    assert fasttune.evaluate(run.folder)["eval_f1"] == pytest.approx(run.metrics["eval_f1"])
    short = [row for row in rows if len(row["tokens"]) < 40][:16]
    found = fasttune.load(run.folder).predict([row["tokens"] for row in short])
    model = transformers.AutoModelForTokenClassification.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    encoded = tokenizer([row["tokens"] for row in short], is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        predicted = model(**encoded).logits.argmax(-1)
    for index, one in enumerate(found):
        first = [encoded.word_to_tokens(index, word).start for word in range(len(one["tokens"]))]
        assert one["tags"] == [model.config.id2label[int(predicted[index, token])] for token in first]
    from_file = fasttune.predict(run.folder, data=str(path))
    assert len(from_file[0]["tags"]) == len(rows[0]["tokens"]) > 64, "longer than the model reads, and nothing is lost"
    lines = (run.folder / "predictions" / "validation.jsonl").read_text().splitlines()
    assert {"id", "text", "tokens", "tags", "entities"} == set(json.loads(lines[0]))
    assert cli.run(["predict", str(run.folder), "w1 good food, w2"]) == 0
    assert capsys.readouterr().out.startswith("good food [THING]  w1 good food, w2")


@pytest.mark.parametrize("words", [["U.S.", "e-mail", "w1"], list("U.S. e-mail w1")])
def test_predictions_have_the_words_that_were_trained_on_and_scored(tmp_path: Path, words: list[str]) -> None:
    """Texts with tags, split at whitespace or one tag a character; the same texts without tags are split alike."""
    rows = [{"text": "U.S. e-mail w1", "tags": " ".join(["O", "B-X", "I-X", *["O"] * len(words)][: len(words)])}] * 8
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = {
        "task": "token-classification",
        "data": {"train": str(path), "validation": str(path)},
        "training": {"max_steps": 1, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    (scored, *_) = (run.folder / "predictions" / "validation.jsonl").read_text().splitlines()
    assert json.loads(scored)["tokens"] == words
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": rows[0]["text"]}])
    (found,) = fasttune.predict(run.folder, data=str(texts))
    assert found["tokens"] == words == fasttune.load(run.folder).predict(rows[0]["text"])[0]["tokens"]
    overridden = fasttune.load(run.folder, overrides=["preprocessing.word_boundaries=punctuation"])
    assert overridden.predict("U.S. w1")[0]["tokens"] == ["U", ".", "S", ".", "w1"]
    again = fasttune.evaluate(run.folder, data=str(path))
    assert again["eval_f1"] == run.metrics["eval_f1"] and again["eval_loss"] == pytest.approx(run.metrics["eval_loss"])
