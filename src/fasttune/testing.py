"""Test your own tasks: `check_task` checks a task against the contract in `tasks/base.py`.

It reads rows, creates a tiny model with random weights on the CPU, and raises an AssertionError that names the first
part of the contract that is broken. It takes a few seconds and needs no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import transformers

from fasttune import recipe as recipes
from fasttune.data.batching.collate import MicroBatch, Padding, collate
from fasttune.data.columns import resolve
from fasttune.data.sources import from_rows
from fasttune.data.tokens.store import TokenStore
from fasttune.data.tokens.words import words_of
from fasttune.parallel.launcher import make_accelerator
from fasttune.recipe import METRICS, Recipe
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.tasks import TASKS, Rows, Task, TextClassification
from fasttune.training.scoring import Outputs, run_split

MAX_LENGTH = 48  # tokens; some examples of a test should be longer
TOLERANCE = 1e-4
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def check_task(
    task: type[Task],
    rows: Sequence[Mapping[str, Any]],
    inputs: Any,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Check `task` against the contract; AssertionError for what is broken.

    `rows`: a dozen or more labelled rows of different lengths, as dicts by column. `inputs`: an argument of `predict`.
    `settings`: sections of a recipe, if the task needs other values than the defaults.

    >>> check_task(TextClassification, [{"text": "good", "label": "1"}, ...], ["fine"])  # doctest: +SKIP
    """
    name = task.name if task.name in TASKS else TextClassification.name
    recipe = recipes.load({"task": name, "data": {"train": "rows"}, **(settings or {})})
    labelled, names = _read(task, rows, recipe, True)
    recipe = recipes.load(recipe, {"data": {"columns": names}})
    made = task.from_rows(labelled, recipe, "rows")
    tokenizer = tiny_tokenizer(_texts(rows))
    model = _tiny_model(made, len(tokenizer))
    store = _check_encoding(made, labelled, tokenizer)
    _check_rows(made, labelled)
    _check_loss(made, store, model)
    outputs = _check_results(made, store, model)
    calibrated = made.calibrated(outputs.results, store, labelled)
    assert isinstance(calibrated, task), f"calibrated returns a {type(calibrated).__name__}"
    _check_predictions(calibrated, outputs.results, store, labelled)
    _check_scores(calibrated, outputs.results, store, labelled)
    saved = _check_state(calibrated, recipe)
    expected = list(calibrated.decode(outputs.results, store, labelled))
    assert list(saved.decode(outputs.results, store, labelled)) == expected, (
        "a saved and loaded task decodes differently"
    )
    _check_prediction_inputs(saved, inputs, tokenizer, model)
    unlabelled = saved.encode(_read(task, rows, recipe, False)[0], tokenizer, MAX_LENGTH, "rows")
    assert not unlabelled.is_labelled, "encode gives unlabelled rows targets"
    assert _same(unlabelled.inputs, store.inputs), "targets change the model's inputs"


def _read(
    task: type[Task], rows: Sequence[Mapping[str, Any]], recipe: Recipe, with_targets: bool
) -> tuple[Rows, dict[str, str]]:
    columns = tuple(column for column in task.columns if with_targets or not column.is_target)
    roles = [column.role for column in task.columns]
    assert len(set(roles)) == len(roles), f"duplicate roles in columns: {roles}"
    assert any(column.is_target for column in task.columns), "no column has is_target: there is nothing to learn"
    source = from_rows([dict(row) for row in rows])
    names = resolve(columns, {}, source.dataset.column_names, "rows").names
    read = task.read(source, names, recipe)
    assert len(read) == len(rows), f"read returns {len(read)} of {len(rows)} rows"
    for role, values in read.values.items():
        assert len(values) == len(rows), f"read returns {len(values)} values of {role} for {len(rows)} rows"
    has_ids = len(set(read.ids)) == len(rows) and all(isinstance(row_id, str) for row_id in read.ids)
    assert has_ids, "ids: a different str for each row"
    return read, names


def _check_rows(task: Task, rows: Rows) -> None:
    strata = task.strata(rows, "rows")
    assert len(strata) == len(rows) and all(isinstance(stratum, int) for stratum in strata), "strata: one int per row"
    groups = task.groups(rows)
    assert groups is None or len(groups) == len(rows), "groups: None, or one per row"
    json.dumps(task.settings())
    assert isinstance(task.example, str) and task.example, "example: the arguments of `fasttune predict RUN` as a str"


def _check_encoding(task: Task, rows: Rows, tokenizer: transformers.PreTrainedTokenizerBase) -> TokenStore:
    store = task.encode(rows, tokenizer, MAX_LENGTH, "rows")
    again = task.encode(rows, tokenizer, MAX_LENGTH, "rows")
    assert again.fingerprint == store.fingerprint, "encode returns a different result the second time"
    assert store.is_labelled, "labelled rows have no targets after encode"
    assert store.starts[0] == 0 and (np.diff(store.starts) > 0).all(), "starts: strictly increasing from 0"
    assert store.sequence_lengths.max() <= MAX_LENGTH, "a sequence longer than max_length"
    assert set(store.rows.tolist()) == set(range(len(rows))), "encode leaves rows without an example"
    assert (np.diff(store.rows) >= 0).all(), "examples are not in the order of their rows"
    assert (store.num_tokens_cut >= 0).all()
    for name, array in {**store.inputs, **store.token_targets, **store.token_features}.items():
        assert len(array) == store.num_tokens, f"{name}: {len(array)} entries for {store.num_tokens} tokens"
    for name, array in {**store.targets, **store.features}.items():
        assert len(array) == len(store), f"{name}: {len(array)} entries for {len(store)} examples"
    assert isinstance(task.encoding(), str)
    json.dumps(task.describe(store))
    return store


def _check_loss(task: Task, store: TokenStore, model: transformers.PreTrainedModel) -> None:
    """Check that losses are sums, weights are known before the forward pass, and padding has no effect."""

    def loss_of(examples: Iterable[int], length: int | None = None) -> tuple[float, float]:
        batch = collate(store, np.array(list(examples)), Padding(length=length))
        with torch.no_grad():
            total, weight = task.loss(model(**batch.inputs), batch, training=False), task.weight(batch.targets)
        assert total.ndim == 0 and total.dtype == torch.float32, "the loss must be a single fp32 number"
        return total.item(), weight

    size = len(store)
    total, weight = loss_of(range(size))
    assert math.isfinite(total) and weight > 0, f"loss {total}, weight {weight}"
    for cuts in ([size // 2], [1, size // 3], list(range(1, size))):
        losses, weights = zip(*(loss_of(range(begin, end)) for begin, end in pairwise([0, *cuts, size])), strict=True)
        assert math.isclose(sum(losses), total, rel_tol=TOLERANCE), (
            "losses do not add up: loss must be a sum, not a mean"
        )
        assert math.isclose(sum(weights), weight, rel_tol=TOLERANCE), "weights do not add up"
    assert math.isclose(loss_of(range(size), MAX_LENGTH)[0], total, rel_tol=TOLERANCE), "padding changes the loss"
    batch = collate(store, np.arange(size))
    task.loss(model(**batch.inputs), batch, training=True).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name in without if "pooler" not in name], f"no gradient reaches {without[:3]}"
    model.zero_grad()


def _check_results(task: Task, store: TokenStore, model: transformers.PreTrainedModel) -> Outputs:
    """Check that results do not depend on the micro-batches."""

    def run(tokens_per_microbatch: int, length: int | None = None) -> Outputs:
        return run_split(
            model=model,
            task=task,
            store=store,
            accelerator=make_accelerator("cpu", "fp32"),
            padding=Padding(length=length),
            tokens_per_microbatch=tokens_per_microbatch,
            padded=True,
        )

    reference = run(100_000)
    assert not np.isnan(reference.results).any(), "results contain NaN"
    length = store.num_tokens if task.result_per_token else len(store)
    assert len(reference.results) == length, f"{len(reference.results)} results instead of {length}"
    finite = np.isfinite(reference.results)
    for outputs in (run(1), run(200), run(200, MAX_LENGTH)):
        assert np.array_equal(np.isfinite(outputs.results), finite), "results are finite for some micro-batches only"
        same = np.isclose(outputs.results[finite], reference.results[finite], atol=TOLERANCE, rtol=TOLERANCE)
        # A few may differ: equal scores may be ranked in another order.
        assert same.mean() > 0.99, "results depend on what else is in the micro-batch"
    return reference


def _check_predictions(task: Task, results: np.ndarray, store: TokenStore, rows: Rows) -> None:
    predictions = list(task.decode(results, store, rows))
    ids = [prediction["id"] for prediction in predictions]
    assert ids == list(rows.ids), "decode: one prediction per row, in order, with its id"
    json.dumps(predictions, allow_nan=False)
    json.dumps(task.files(results, store, rows), allow_nan=False)


def _check_scores(task: Task, results: np.ndarray, store: TokenStore, rows: Rows) -> None:
    scores = task.score(results, store, rows)
    assert task.primary_metric in scores, f"score lacks {task.primary_metric}, the primary metric"
    assert task.primary_metric in (*METRICS, *LESS_IS_BETTER), f"{task.primary_metric} is not a metric of recipes"
    assert all(isinstance(value, float) and math.isfinite(value) for value in scores.values()), f"scores: {scores}"


def _check_state(task: Task, recipe: Recipe) -> Task:
    """Create the task again from what a run folder stores."""
    config = _config(task)
    state = json.loads(config.to_json_string(use_diff=False))
    return type(task).from_state(state, recipes.load(recipe, task.settings()))


def _check_prediction_inputs(
    task: Task, inputs: Any, tokenizer: transformers.PreTrainedTokenizerBase, model: transformers.PreTrainedModel
) -> None:
    rows = task.rows_of(inputs)
    assert list(rows.ids) == [str(number) for number in range(len(rows))], "rows_of: ids from 0"
    store = task.encode(rows, tokenizer, MAX_LENGTH, "inputs")
    batch = collate(store, np.arange(len(store)))
    with torch.no_grad():
        results = _flat(task, batch, task.result(model(**batch.inputs), batch))
    assert len(list(task.decode(results, store, rows))) == len(rows)


def _flat(task: Task, batch: MicroBatch, results: torch.Tensor) -> np.ndarray:
    return (results[batch.inputs["attention_mask"].bool()] if task.result_per_token else results).float().numpy()


def tiny_tokenizer(texts: Iterable[str]) -> transformers.PreTrainedTokenizerBase:
    """A BERT tokenizer with the words of these texts as its vocabulary."""
    words = dict.fromkeys(word.lower() for text in texts for word in words_of(text).words)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=MAX_LENGTH)


def _config(task: Task, **sizes: Any) -> transformers.PreTrainedConfig:
    config = transformers.BertConfig(**sizes)
    for name, value in task.state().items():
        setattr(config, name, value)
    return config


def _tiny_model(task: Task, vocab_size: int) -> transformers.PreTrainedModel:
    config = _config(
        task,
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.2,  # large enough that the results of rows differ by more than rounding
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: transformers.PreTrainedModel = getattr(transformers, task.auto_class).from_config(config)
        model.eval()
        return model


def _texts(value: Any) -> list[str]:
    """All texts in nested values."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for item in value for text in _texts(item)] if isinstance(value, list | tuple) else []


def _same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
