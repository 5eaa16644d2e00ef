"""`training.mlm_epochs`: the encoder changes before the fine-tuning, the head does not; a killed run resumes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import make_questions, make_rows, tiny_tokenizer, write_csv

import fasttune
from fasttune.data.tokens.store import IGNORED, tokenize
from fasttune.errors import RecipeError
from fasttune.tasks.masked_language_modeling import masked
from fasttune.training.events import StepDone

TEXTS = 400


def recipe(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    if not (folder / "rows.csv").exists():
        write_csv(folder / "rows.csv", make_rows(80))
        write_csv(folder / "more.csv", [{"text": row["text"]} for row in make_rows(TEXTS, seed=3)])
    return {
        "model": str(model),
        "data": {"train": str(folder / "rows.csv"), "unlabelled": str(folder / "more.csv")},
        "training": {"preset": "tutorial", "precision": "fp32", "max_steps": 1, "mlm_epochs": 2, **training},
        "tracking": {"report_to": "none"},
    }


@pytest.fixture(scope="module")
def adapted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("mlm")
    return fasttune.fit(recipe(tiny_model, folder, learning_rate=1e-12), output=folder / "run", progress=False)


def test_encoder_is_the_adapted_one_and_head_the_one_it_would_have_had(
    adapted: fasttune.Run, tiny_model: Path, tmp_path: Path
) -> None:
    weights, first = load_file(adapted.folder / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    masked_model = transformers.AutoModelForMaskedLM.from_pretrained(adapted.folder / "mlm")
    for name, value in masked_model.bert.state_dict().items():
        assert torch.allclose(weights[f"bert.{name}"], value, atol=1e-6), name
    word = "embeddings.word_embeddings.weight"
    assert not torch.allclose(weights[f"bert.{word}"], first[word], atol=1e-4)
    assert torch.allclose(weights["bert.pooler.dense.weight"], first["pooler.dense.weight"], atol=1e-6)
    plain = recipe(tiny_model, tmp_path, learning_rate=1e-12, mlm_epochs=0)
    del plain["data"]["unlabelled"]
    run = fasttune.fit(plain, output=tmp_path / "plain", progress=False)
    head = load_file(run.folder / "model.safetensors")["classifier.weight"]
    assert torch.allclose(weights["classifier.weight"], head, atol=1e-6)


def test_learns_from_training_and_unlabelled_texts(adapted: fasttune.Run) -> None:
    report = json.loads((adapted.folder / "mlm" / "data_report.json").read_text())
    num_train = json.loads((adapted.folder / "data_report.json").read_text())["splits"]["train"]["num_rows"]
    assert report["splits"]["train"]["num_rows"] == 2 * (num_train + TEXTS)
    assert set(report["splits"]) == {"train", "validation"}
    losses = [json.loads(line) for line in (adapted.folder / "mlm" / "events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in losses if event["event"] == "step"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) < 1.1 * np.log(79)


@pytest.mark.parametrize("stop_at", [3, None])
def test_interrupted_and_resumed_is_the_same(
    adapted: fasttune.Run, tiny_model: Path, tmp_path: Path, stop_at: int | None
) -> None:
    """Stopped within the masked language modeling, or by a crash right after it."""

    def stop(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == (stop_at or event.step):
            if stop_at is None and not (tmp_path / "run" / "mlm" / "all_results.json").exists():
                return
            signal.raise_signal(signal.SIGINT)

    settings = recipe(tiny_model, tmp_path, learning_rate=1e-12)
    first = fasttune.fit(settings, output=tmp_path / "run", observers=[stop], progress=False)
    assert not first.is_complete
    resumed = fasttune.fit(settings, output=tmp_path / "run", resume=True, progress=False)
    assert resumed.is_complete
    own, whole = (load_file(folder / "model.safetensors") for folder in (resumed.folder, adapted.folder))
    assert all(torch.equal(own[name], whole[name]) for name in whole)


def test_questions_are_masked_with_their_contexts(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, make_questions(40))))
    settings = {
        "task": "question-answering",
        "model": str(tiny_model),
        "data": {"train": str(tmp_path / "rows.jsonl")},
        "preprocessing": {"max_length": 64, "doc_stride": 16},
        "training": {"preset": "tutorial", "max_steps": 1, "mlm_epochs": 1},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(settings, output=tmp_path / "run", progress=False)
    assert run.is_complete and (run.folder / "mlm" / "model.safetensors").exists()


def test_masks_as_bert_does() -> None:
    tokenizer = tiny_tokenizer()
    store = tokenize([row["text"] for row in make_rows(3000)] + ["good"], tokenizer, 64)
    special = np.array(tokenizer.all_special_ids)
    mask = tokenizer.mask_token_id
    assert mask is not None
    ids, labels = masked(store, special, mask, len(tokenizer), seed=1)
    before, chosen = store.inputs["input_ids"], labels != IGNORED
    assert np.array_equal(ids[~chosen], before[~chosen]) and np.array_equal(labels[chosen], before[chosen])
    assert not np.isin(before[chosen], special).any()
    assert all(chosen[start:end].any() for start, end in zip(store.starts, store.starts[1:], strict=False))
    shares = (ids[chosen] == mask).mean(), (ids[chosen] == before[chosen]).mean()
    assert chosen.mean() / (~np.isin(before, special)).mean() == pytest.approx(0.15, abs=0.02)
    assert shares[0] == pytest.approx(0.8, abs=0.02) and shares[1] == pytest.approx(0.1, abs=0.02)
    again, _ = masked(store, special, mask, len(tokenizer), seed=1)
    other, _ = masked(store, special, mask, len(tokenizer), seed=2)
    assert np.array_equal(ids, again) and not np.array_equal(ids, other)


def test_refuses_a_tokenizer_without_mask(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.mask_token = None
    model = tmp_path / "model"
    transformers.AutoModel.from_pretrained(tiny_model).save_pretrained(model)
    tokenizer.save_pretrained(model)
    with pytest.raises(RecipeError) as caught:
        fasttune.fit(recipe(model, tmp_path), output=tmp_path / "run", progress=False)
    assert caught.value.problems[0].code == "E417"
    assert not (tmp_path / "run").exists()
