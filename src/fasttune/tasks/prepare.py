"""From the recipe's data section to tokenised splits, and every decision on the way in words.

The test split is never used to choose anything: where no validation is given, it is held out of the training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.columns import Column, cells_of, empty_rows, resolve, some_cells
from fasttune.data.sources import Source, from_rows, load_source
from fasttune.data.storage import Reading
from fasttune.data.text_file import Problems
from fasttune.data.token_cache import cached, key_of
from fasttune.data.token_store import TokenStore
from fasttune.errors import DataError, Problem, UsageError
from fasttune.recipe import Recipe
from fasttune.starter import pairs, questions, reviews
from fasttune.tasks import TASKS, Task
from fasttune.tasks.splitting import GROUP, TIME, Split, hold_out, without_leaks, without_repeats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STARTERS: dict[str, Callable[[], dict[str, Any]]] = {  # generated data sets, as `data.train` names them
    "starter": reviews.generate,
    "starter:pairs": pairs.generate,
    "starter:questions": questions.generate,
}
DEFAULT_TASK = "text-classification"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ANY = "data"  # rows of no split, such as a file to predict
# Above this share of unknown tokens a tokenizer does not know the language of the texts. English reviews under an
# English WordPiece have less than 0.1 %; Chinese ones most of their characters.
MAX_UNKNOWN_SHARE = 0.2


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


def open_source(spec: str | list[str], split: str, reading: Reading | None = None) -> Source:
    """A file, glob, folder, address or hub id, or generated rows."""
    if not is_starter(spec):
        return load_source(spec, split, reading)
    splits = STARTERS[str(spec)]()
    split = TEST if split == ANY else split
    if split not in splits:
        raise UsageError(Problem(where="--split", found=repr(split), expected=f"one of {', '.join(splits)}"))
    return from_rows(splits[split], f"{spec}:{split}")


def reading_of(recipe: Recipe) -> Reading:
    return Reading(recipe.data.encoding, recipe.data.header, recipe.data.max_bytes)


@dataclass
class Reader:
    """Reads one recipe's sources; collects notes."""

    recipe: Recipe
    task_class: type[Task]
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    def rows(self, spec: str | list[str], split: str, need_labels: bool = True) -> tuple[Split, Source]:
        source = open_source(spec, split, reading_of(self.recipe))
        self.notes += source.notes
        where = spec if isinstance(spec, str) else ", ".join(spec)
        names = self._columns(source, where, split, need_labels)
        if self.recipe.data.drop_empty:
            source = self._without_empty(source, names, where)
        rows = self.task_class.read(source, names, self.recipe)
        self.notes += rows.notes
        ties = {role: cells_of(source.dataset, names[role]) for role in (GROUP, TIME) if role in names}
        rows = replace(rows, values={**rows.values, **ties}, place=source.place)
        return Split(split, where, rows, source.fingerprint, source.licence), source

    def _columns(self, source: Source, where: str, split: str, need_labels: bool) -> dict[str, str]:
        """Role -> the name of its column, for the task's roles and those that training rows are split by."""
        # Every split has the columns of the training rows.
        given = {**self.recipe.data.columns.model_dump(), **self.columns}
        ties = tuple(
            Column(role, "what the rows are split by", required=True)
            for role in (GROUP, TIME)
            if given.pop(role) is not None and split == TRAIN
        )
        given |= {tie.role: getattr(self.recipe.data.columns, tie.role) for tie in ties}
        columns = (*self.task_class.columns, *ties)
        if not need_labels:
            targets = {column.role for column in columns if column.is_target}
            columns = tuple(column for column in columns if column.role not in targets)
            given = {role: name for role, name in given.items() if role not in targets}
        try:
            cells = partial(some_cells, source.dataset)
            resolved = resolve(columns, given, source.dataset.column_names, where, cells)
        except DataError as error:
            raise _with_other_task(error, self.task_class, source.dataset.column_names) from None
        if split == TRAIN:
            self.columns = dict(resolved.names)
            self.notes += resolved.notes
        return resolved.names

    def _without_empty(self, source: Source, names: dict[str, str], where: str) -> Source:
        required = [one for one in self.task_class.columns if one.role in names and not one.may_be_empty]
        empty = {row for one in required for row in empty_rows(source.dataset, names[one.role], not one.is_target)}
        if not empty:
            return source
        self.notes.append(f"{where}: {len(empty):,} rows left out whose text or label is empty (data.drop_empty)")
        return source.take([row for row in range(len(source.dataset)) if row not in empty])


def task_of(available: Sequence[str]) -> type[Task] | None:
    """The task that has these very names as its roles; None where no task or the default one has them."""
    names = {name.strip().lower() for name in available}
    for task in TASKS.values():
        if task is not TASKS[DEFAULT_TASK] and {column.role for column in task.columns if column.required} <= names:
            return task
    return None


def _with_other_task(error: DataError, task_class: type[Task], available: list[str]) -> DataError:
    """The same or, where the columns have the very names of another task's roles, that it is rows of this."""
    task = task_of(available)
    if task is None or task is task_class:
        return error
    found = f"the columns of {task.name}: {', '.join(column.role for column in task.columns if column.required)}"
    if task.name == "question-answering":
        found += ", as SQuAD has them"
    expected, hint = f"those of {task_class.name}", f"task={task.name}"
    return DataError(
        *(
            replace(one, code="E116", found=found, expected=expected, hint=hint) if one.code == "E201" else one
            for one in error.problems
        )
    )


def read_splits(recipe: Recipe) -> Splits:
    """Read, check and split; DataError tells what cannot be used, all of it together."""
    reader, data = Reader(recipe, TASKS[recipe.task]), recipe.data
    problems = Problems("data")
    train = task = source = None
    with problems.collected():
        train, source = reader.rows(data.train, TRAIN)
        task = reader.task_class.from_rows(train.rows, recipe, train.where)
        task.strata(train.rows, train.where)  # targets that cannot be used are found now
        reader.notes += task.notes
    own = source.split_names if source is not None else ()
    others: dict[str, Split] = {}
    for name, spec in {VALIDATION: data.validation, TEST: data.test}.items():
        if spec is None and (name in own or is_starter(data.train)):
            spec = data.train
            reader.notes.append(f"{name}: the data set's own {name} split")
        if spec is not None:
            with problems.collected():
                others[name] = reader.rows(spec, name)[0]
                if task is not None:
                    task.strata(others[name].rows, others[name].where)  # so is a label that training never saw
    problems.raise_if_any()
    assert train is not None and task is not None
    train = _divided(train, others, task, recipe, reader.notes)
    train = train.limited(data.max_train_samples, data.seed, reader.notes)
    _check_batch(train, recipe.training.batch_size)
    for name, split in others.items():
        others[name] = split.limited(data.max_eval_samples, data.seed, reader.notes)
    return Splits(task, train, others.get(VALIDATION), others.get(TEST), reader.columns, reader.notes)


def _check_batch(train: Split, batch_size: int) -> None:
    number = len(train.rows)
    if number < batch_size:
        raise DataError(
            Problem(
                code="E252",
                where=train.where,
                found=f"{number:,} training rows for steps of training.batch_size {batch_size:,}",
                expected="one step or more of that size",
                hint=f"training.batch_size={number}",
            )
        )


def _divided(train: Split, others: dict[str, Split], task: Task, recipe: Recipe, notes: list[str]) -> Split:
    """Fills in the splits that are to be held out of the training rows, and drops what stands twice."""
    data = recipe.data
    if data.drop_duplicates and task.groups(train.rows) is None:
        train = without_repeats(train, task, notes)
    left = 1.0
    if TEST not in others and data.test_fraction:
        train, others[TEST] = hold_out(train, TEST, data.test_fraction, task, recipe, notes)
        left -= data.test_fraction
    if VALIDATION not in others:
        fraction = min(data.validation_fraction / left, 1.0)
        train, others[VALIDATION] = hold_out(train, VALIDATION, fraction, task, recipe, notes)
    if data.drop_duplicates:
        train = without_leaks(train, list(others.values()), task, notes)
    return train


def read_labelled(recipe: Recipe, spec: str | list[str], split: str) -> Split:
    """Labelled rows to score a finished run on."""
    rows = Reader(recipe, TASKS[recipe.task]).rows(spec, split)[0]
    return rows.limited(recipe.data.max_eval_samples, recipe.data.seed, [])


def read_unlabelled(recipe: Recipe, spec: str | list[str]) -> Split:
    """Rows to predict; a label column is ignored where there is one."""
    return Reader(recipe, TASKS[recipe.task]).rows(spec, ANY, need_labels=False)[0]


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
    share = store.share_of(tokenizer.unk_token_id)
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


def tokens_at_twice_the_length(store: TokenStore) -> int:
    """How many tokens there would be to compute if twice as long texts were read; where nothing is cut, as many."""
    return int(np.minimum(store.lengths + store.num_tokens_cut, 2 * store.lengths.max()).sum())


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
        "truncated": {
            "num_examples": int((cut > 0).sum()),
            "num_tokens": int(cut.sum()),
            "num_tokens_at_twice_the_length": tokens_at_twice_the_length(store),
        },
        "windows": {
            "num_rows_in_several": int((store.num_windows > 1).sum()),
            "num_windows": int(store.num_windows.sum()),
        },
    }
