"""From the recipe's data section to tokenised splits, and every decision on the way in words.

The test split is never used to choose anything: where no validation is given, it is held out of the training rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.columns import resolve
from fasttune.data.sources import Source, from_rows, load_source
from fasttune.data.splits import grouped_holdout, holdout, sample
from fasttune.data.token_cache import cached, key_of
from fasttune.data.token_store import TokenStore
from fasttune.errors import DataError, Problem, UsageError
from fasttune.recipe import Recipe
from fasttune.starter import pairs, questions, reviews
from fasttune.tasks import TASKS, Rows, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STARTERS: dict[str, Callable[[], dict[str, Any]]] = {  # generated data sets, as `data.train` names them
    "starter": reviews.generate,
    "starter:pairs": pairs.generate,
    "starter:questions": questions.generate,
}
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ANY = "data"  # rows of no split, such as a file to predict
# Above this share of unknown tokens a tokenizer does not know the language of the texts. English reviews under an
# English WordPiece have less than 0.1 %; Chinese ones most of their characters.
MAX_UNKNOWN_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """The rows of one split; `where` names their source in messages."""

    name: str
    where: str
    rows: Rows
    fingerprint: str


@dataclass(frozen=True)
class Splits:
    """The rows of a run; `notes` are the decisions to say and store."""

    task: Task
    train: Split
    validation: Split | None
    test: Split | None
    columns: dict[str, str]
    notes: list[str]

    def all(self) -> list[Split]:
        return [split for split in (self.train, self.validation, self.test) if split is not None]


def is_starter(spec: str | list[str]) -> bool:
    return isinstance(spec, str) and spec in STARTERS


def open_source(spec: str | list[str], split: str) -> Source:
    """A file, glob, folder or hub id, or generated rows."""
    if not is_starter(spec):
        return load_source(spec, split)
    splits = STARTERS[str(spec)]()
    split = TEST if split == ANY else split
    if split not in splits:
        raise UsageError(Problem(where="--split", found=repr(split), expected=f"one of {', '.join(splits)}"))
    return from_rows(splits[split], f"{spec}:{split}")


@dataclass
class Reader:
    """Reads one recipe's sources; collects notes."""

    recipe: Recipe
    task_class: type[Task]
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    def rows(self, spec: str | list[str], split: str, need_labels: bool = True) -> tuple[Split, Source]:
        source = open_source(spec, split)
        self.notes += source.notes
        where = spec if isinstance(spec, str) else ", ".join(spec)
        columns = self.task_class.columns
        # Every split has the columns of the training rows.
        given = {**self.recipe.data.columns.model_dump(), **self.columns}
        if not need_labels:
            targets = {column.role for column in columns if column.is_target}
            columns = tuple(column for column in columns if column.role not in targets)
            given = {role: name for role, name in given.items() if role not in targets}
        try:
            resolved = resolve(columns, given, source.dataset.column_names, where)
        except DataError as error:
            raise _with_other_task(error, self.task_class, source.dataset.column_names) from None
        if split == TRAIN:
            self.columns = dict(resolved.names)
            self.notes += resolved.notes
        rows = self.task_class.read(source, resolved.names, self.recipe)
        self.notes += rows.notes
        return Split(split, where, rows, source.fingerprint), source


def _with_other_task(error: DataError, task_class: type[Task], available: list[str]) -> DataError:
    """The same, with the task whose columns these are as the hint, where they have the very names of its roles."""
    for task in TASKS.values():
        required = {column.role for column in task.columns if column.required}
        if task is not task_class and required <= {name.lower() for name in available}:
            hinted = (replace(one, hint=f"task={task.name}") if one.code == "E201" else one for one in error.problems)
            return DataError(*hinted)
    return error


def read_splits(recipe: Recipe) -> Splits:
    """Read, check and split; DataError tells what cannot be used."""
    reader = Reader(recipe, TASKS[recipe.task])
    data = recipe.data
    train, source = reader.rows(data.train, TRAIN)
    task = reader.task_class.from_rows(train.rows, recipe, train.where)
    reader.notes += task.notes
    own = (VALIDATION, TEST) if is_starter(data.train) else source.split_names
    specs = {VALIDATION: data.validation, TEST: data.test}
    others: dict[str, Split | None] = {VALIDATION: None, TEST: None}
    for name, spec in specs.items():
        if spec is None and name in own:
            spec = data.train
            reader.notes.append(f"{name}: the data set's own {name} split")
        if spec is not None:
            held_out = reader.rows(spec, name)[0]
            task.strata(held_out.rows, held_out.where)  # an unseen label is found before a model is loaded
            others[name] = held_out
    if others[VALIDATION] is None:
        train, others[VALIDATION] = _hold_out(train, task, recipe, reader.notes)
    train = _limited(train, data.max_train_samples, data.seed, reader.notes)
    for name, split in others.items():
        if split is not None:
            others[name] = _limited(split, data.max_eval_samples, data.seed, reader.notes)
    return Splits(task, train, others[VALIDATION], others[TEST], reader.columns, reader.notes)


def read_labelled(recipe: Recipe, spec: str | list[str], split: str) -> Split:
    """Labelled rows to score a finished run on."""
    return _limited(
        Reader(recipe, TASKS[recipe.task]).rows(spec, split)[0], recipe.data.max_eval_samples, recipe.data.seed, []
    )


def read_unlabelled(recipe: Recipe, spec: str | list[str]) -> Split:
    """Rows to predict; a label column is ignored where there is one."""
    return Reader(recipe, TASKS[recipe.task]).rows(spec, ANY, need_labels=False)[0]


def _hold_out(train: Split, task: Task, recipe: Recipe, notes: list[str]) -> tuple[Split, Split]:
    data = recipe.data
    groups = task.groups(train.rows)
    if groups is None:
        strata = task.strata(train.rows, train.where)
        how = "stratified by label" if len(set(strata)) > 1 else "drawn at random"
        kept, held_out = holdout(strata, data.validation_fraction, data.seed)
    else:
        how = "rows that share a text on one side"
        kept, held_out = grouped_holdout(groups, data.validation_fraction, data.seed, train.where)
    notes.append(
        f"validation: {len(held_out):,} rows ({len(held_out) / len(train.rows):.0%}) held out of the training rows, "
        f"{how}, data.seed {data.seed}"
    )
    return _taken(train, kept, TRAIN), _taken(train, held_out, VALIDATION)


def _limited(split: Split, limit: int | None, seed: int, notes: list[str]) -> Split:
    if limit is None or limit >= len(split.rows):
        return split
    notes.append(f"{split.name}: {limit:,} of {len(split.rows):,} rows, drawn with data.seed {seed}")
    return _taken(split, sample(len(split.rows), limit, seed), split.name)


def _taken(split: Split, indices: Any, name: str) -> Split:
    return Split(name, split.where, split.rows.take(indices), split.fingerprint)


def encode(split: Split, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenStore:
    """Tokenise a split, or map what was tokenised before; DataError when the tokenizer does not know the language."""
    settings = {"task": task.name, "encoding": task.encoding(), "max_length": max_length}
    key = key_of(split.rows.values, tokenizer, settings)
    store = cached(key, lambda: task.encode(split.rows, tokenizer, max_length, split.where))
    if store.is_labelled and not task.weight(targets_of(store)):
        raise DataError(
            Problem(
                code="E256",
                where=split.where,
                found=f"nothing to learn or score in the {split.name} rows: no token stands for any target",
                expected="rows whose answers or tags can be found in their texts",
            )
        )
    unknown = tokenizer.unk_token_id
    share = float(np.mean(store.inputs["input_ids"] == unknown)) if unknown is not None and store.num_tokens else 0.0
    if share > MAX_UNKNOWN_SHARE:
        raise DataError(
            Problem(
                code="E254",
                where=split.where,
                found=f"{share:.0%} of the tokens unknown to the model's tokenizer",
                expected="texts in a language of the model (the embedded one reads English)",
                hint="model=FacebookAI/xlm-roberta-base (100 languages), model=google-bert/bert-base-chinese (Chinese)",
            )
        )
    return store


def targets_of(store: TokenStore) -> dict[str, Any]:
    """All targets at once, as tensors."""
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in {**store.targets, **store.token_targets}.items()}


def report(split: Split, store: TokenStore, task: Task) -> dict[str, Any]:
    """What data_report.json says of one split: rows, labels, lengths in tokens, truncation."""
    lengths = store.lengths
    cut = store.num_tokens_cut
    return {
        "source": split.where,
        "fingerprint": split.fingerprint,
        "num_rows": len(split.rows),
        "num_examples": len(store),
        "num_tokens": store.num_tokens,
        "labels": task.describe(store),
        "tokens_per_example": {
            "mean": round(float(lengths.mean()), 1),
            "median": float(np.median(lengths)),
            "p90": float(np.percentile(lengths, 90)),
            "max": int(lengths.max()),
        },
        "truncated": {"num_examples": int((cut > 0).sum()), "num_tokens": int(cut.sum())},
        "windows": {
            "num_rows_in_several": int((store.num_windows > 1).sum()),
            "num_windows": int(store.num_windows.sum()),
        },
    }
