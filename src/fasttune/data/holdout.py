"""Divide the rows of a run: held-out splits, samples, and dropped duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.duplicates import exact_groups, find
from fasttune.data.rows import Rows
from fasttune.data.splits import grouped_holdout, holdout_together, latest_holdout, merged_groups, sample
from fasttune.data.tokens.cache import sha256_of
from fasttune.errors import DataError, Problem, shown
from fasttune.recipe import Recipe

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

GROUP, TIME = "group", "time"
MAX_DROPPED_OF_CLASS = 0.5  # of the training rows of a class, as near-duplicates of held-out rows


@dataclass(frozen=True)
class Split:
    """The rows of one split; `is_sample`: a sample of a stream.

    `where` names their source in messages, `licence` comes from its card (`Source`). `read_as`: the split of the
    source, `positions`: its rows in that split; None: all of them.
    """

    name: str
    where: str
    rows: Rows
    fingerprint: str
    licence: str | None = None
    is_sample: bool = False
    read_as: str = ""
    positions: np.ndarray | None = None

    def take(self, indices: Sequence[int], name: str = "") -> Split:
        """The rows at these positions, in this order, as the split `name`."""
        chosen = np.asarray(indices, dtype=np.int64)
        positions = chosen if self.positions is None else self.positions[chosen]
        return replace(self, name=name or self.name, rows=self.rows.take(indices), positions=positions)

    def sha256(self, task: type[Task]) -> str:
        """The hash of all values that the task reads from these rows."""
        roles = {column.role for column in task.columns}
        return sha256_of({role: column for role, column in self.rows.values.items() if role in roles})

    def limited(self, limit: int | None, seed: int, notes: list[str]) -> Split:
        if limit is None or limit >= len(self.rows):
            return self
        notes.append(f"{self.name}: {limit:,} of {len(self.rows):,} rows, sampled with data.seed {seed}")
        return self.take(sample(len(self.rows), limit, seed))


def hold_out(
    train: Split, name: str, fraction: float, task: Task, recipe: Recipe, notes: list[str]
) -> tuple[Split, Split]:
    """Divide training rows into the remaining ones and a held-out split `name` with a `fraction` of them.

    The recipe decides how: the latest rows, whole groups, or at random, stratified by label if the task has classes.
    """
    seed, columns, values = recipe.data.seed, recipe.data.columns, train.rows.values
    ties = [groups for groups in (values.get(GROUP), task.groups(train.rows)) if groups is not None]
    if TIME in values:
        method = f"the latest by column {columns.time!r}"
        kept, held_out = latest_holdout(values[TIME], fraction, train.where, train.rows.place)
    elif ties:
        tie = f"the same {columns.group!r}" if GROUP in values else "a text"
        method = f"rows that share {tie} stay together, data.seed {seed}"
        kept, held_out = grouped_holdout(merged_groups(ties), fraction, seed, train.where)
    else:
        strata = task.strata(train.rows, train.where)
        method = f"{'stratified by label' if len(set(strata)) > 1 else 'drawn at random'}, data.seed {seed}"
        same = exact_groups(task.input_texts(train.rows))
        kept, held_out = holdout_together(same, strata, fraction, seed, task.strata_names(), train.where)
    share = len(held_out) / len(train.rows)
    notes.append(f"{name}: {len(held_out):,} rows ({share:.0%}) held out of the training rows, {method}")
    return train.take(kept), train.take(held_out, name)


def without_repeats(train: Split, task: Task, notes: list[str]) -> Split:
    """Drop all but the first of the rows with the same text and target."""
    same = exact_groups(task.input_texts(train.rows))
    seen: set[tuple[int, str]] = set()
    kept = []
    for row, first in enumerate(same.tolist()):
        key = (first, task.targets_of(train.rows, row))
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return _kept(train, kept, "repeat the text and label of another row", notes)


def without_copies(extra: Split, held_out: Sequence[Split], task: Task, notes: list[str]) -> Split:
    """Drop rows whose text is also the text of a held-out row."""
    texts = [*task.input_texts(extra.rows), *(text for split in held_out for text in task.input_texts(split.rows))]
    groups, number = exact_groups(texts), len(extra.rows)
    kept = np.flatnonzero(~np.isin(groups[:number], groups[number:]))
    if len(kept) < number:
        notes.append(f"{extra.name}: left out {number - len(kept):,} rows whose text is also a held-out text")
    return extra.take(kept.tolist())


def without_leaks(train: Split, others: Sequence[Split], task: Task, notes: list[str]) -> Split:
    """Drop training rows whose text repeats or nearly repeats a text of another split."""
    texts = (text for split in (train, *others) for text in compared_texts(split, task))
    duplicates, number = find(texts), len(train.rows)
    rows, held_out = np.arange(number), np.arange(number, len(duplicates.exact))
    is_copy = np.isin(duplicates.exact[:number], duplicates.exact[number:])
    is_near = duplicates.similar_to(rows, held_out) & ~is_copy
    strata, names = np.asarray(task.strata(train.rows, train.where)), task.strata_names()
    for stratum in np.unique(strata[is_near]):
        in_class = strata == stratum
        if (in_class & is_near).sum() > MAX_DROPPED_OF_CLASS * (in_class & ~is_copy).sum():
            # The texts of a template are all alike. Dropping them would leave little of the class to learn.
            of_class = f" of class {shown(names[stratum])}" if names else ""
            notes.append(
                f"data.drop_duplicates: kept {int((in_class & is_near).sum()):,} training rows{of_class} that are "
                f"near-duplicates of held-out rows, as they are more than {MAX_DROPPED_OF_CLASS:.0%} of "
                f"{'the class' if names else 'the rows'}"
            )
            is_near &= ~in_class
    kept = np.flatnonzero(~is_copy & ~is_near)
    if not len(kept):
        found = f"all {number:,} training rows repeat a held-out row, so none are left to train on"
        hint = "data.drop_duplicates=false, or other files"
        raise DataError(Problem(code="E104", where=train.where, found=found, hint=hint))
    return _kept(train, kept.tolist(), "repeat or nearly repeat a held-out row", notes)


def compared_texts(split: Split, task: Task) -> Sequence[str] | Any:
    """The text of each row that must not occur in two splits: that of its group, or all that the model reads."""
    groups = task.groups(split.rows)
    return task.input_texts(split.rows) if groups is None else groups


def _kept(train: Split, kept: Sequence[int], reason: str, notes: list[str]) -> Split:
    number = len(train.rows) - len(kept)
    if not number:
        return train
    notes.append(f"data.drop_duplicates: dropped {number:,} training rows that {reason}")
    return train.take(kept)
