"""From the recipe's data section to tokenised splits, with a note on every decision.

The test split is never used to choose anything: without validation rows, some are held out of the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.corrections import corrected
from fasttune.data.earlier_run import EarlierRun, earlier_run, seen_before, to_replay, with_replayed
from fasttune.data.holdout import Split, hold_out, without_copies, without_leaks, without_repeats
from fasttune.data.problems import Problems
from fasttune.data.reading import ANY, TEST, TRAIN, VALIDATION, Reader, is_starter, name_of, own_split
from fasttune.data.row_stream import RowStream, open_row_stream
from fasttune.data.tokens.cache import cached, key_of
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import DataError, Problem
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fasttune.tasks.base import Task

    Tasks = Mapping[str, type[Task]]  # by name

# Above this share of unknown tokens, the tokenizer does not know the language of the texts. With an English WordPiece,
# English reviews have less than 0.1 %; in Chinese ones most characters are unknown.
MAX_UNKNOWN_SHARE = 0.2


@dataclass(frozen=True)
class Splits:
    """The rows of a run; `notes` are the decisions to report and store.

    `stream`: the training rows of a streamed run; `train` is then only a sample of them. `unlabelled`: further rows
    without labels. `settings`: what the files showed that the recipe left open, as fields of the recipe.
    """

    task: Task
    train: Split
    validation: Split | None
    test: Split | None
    columns: dict[str, str | list[str]]
    notes: list[str]
    stream: RowStream | None = None
    unlabelled: Split | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def num_training_examples(self, store: TokenStore) -> int:
        """The examples of an epoch; `store`: those of `train`. A streamed row is one example."""
        return len(store) if self.stream is None else self.stream.files.num_rows

    def filled(self, recipe: Recipe) -> Recipe:
        """The recipe with what the files showed: columns, labels and how they are written."""
        filled = load_recipe(load_recipe(recipe, self.task.settings()), self.settings)
        return load_recipe(filled, {"data": {"columns": self.columns}})

    def all(self) -> list[Split]:
        return [split for split in (self.train, self.validation, self.test) if split is not None]


def read_splits(recipe: Recipe, tasks: Tasks, run: RunFolder | None = None) -> Splits:
    """Read, check and split the rows; DataError lists all problems of all splits together.

    `run`: the finished run that has this recipe, if its rows are read again.
    """
    reader, data = Reader(recipe, tasks), recipe.data
    problems = Problems("data")
    train = task = stream = earlier = None
    settings: Mapping[str, Any] = {}
    split_names: tuple[str, ...] = ()  # of the data set of the training rows
    with problems.collected():
        if data.streaming:
            stream, train = open_row_stream(reader)
            split_names = stream.files.split_names
        else:
            train, source = reader.rows(data.train, TRAIN)
            split_names, settings = source.split_names, source.settings
        if run is None or recipe.training.replay:  # what an ancestor was trained on is no question of this run
            earlier = earlier_run(recipe, partial(_read_kept_of, tasks), run)
        known = train.rows  # from which the task learns its labels
        if recipe.training.replay:
            known = known.with_more(to_replay(reader.recipe, earlier, train).train.rows)
        task = reader.task_class.from_rows(known, reader.recipe, train.where)
        task.strata(known, train.where)  # raises DataError for unusable targets
        reader.notes += task.notes
    held_out: dict[str, Split] = {}
    for name, spec in {VALIDATION: data.validation, TEST: data.test}.items():
        is_own = spec is None and (name in split_names or is_starter(data.train))
        if is_own:
            spec = own_split(data.train, name)
        if spec is not None:
            with problems.collected():
                source = reader.open(spec, name)
                if (is_own or name == TEST) and task is not None and reader.is_unlabelled(source):
                    whose = f"the data set's own {name} split" if is_own else name_of(spec)
                    reader.notes.append(f"{name}: {whose} has no labels and is not scored")
                    continue
                if is_own:
                    reader.notes.append(f"{name}: the data set's own {name} split")
                held_out[name] = reader.split_of(source, spec, name)
                if task is not None:
                    task.strata(held_out[name].rows, held_out[name].where)  # raises DataError for unseen labels
        elif name == VALIDATION and data.streaming:
            found = "missing; streaming cannot hold validation rows out of the training rows"
            hint = "data.validation=FILE"
            problems.add(Problem(code="E258", where="data.validation", found=found, hint=hint))
    unlabelled: Split | None = None
    if data.unlabelled is not None:
        with problems.collected():
            unlabelled = replace(reader.rows(data.unlabelled, ANY, need_labels=False)[0], name="unlabelled")
    problems.raise_if_any()
    assert train is not None and task is not None
    if stream is None:
        train = _divided(train, held_out, task, recipe, reader.notes)
        if data.corrections is not None:
            train = corrected(train, data.corrections, task, reader.notes)
            task.strata(train.rows, data.corrections)  # raises DataError for unknown labels
        train = train.limited(data.max_train_samples, data.seed, reader.notes)
    for name, split in held_out.items():
        held_out[name] = split.limited(data.max_eval_samples, data.seed, reader.notes)
    reader.notes += seen_before(earlier, held_out, task, recipe.model)
    if recipe.training.replay:
        assert isinstance(earlier, EarlierRun), "to_replay refused anything else"
        train = with_replayed(recipe.training.replay, earlier, train, held_out, task, data.seed, reader.notes)
    task = task.for_training_rows(train.rows, recipe)
    if unlabelled is not None:
        unlabelled = without_copies(unlabelled, list(held_out.values()), task, reader.notes)
    return Splits(
        task=task,
        train=train,
        validation=held_out.get(VALIDATION),
        test=held_out.get(TEST),
        columns=reader.columns,
        notes=reader.notes,
        stream=stream,
        unlabelled=unlabelled,
        settings=settings,
    )


def _divided(train: Split, held_out: dict[str, Split], task: Task, recipe: Recipe, notes: list[str]) -> Split:
    """Hold out the missing splits into `held_out`, and drop duplicates if the recipe says so; returns the rest."""
    data = recipe.data
    if data.drop_duplicates and task.groups(train.rows) is None:
        train = without_repeats(train, task, notes)
    remaining = 1.0
    if TEST not in held_out and data.test_fraction:
        train, held_out[TEST] = hold_out(train, TEST, data.test_fraction, task, recipe, notes)
        remaining -= data.test_fraction
    if VALIDATION not in held_out:
        fraction = min(data.validation_fraction / remaining, 1.0)
        train, held_out[VALIDATION] = hold_out(train, VALIDATION, fraction, task, recipe, notes)
    if data.drop_duplicates:
        train = without_leaks(train, list(held_out.values()), task, notes)
    return train


def read_kept(recipe: Recipe, tasks: Tasks, name: str, kept: Mapping[str, Any], folder: Path) -> Split:
    """A split of a finished run exactly as it was scored. `kept`: its section of data_report.json.

    DataError if the files no longer hold these rows, because other rows may be rows that the model was trained on. No
    list of training rows is stored, and 0.1.0 stored none of any split: these are drawn again if the file is unchanged.
    """
    is_mixed = recipe.training.replay > 0 and name == VALIDATION  # with rows of another run
    if "rows_sha256" not in kept or is_mixed:
        again = read_splits(recipe, tasks, RunFolder(folder)).all()
        split = next(candidate for candidate in again if candidate.name == name)
        if split.fingerprint != kept["fingerprint"]:
            found = f"the file has changed since the run, so the {name} rows cannot be drawn again"
            raise DataError(_changed(split, folder, found))
        if is_mixed and split.sha256(tasks[recipe.task]) != kept["rows_sha256"]:
            found = f"the {name} rows differ from those that the run was scored on"
            raise DataError(_changed(split, folder, found))
        return split
    data = recipe.data
    spec = {VALIDATION: data.validation, TEST: data.test}.get(name)
    if spec is None:
        spec = data.train if kept["read_as"] == TRAIN else own_split(data.train, name)
    reader = Reader(recipe, tasks)
    split = replace(reader.rows(spec, kept["read_as"])[0], name=name)
    positions = kept["positions"]
    if positions is not None and max(positions, default=-1) < len(split.rows):
        split = split.take(positions)
    if split.sha256(reader.task_class) != kept["rows_sha256"]:
        raise DataError(_changed(split, folder, f"the {name} rows differ from those that the run held out of training"))
    return split


def _read_kept_of(tasks: Tasks, recipe: Recipe, name: str, kept: Mapping[str, Any], folder: Path) -> Split:
    return read_kept(recipe, tasks, name, kept, folder)


def _changed(split: Split, folder: Path, found: str) -> Problem:
    hint = "restore the file, or score another: fasttune evaluate RUN --data FILE"
    return Problem(code="E531", where=f"{folder}: {split.where}", found=found, hint=hint)


def encode(split: Split, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenStore:
    """Tokenise a split, or map its tokens from the cache; DataError if the tokenizer does not know the language."""
    settings = {"task": task.name, "encoding": task.encoding(), "max_length": max_length}
    read = {column.role: split.rows.values[column.role] for column in task.columns if column.role in split.rows.values}
    key = key_of(read, tokenizer, settings)
    store = cached(key, lambda: task.encode(split.rows, tokenizer, max_length, split.where))
    if store.is_labelled and not task.weight(targets_of(store)):
        raise DataError(
            Problem(
                code="E256",
                where=split.where,
                found=f"the {split.name} rows have nothing to learn or score: no token belongs to an answer or a tag",
            )
        )
    unknown = unknown_language(store, tokenizer)
    if unknown:
        raise DataError(
            Problem(
                code="E254",
                where=split.where,
                found=unknown,
                hint="model=FacebookAI/xlm-roberta-base (100 languages), model=google-bert/bert-base-chinese (Chinese)",
            )
        )
    return store


def unknown_language(store: TokenStore, tokenizer: PreTrainedTokenizerBase) -> str:
    """A sentence if the tokenizer does not know the language of these texts, else ""."""
    share = store.share_of(tokenizer.unk_token_id)
    if share <= MAX_UNKNOWN_SHARE:
        return ""
    return (
        f"{share:.0%} of the tokens are unknown to the model's tokenizer: it does not know the language (the embedded "
        "model reads English)"
    )


def targets_of(store: TokenStore) -> dict[str, Any]:
    """All targets at once, as tensors."""
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in {**store.targets, **store.token_targets}.items()}


def tokens_at_twice_the_length(store: TokenStore) -> int:
    """The number of tokens to compute if `max_length` were doubled."""
    return int(np.minimum(store.lengths + store.num_tokens_cut, 2 * store.lengths.max()).sum())


def kept_rows(split: Split, task: Task) -> dict[str, Any]:
    """What `read_kept` needs to find the rows of a scored split again. Positions are rows of the source, from 0."""
    positions = None if split.positions is None else split.positions.tolist()
    return {"positions": positions, "rows_sha256": split.sha256(type(task))}


def report(split: Split, store: TokenStore, task: Task) -> dict[str, Any]:
    """The section of data_report.json on one split: rows, labels, lengths in tokens, truncation."""
    lengths = store.lengths
    cut = store.num_tokens_cut
    return {
        "source": split.where,
        "read_as": split.read_as,
        "fingerprint": split.fingerprint,
        **({} if split.name == TRAIN else kept_rows(split, task)),
        "num_rows": len(split.rows),
        "is_sample": split.is_sample,
        "licence": split.licence,
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
