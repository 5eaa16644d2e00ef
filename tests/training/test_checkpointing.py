"""`training.gradient_checkpointing`: the same training in less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from faulty import events, make_recipe
from tiny import tiny_tokenizer

import fasttune
from fasttune.runs.folder import read_json


def losses(folder: Path, **training: Any) -> list[float]:
    recipe = make_recipe(folder, **training)
    fasttune.fit(recipe, output=folder / "run", progress=False)
    return [event["loss"] for event in events(folder / "run") if event["event"] == "step"]


def test_a_run_with_dropout_has_the_same_losses(tmp_path: Path) -> None:
    np.testing.assert_array_equal(losses(tmp_path / "again", gradient_checkpointing=True), losses(tmp_path / "kept"))


SIZES = {
    "vocab_size": 79,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}


def save(config: transformers.PreTrainedConfig, folder: Path) -> Path:
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_family_that_pads_with_it_says_so(tmp_path: Path) -> None:
    model = save(
        transformers.DebertaV2Config(**SIZES, relative_attention=True, type_vocab_size=0), tmp_path / "deberta"
    )
    recipe = make_recipe(tmp_path, num_steps=2, gradient_checkpointing=True)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, overrides=[f"model={model}"])
    kernel = read_json(run.folder / "environment.json")["kernel"]
    assert kernel["value"] == "padded to longest" and "gradient checkpointing" in kernel["reason"]


def test_a_family_without_it_is_refused(tmp_path: Path) -> None:
    model = save(transformers.MPNetConfig(**SIZES), tmp_path / "mpnet")
    recipe = make_recipe(tmp_path, num_steps=2, gradient_checkpointing=True)
    with pytest.raises(
        fasttune.Error, match=r"E412 training\.gradient_checkpointing: transformers does not support it for mpnet"
    ):
        fasttune.fit(recipe, output=tmp_path / "run", overrides=[f"model={model}"])
