"""`model_head: mean`: the folder is a CrossEncoder of sentence-transformers, with the same logits."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers
from safetensors.torch import load_file
from tiny import make_rows, tiny_tokenizer, write_csv

import fasttune
from fasttune.errors import RecipeError
from fasttune.training.events import StepDone

ROWS = make_rows(80)
PAIRS = [{**row, "text_pair": other["text"]} for row, other in zip(ROWS, make_rows(80, seed=4), strict=True)]
TEXTS = [row["text"] for row in ROWS[:12]]


def recipe(model: Path, folder: Path, rows: list[dict[str, str]] = ROWS, **training: Any) -> dict[str, Any]:
    write_csv(folder / "rows.csv", rows)
    columns = {"text": "text", "text_pair": "text_pair"} if "text_pair" in rows[0] else {}
    return {
        "model": str(model),
        "model_head": "mean",
        "data": {"train": str(folder / "rows.csv"), "columns": columns},
        "training": {"precision": "fp32", "num_train_epochs": 2, "learning_rate": 1e-3, **training},
        "tracking": {"report_to": "none"},
    }


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("mean")
    return fasttune.fit(recipe(tiny_model, folder), output=folder / "run", progress=False)


def probabilities(folder: Path, inputs: list[Any]) -> np.ndarray:
    return np.array([list(row["probabilities"].values()) for row in fasttune.load(folder).predict(inputs)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cross_encoder_gives_the_same(trained: fasttune.Run, tiny_model: Path, tmp_path: Path) -> None:
    model = sentence_transformers.CrossEncoder(str(trained.folder))
    expected = np.stack([model.predict(text, apply_softmax=True) for text in TEXTS])
    assert probabilities(trained.folder, TEXTS) == pytest.approx(expected, abs=1e-5)
    pairs = fasttune.fit(recipe(tiny_model, tmp_path, PAIRS), output=tmp_path / "run", progress=False)
    inputs = [(row["text"], row["text_pair"]) for row in PAIRS[:12]]
    expected = sentence_transformers.CrossEncoder(str(pairs.folder)).predict(inputs, apply_softmax=True)
    assert probabilities(pairs.folder, inputs) == pytest.approx(expected, abs=1e-5)
    assert "CrossEncoder" in (trained.folder / "README.md").read_text()


def test_encoder_is_a_plain_model(trained: fasttune.Run) -> None:
    config = json.loads((trained.folder / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    body, loading = transformers.AutoModel.from_pretrained(
        trained.folder, output_loading_info=True, add_pooling_layer=False
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    head = load_file(trained.folder / "2_Dense" / "model.safetensors")
    tokens = transformers.AutoTokenizer.from_pretrained(trained.folder)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        mean = body.eval()(**tokens).last_hidden_state[0].mean(dim=0)
    logits = head["linear.weight"] @ mean + head["linear.bias"]
    assert probabilities(trained.folder, TEXTS[:1])[0] == pytest.approx(logits.softmax(0).numpy(), abs=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "modernbert", "mpnet", "albert"])
def test_without_padding_as_with_padding(family: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 79, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    lengths = {"max_position_embeddings": 66, "pad_token_id": 0}
    if family == "distilbert":
        sizes = {"vocab_size": 79, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    else:
        sizes["intermediate_size"] = 64
    config = transformers.AutoConfig.for_model(family, **sizes, **lengths)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    settings = recipe(tmp_path / "model", tmp_path, max_steps=2)
    run = fasttune.fit(settings, output=tmp_path / "run", progress=False)
    kernel = json.loads((run.folder / "environment.json").read_text())["kernel"]["value"]
    assert kernel == "padding-free"
    free = probabilities(run.folder, TEXTS)
    saved = (run.folder / "recipe.yaml").read_text()
    (run.folder / "recipe.yaml").write_text(saved.replace("padding: none", "padding: longest"))
    assert free == pytest.approx(probabilities(run.folder, TEXTS), abs=2e-5)


def test_resumed_and_trained_further(trained: fasttune.Run, tiny_model: Path, tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 12:
            signal.raise_signal(signal.SIGINT)

    settings = recipe(tiny_model, tmp_path)
    assert not fasttune.fit(settings, output=tmp_path / "run", observers=[stop], progress=False).is_complete
    fasttune.fit(settings, output=tmp_path / "run", resume=True, progress=False)
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (trained.folder / name).read_bytes()
    # A run that starts from this one keeps its head, whose rows follow the labels.
    again = recipe(trained.folder, tmp_path, max_steps=1, learning_rate=1e-12)
    again["data"]["label_names"] = ["positive", "negative"]
    further = fasttune.fit(again, output=tmp_path / "further", progress=False)
    assert probabilities(further.folder, TEXTS)[:, ::-1] == pytest.approx(
        probabilities(trained.folder, TEXTS), abs=1e-5
    )


def test_head_is_among_the_checksums(trained: fasttune.Run) -> None:
    checksums = json.loads((trained.folder / "checksums.json").read_text())
    assert "2_Dense/model.safetensors" in checksums


def test_with_seeds_freezing_and_masked_words(tiny_model: Path, tmp_path: Path) -> None:
    settings = recipe(tiny_model, tmp_path, seeds=[1, 2], freeze_layers=1, mlm_epochs=1)
    run = fasttune.fit(settings, output=tmp_path / "run", progress=False)
    best = json.loads((run.folder / "seeds.json").read_text())["best"]
    own = run.folder / "seeds" / f"seed-{best}"
    assert probabilities(run.folder, TEXTS) == pytest.approx(probabilities(own, TEXTS), abs=1e-6)
    assert not (run.folder / "mlm").exists() and (own / "mlm").exists()


def test_refuses_other_tasks() -> None:
    with pytest.raises(RecipeError, match="applies to text-classification only"):
        fasttune.fit({"task": "token-classification", "model_head": "mean", "data": {"train": "rows.conll"}})
