"""A training step reads from the device once. On meta tensors, which hold no numbers, any other read is an error."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import make_rows, tiny_config, tiny_tokenizer, write_csv

import fasttune
from fasttune import recipe as recipes
from fasttune.data.batching.collate import collate
from fasttune.data.rows import Rows
from fasttune.tasks import TASKS
from fasttune.training import step
from fasttune.training.step import run_step
from fasttune.unpadding import attention, cuda, read_first_token

TEXTS = ["good food", "bad room and slow staff", "never again", "the food was great and the staff was not slow"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("first_token_only", [False, True])
def test_a_step_of_classification_waits_once(
    dropout: float, first_token_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"text": TEXTS, "label": ["a", "b", "a", "b"]}
    recipe = recipes.load({"task": "text-classification", "data": {"train": "-"}})
    rows = Rows([str(number) for number in range(4)], columns)
    task = TASKS["text-classification"].from_rows(rows, recipe, "rows")
    store = task.encode(rows, tiny_tokenizer(), 64, "rows")
    config = tiny_config(attention_probs_dropout_prob=dropout, hidden_dropout_prob=dropout, **task.state())
    model = fasttune.padding_free(transformers.BertForSequenceClassification(config))
    if first_token_only:
        assert read_first_token(model)
    waits = steps_on_meta(
        model, task, [collate(store, np.array([3, 1])), collate(store, np.array([0, 2]))], monkeypatch
    )
    assert waits == [2]  # numbers of one read: the loss and the norm of the gradients


def steps_on_meta(model: Any, task: Any, batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers each read of one step asks for; the device is `meta`, with the flash kernel of a GPU."""
    device = torch.device("meta")
    model.to(device)
    reads: list[int] = []

    def read(values: torch.Tensor) -> list[float]:
        reads.append(values.numel())
        return [1.0] * values.numel()

    def attend(module: Any, query: Any, key: Any, value: Any, boundaries: Any, dropout: float = 0.0, **how: Any) -> Any:
        longest = max(boundaries.lengths)
        packed = cuda.Packed(boundaries.starts_on_device, longest, longest)
        half = (tensor.bfloat16() for tensor in (query, key, value))
        return cuda.flash(*half, packed, dropout, 0.2).float(), None

    monkeypatch.setattr(step, "read", read)
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, attention.NAME, attend)
    accelerator = SimpleNamespace(
        device=device,
        num_processes=1,
        scaler=None,
        no_sync=lambda model: nullcontext(),
        backward=lambda loss: loss.backward(),
        clip_grad_norm_=torch.nn.utils.clip_grad_norm_,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    result = run_step(
        model=model,
        optimizer=optimizer,
        task=task,
        microbatches=batches,
        accelerator=accelerator,  # type: ignore[arg-type]
        max_grad_norm=1.0,
        seed=(1, 2, 0),
    )
    assert result.is_finite
    return reads


def test_deterministic_algorithms_are_those_of_the_run_alone(tiny_model: Path, tmp_path: Path) -> None:
    seen: list[bool] = []

    def observe(event: Any) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())

    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "rows.csv", make_rows(40)))},
        "training": {"preset": "tutorial", "max_steps": 2, "precision": "fp32", "deterministic": True},
        "evaluation": {"baselines": False},
    }
    torch.use_deterministic_algorithms(True, warn_only=True)  # as a user may have
    try:
        fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observe])
        assert seen and all(seen) and torch.is_deterministic_algorithms_warn_only_enabled()
        plain = {**recipe, "training": {**recipe["training"], "deterministic": False}}
        torch.use_deterministic_algorithms(False)
        seen.clear()
        fasttune.fit(plain, output=tmp_path / "plain", progress=False, observers=[observe])
        assert seen and not any(seen)
    finally:
        torch.use_deterministic_algorithms(False)
