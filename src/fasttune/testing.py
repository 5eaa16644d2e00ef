"""What every task must keep to, as a test to run on your own: `check_task`.

It reads rows, makes a tiny model with random weights on the CPU, and holds the task against the contract of
`tasks/base.py`. A part that is not kept is an AssertionError that says which. It takes some seconds and no network.
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

MAX_LENGTH = 48  # tokens: some examples of a test should be longer
TOLERANCE = 1e-4
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def check_task(
    task: type[Task],
    rows: Sequence[Mapping[str, Any]],
    inputs: Any,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Hold `task` against the contract; AssertionError where it is not kept.

    `rows`: a dozen labelled rows or more, as dicts by column, of different length; `inputs`: what a program would ask
    to predict; `settings`: sections of a recipe, where the task needs other than the defaults.

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
    assert isinstance(calibrated, task), f"calibrated gives a {type(calibrated).__name__}"
    _check_predictions(calibrated, outputs.results, store, labelled)
    _check_scores(calibrated, outputs.results, store, labelled)
    saved = _check_state(calibrated, recipe)
    expected = list(calibrated.decode(outputs.results, store, labelled))
    assert list(saved.decode(outputs.results, store, labelled)) == expected, "a saved task decodes otherwise"
    _check_prediction_inputs(saved, inputs, tokenizer, model)
    unlabelled = saved.encode(_read(task, rows, recipe, False)[0], tokenizer, MAX_LENGTH, "rows")
    assert not unlabelled.is_labelled, "rows without targets have them after encode"
    assert _same(unlabelled.inputs, store.inputs), "targets change the inputs of the model"


def _read(
    task: type[Task], rows: Sequence[Mapping[str, Any]], recipe: Recipe, with_targets: bool
) -> tuple[Rows, dict[str, str]]:
    columns = tuple(column for column in task.columns if with_targets or not column.is_target)
    roles = [column.role for column in task.columns]
    assert len(set(roles)) == len(roles), f"a role twice in columns: {roles}"
    assert any(column.is_target for column in task.columns), "no column is_target: what is to be learned?"
    source = from_rows([dict(row) for row in rows])
    names = resolve(columns, {}, source.dataset.column_names, "rows").names
    found = task.read(source, names, recipe)
    assert len(found) == len(rows), f"read gives {len(found)} of {len(rows)} rows"
    for role, values in found.values.items():
        assert len(values) == len(rows), f"read gives {len(values)} values of {role} for {len(rows)} rows"
    assert len(set(found.ids)) == len(rows) and all(isinstance(row_id, str) for row_id in found.ids), "ids"
    return found, names


def _check_rows(task: Task, rows: Rows) -> None:
    strata = task.strata(rows, "rows")
    assert len(strata) == len(rows) and all(isinstance(stratum, int) for stratum in strata), "strata: one int a row"
    groups = task.groups(rows)
    assert groups is None or len(groups) == len(rows), "groups: none, or one a row"
    json.dumps(task.settings())
    assert isinstance(task.example, str) and task.example, "example: what to type behind `fasttune predict RUN`"


def _check_encoding(task: Task, rows: Rows, tokenizer: transformers.PreTrainedTokenizerBase) -> TokenStore:
    store = task.encode(rows, tokenizer, MAX_LENGTH, "rows")
    again = task.encode(rows, tokenizer, MAX_LENGTH, "rows")
    assert again.fingerprint == store.fingerprint, "encode gives something else the second time"
    assert store.is_labelled, "labelled rows have no targets after encode"
    assert store.starts[0] == 0 and (np.diff(store.starts) > 0).all(), "starts: from 0, rising"
    assert store.sequence_lengths.max() <= MAX_LENGTH, "a sequence longer than max_length"
    assert set(store.rows.tolist()) == set(range(len(rows))), "rows without an example"
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
    """Sums that add up over any cut, weights that are known before the forward, and no influence of padding."""

    def loss_of(examples: Iterable[int], length: int | None = None) -> tuple[float, float]:
        batch = collate(store, np.array(list(examples)), Padding(length=length))
        with torch.no_grad():
            total, weight = task.loss(model(**batch.inputs), batch, training=False)
        assert total.ndim == 0 and total.dtype == torch.float32, "the loss is one number in fp32"
        assert weight == task.weight(batch.targets), "weight: another before the forward than with the loss"
        return total.item(), weight

    size = len(store)
    total, weight = loss_of(range(size))
    assert math.isfinite(total) and weight > 0, f"loss {total}, weight {weight}"
    for cuts in ([size // 2], [1, size // 3], list(range(1, size))):
        parts = [loss_of(range(begin, end)) for begin, end in pairwise([0, *cuts, size])]
        assert math.isclose(sum(part[0] for part in parts), total, rel_tol=TOLERANCE), "a mean, where sums must add up"
        assert math.isclose(sum(part[1] for part in parts), weight, rel_tol=TOLERANCE), "weights do not add up"
    assert math.isclose(loss_of(range(size), MAX_LENGTH)[0], total, rel_tol=TOLERANCE), "padding changes the loss"
    batch = collate(store, np.arange(size))
    task.loss(model(**batch.inputs), batch, training=True)[0].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name in without if "pooler" not in name], f"no gradient reaches {without[:3]}"
    model.zero_grad()


def _check_results(task: Task, store: TokenStore, model: transformers.PreTrainedModel) -> Outputs:
    """The same whatever the micro-batches."""

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

    whole = run(100_000)
    assert not np.isnan(whole.results).any(), "results that are no numbers"
    length = store.num_tokens if task.result_per_token else len(store)
    assert len(whole.results) == length, f"{len(whole.results)} results for {length}"
    for other in (run(1), run(200), run(200, MAX_LENGTH)):
        assert np.array_equal(np.isfinite(other.results), np.isfinite(whole.results)), "not finite, or only at times"
        finite = np.isfinite(whole.results)
        same = np.isclose(other.results[finite], whole.results[finite], atol=TOLERANCE, rtol=TOLERANCE)
        assert same.mean() > 0.99, "results depend on what else is in the micro-batch"  # equal scores may change places
    return whole


def _check_predictions(task: Task, results: np.ndarray, store: TokenStore, rows: Rows) -> None:
    predictions = list(task.decode(results, store, rows))
    assert [one["id"] for one in predictions] == list(rows.ids), "decode: one prediction a row, in order, with its id"
    json.dumps(predictions, allow_nan=False)
    json.dumps(task.files(results, store, rows), allow_nan=False)


def _check_scores(task: Task, results: np.ndarray, store: TokenStore, rows: Rows) -> None:
    scores = task.score(results, store, rows)
    assert task.primary_metric in scores, f"score lacks {task.primary_metric}, the primary metric"
    assert task.primary_metric in (*METRICS, *LESS_IS_BETTER), f"{task.primary_metric}: no name that a recipe knows"
    assert all(isinstance(value, float) and math.isfinite(value) for value in scores.values()), f"scores: {scores}"


def _check_state(task: Task, recipe: Recipe) -> Task:
    """What a run folder keeps is enough to make the task again."""
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
    """BERT's, with the words of these texts as its vocabulary."""
    words = dict.fromkeys(word.lower() for text in texts for word in words_of(text).words)
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *words])}
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
        initializer_range=0.2,  # what rows give should differ by more than rounding
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, task.auto_class).from_config(config).eval()


def _texts(value: Any) -> list[str]:
    """All texts in nested values."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for part in value for text in _texts(part)] if isinstance(value, list | tuple) else []


def _same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
