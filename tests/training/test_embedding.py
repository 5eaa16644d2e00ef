"""Training only the rows that the data hold changes no number: against a run that trains the whole table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import make_rows, save_tiny_model, tiny_config, write_csv

import fasttune
from fasttune.training import prepare
from fasttune.training.embedding import rows_in_use, trained_rows
from fasttune.training.events import Event, StepDone

TABLE = "bert.embeddings.word_embeddings.weight"
UNUSED_WORD = "again"  # stands in a validation row, in no training row


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A vocabulary of 400 of which the training rows hold fewer than 80."""
    folder = tmp_path_factory.mktemp("rows")
    validation = [*make_rows(10, seed=1), {"text": f"{UNUSED_WORD} {UNUSED_WORD}", "label": "positive"}]
    return {
        "model": str(save_tiny_model(folder / "model", vocab_size=400)),
        "data": {
            "train": str(write_csv(folder / "train.csv", make_rows(60))),
            "validation": str(write_csv(folder / "validation.csv", validation)),
        },
        "training": {"num_train_epochs": 3, "learning_rate": 1e-3, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }


def choices(run: fasttune.Run) -> dict[str, Any]:
    return json.loads((run.folder / "environment.json").read_text())


def test_the_same_model_as_by_training_the_whole_table(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = fasttune.fit(recipe, output=tmp_path / "narrow", progress=False)
    assert choices(narrow)["word_embeddings"]["value"] == "66 of 400 rows trained"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "rows_in_use", lambda *args: None)
        whole = fasttune.fit(recipe, output=tmp_path / "whole", progress=False)
    assert "word_embeddings" not in choices(whole)
    found, expected = (load_file(run.folder / "model.safetensors") for run in (narrow, whole))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6, msg=name)
    pretrained = load_file(Path(recipe["model"]) / "model.safetensors")[TABLE.removeprefix("bert.")]
    has_moved = (found[TABLE] != pretrained).any(1)
    assert 60 < has_moved.sum() < 67
    assert torch.equal(has_moved, (expected[TABLE] != pretrained).any(1))
    for name, value in whole.metrics.items():
        if name.startswith("eval_") and "second" not in name and "runtime" not in name:
            assert narrow.metrics[name] == pytest.approx(value, abs=1e-6)


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(recipe: dict[str, Any], tmp_path: Path) -> None:
    def stop(event: Event) -> str | None:
        return "enough" if isinstance(event, StepDone) and event.step == 11 else None

    undisturbed = fasttune.fit(recipe, output=tmp_path / "undisturbed", progress=False)
    fasttune.fit(recipe, output=tmp_path / "stopped", progress=False, observers=[stop])
    resumed = fasttune.fit(recipe, output=tmp_path / "stopped", progress=False, resume=True)
    first, second = ((run.folder / "model.safetensors").read_bytes() for run in (undisturbed, resumed))
    assert first == second


def test_weight_decay_moves_every_row(recipe: dict[str, Any], tmp_path: Path) -> None:
    changed = {**recipe, "training": {**recipe["training"], "weight_decay": 0.1, "max_steps": 2}}
    run = fasttune.fit(changed, output=tmp_path / "run", progress=False)
    assert "word_embeddings" not in choices(run)
    pretrained = load_file(Path(recipe["model"]) / "model.safetensors")[TABLE.removeprefix("bert.")]
    trained = load_file(run.folder / "model.safetensors")[TABLE]
    assert (trained[1:] != pretrained[1:]).any(1).all()


def test_where_it_does_not_apply() -> None:
    few = np.array([5, 3, 3])
    model = transformers.BertForSequenceClassification(tiny_config())
    assert rows_in_use(model, few, 0).tolist() == [0, 3, 5]
    assert rows_in_use(model, np.arange(60), 0) is None, "most of the table is used"
    assert rows_in_use(transformers.BertForMaskedLM(tiny_config()), few, 0) is None, "tied to the output layer"
    model.get_input_embeddings().requires_grad_(False)
    assert rows_in_use(model, few, 0) is None, "frozen by its owner"


def test_inside_the_state_dict_is_the_plain_one_and_outside_nothing_is_left() -> None:
    model = transformers.BertForSequenceClassification(tiny_config())
    names = [name for name, _ in model.named_parameters()]
    with trained_rows(model, np.array([2, 7])):
        table = model.get_input_embeddings()
        with torch.no_grad():
            table.rows += 1.0
        inside = {name: weight.clone() for name, weight in model.state_dict().items()}
        model.load_state_dict({**inside, TABLE: inside[TABLE] * 2})
        assert torch.equal(table.rows, inside[TABLE][[2, 7]] * 2)
    assert inside.keys() == model.state_dict().keys()
    assert torch.equal(model.state_dict()[TABLE][7], inside[TABLE][7] * 2)
    assert type(model.get_input_embeddings()) is torch.nn.Embedding
    assert [name for name, _ in model.named_parameters()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())
