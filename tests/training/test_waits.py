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
from torch.overrides import TorchFunctionMode

import fasttune
from fasttune import recipe as recipes
from fasttune.data.answers import Answer
from fasttune.data.batching.collate import collate
from fasttune.data.rows import Rows
from fasttune.data.tokens.words import words_of
from fasttune.tasks import TASKS
from fasttune.tasks.masked_language_modeling import MaskedLanguageModeling
from fasttune.training import step
from fasttune.training.step import run_step
from fasttune.unpadding import attention, cuda, read_first_token

TEXTS = ["good food", "bad room and slow staff", "never again", "the food was great and the staff was not slow"]
LABELS = ["a", "b", "a", "b"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("first_token_only", [False, True])
def test_a_step_of_classification_waits_once(
    dropout: float, first_token_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, store = encoded({"text": TEXTS, "label": LABELS})
    config = tiny_config(attention_probs_dropout_prob=dropout, hidden_dropout_prob=dropout, **task.state())
    model = fasttune.padding_free(transformers.BertForSequenceClassification(config))
    if first_token_only:
        assert read_first_token(model)
    assert steps_on_meta(model, task, store, monkeypatch) == [2]  # one read: the loss and the norm of the gradients


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ({"text": TEXTS, "label": LABELS}, {"training": {"class_weights": {"a": 1.0, "b": 3.0}}}),
        ({"text": TEXTS, "label": LABELS}, {"training": {"label_smoothing_factor": 0.1}}),
        ({"text": TEXTS, "label": ["1", "2", "3", "1"]}, {"problem": "ordinal"}),
        ({"text": TEXTS, "label": ["0.5", "1.25", "2.0", "0.1"]}, {"problem": "regression"}),
        ({"text": TEXTS, "label": ["a", "a;b", "", "b"]}, {"problem": "multi-label", "data": {"label_separator": ";"}}),
        ({"text": TEXTS, "text_pair": TEXTS[::-1], "label": LABELS}, {}),
    ],
    ids=["class weights", "label smoothing", "ordinal", "regression", "multi-label", "pairs"],
)
def test_a_step_with_any_target_waits_once(
    columns: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, store = encoded(columns, **settings)
    config = tiny_config(**task.state())
    model = fasttune.padding_free(transformers.BertForSequenceClassification(config))
    assert steps_on_meta(model, task, store, monkeypatch) == [2]


def test_a_step_of_masked_words_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, store = encoded({"text": TEXTS, "label": LABELS}, wrapped=MaskedLanguageModeling)
    model = fasttune.padding_free(transformers.BertForMaskedLM(tiny_config()))
    assert steps_on_meta(model, task, store, monkeypatch) == [2]


def test_a_step_of_question_answering_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {
        "question": ["what food"] * 4,
        "context": TEXTS,
        "answers": [(Answer(text.split()[0], 0),) for text in TEXTS],
    }
    task, store = encoded(columns, "question-answering", preprocessing={"doc_stride": 16})
    model = fasttune.padding_free(transformers.BertForQuestionAnswering(tiny_config()))
    assert steps_on_meta(model, task, store, monkeypatch) == [2]


def test_a_step_of_token_classification_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [words_of(text) for text in TEXTS]
    tags = [("B-X", *["O"] * (len(sentence.spans) - 1)) for sentence in sentences]
    task, store = encoded({"tokens": sentences, "tags": tags}, "token-classification")
    model = fasttune.padding_free(transformers.BertForTokenClassification(tiny_config(**task.state())))
    assert steps_on_meta(model, task, store, monkeypatch) == [2]


def encoded(
    columns: dict[str, Any], name: str = "text-classification", wrapped: Any = None, **settings: Any
) -> tuple[Any, Any]:
    """The task of four rows, and their tokens."""
    data = {"train": "-", **settings.pop("data", {})}
    recipe = recipes.load({"task": name, "data": data, **settings})
    rows = Rows([str(number) for number in range(4)], columns)
    task = TASKS[name].from_rows(rows, recipe, "rows")
    if wrapped is not None:
        task = wrapped(task, seed=1)
        rows = task.texts_of(rows)
    return task, task.encode(rows, tiny_tokenizer(), 64, "rows")


class NoWaits(TorchFunctionMode):
    """Raises where the numbers of a tensor are made on the host, which is a copy that a GPU is waited for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        names = ("new_tensor", "tensor", "as_tensor", "from_numpy", "asarray")
        if getattr(function, "__name__", "") in names and result.device.type == "meta":
            raise AssertionError(f"{function.__name__} copies to the device")
        return result


def steps_on_meta(model: Any, task: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers each read of the second step asks for; the device is `meta`, with the flash kernel of a GPU."""
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
    for watch in (nullcontext(), NoWaits()):  # the first step may copy what all others use
        reads.clear()
        with watch:
            result = run_step(
                model=model,
                optimizer=optimizer,
                task=task,
                microbatches=[collate(store, np.array([3, 1])), collate(store, np.array([0, 2]))],
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
