"""Which of the rows of a run go where: held-out splits, samples, and rows that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.duplicates import exact_groups, find
from fasttune.data.rows import Rows
from fasttune.data.splits import grouped_holdout, holdout_together, latest_holdout, sample, united
from fasttune.data.tokens.cache import sha256_of
from fasttune.errors import DataError, Problem, shown
from fasttune.recipe import Recipe

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

GROUP, TIME = "group", "time"
MOST_OF_A_CLASS = 0.5  # of its training rows may go as near copies of held-out ones


@dataclass(frozen=True)
class Split:
    """The rows of one split, or with `is_sample` some rows of a stream.

    `where` names their source in messages, `licence` is what its card says (Source). `read_as`: which split of the
    source they are, and `positions` which rows of that; None: all of them.
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
        """Of what the task reads of these rows."""
        roles = {column.role for column in task.columns}
        return sha256_of({role: column for role, column in self.rows.values.items() if role in roles})

    def limited(self, limit: int | None, seed: int, notes: list[str]) -> Split:
        if limit is None or limit >= len(self.rows):
            return self
        notes.append(f"{self.name}: {limit:,} of {len(self.rows):,} rows, drawn with data.seed {seed}")
        return self.take(sample(len(self.rows), limit, seed))


def hold_out(
    train: Split, name: str, fraction: float, task: Task, recipe: Recipe, notes: list[str]
) -> tuple[Split, Split]:
    """Training rows, and rows held out of them as the split `name`: a `fraction` of them, chosen as the recipe says."""
    seed, columns, values = recipe.data.seed, recipe.data.columns, train.rows.values
    ties = [groups for groups in (values.get(GROUP), task.groups(train.rows)) if groups is not None]
    if TIME in values:
        how = f"the latest by column {columns.time!r}"
        kept, held_out = latest_holdout(values[TIME], fraction, train.where, train.rows.place)
    elif ties:
        named = f"the same {columns.group!r}" if GROUP in values else "a text"
        how = f"rows that share {named} on one side, data.seed {seed}"
        kept, held_out = grouped_holdout(united(ties), fraction, seed, train.where)
    else:
        strata = task.strata(train.rows, train.where)
        how = f"{'stratified by label' if len(set(strata)) > 1 else 'drawn at random'}, data.seed {seed}"
        same = exact_groups(task.input_texts(train.rows))
        kept, held_out = holdout_together(same, strata, fraction, seed, task.strata_names(), train.where)
    notes.append(
        f"{name}: {len(held_out):,} rows ({len(held_out) / len(train.rows):.0%}) held out of the training rows, {how}"
    )
    return train.take(kept), train.take(held_out, name)


def without_repeats(train: Split, task: Task, notes: list[str]) -> Split:
    """All but the first of the rows with the same text and target are left out."""
    same = exact_groups(task.input_texts(train.rows))
    seen: set[tuple[int, str]] = set()
    kept = []
    for row, first in enumerate(same.tolist()):
        key = (first, task.targets_of(train.rows, row))
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return _left_out(train, kept, "repeat the text and label of another", notes)


def without_leaks(train: Split, others: Sequence[Split], task: Task, notes: list[str]) -> Split:
    """Training rows whose text stands in another split, word for word or nearly, are left out."""
    texts = (text for split in (train, *others) for text in compared_texts(split, task))
    duplicates, number = find(texts), len(train.rows)
    rows, held_out = np.arange(number), np.arange(number, len(duplicates.exact))
    is_copy = np.isin(duplicates.exact[:number], duplicates.exact[number:])
    is_near = duplicates.similar_to(rows, held_out) & ~is_copy
    strata, names = np.asarray(task.strata(train.rows, train.where)), task.strata_names()
    for stratum in np.unique(strata[is_near]):
        own = strata == stratum
        if (own & is_near).sum() > MOST_OF_A_CLASS * (own & ~is_copy).sum():
            # Texts of one template are all alike: without them nothing of the class would be left to learn.
            what = f"of class {shown(names[stratum])} " if names else ""
            notes.append(
                f"data.drop_duplicates: {int((own & is_near).sum()):,} training rows {what}are kept though they are "
                f"nearly the same as held-out rows: they are more than {MOST_OF_A_CLASS:.0%} of it"
            )
            is_near &= ~own
    kept = np.flatnonzero(~is_copy & ~is_near)
    if not len(kept):
        found = f"all {number:,} training rows in a held-out split, too"
        hint = "data.drop_duplicates=false, or other files"
        raise DataError(Problem(code="E104", where=train.where, found=found, expected="rows to train on", hint=hint))
    return _left_out(train, kept.tolist(), "stand in a held-out split too, word for word or nearly", notes)


def compared_texts(split: Split, task: Task) -> Sequence[str] | Any:
    """Of each row the text that must not stand in two splits: what its rows share, or all that is read."""
    groups = task.groups(split.rows)
    return task.input_texts(split.rows) if groups is None else groups


def _left_out(train: Split, kept: Sequence[int], why: str, notes: list[str]) -> Split:
    number = len(train.rows) - len(kept)
    if not number:
        return train
    notes.append(f"data.drop_duplicates: {number:,} training rows left out that {why}")
    return train.take(kept)
