"""What is doubtful about the rows of a run, though it can be learned from: said before a single step, and stored.

An error stops a run; a warning is up to the user. Each names rows, and the setting or the change that ends it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.duplicates import SIMILAR, Duplicates, find
from fasttune.data.holdout import Split, compared_texts
from fasttune.data.label_kinds import SINGLE
from fasttune.data.labels import is_number
from fasttune.data.personal import rows_with
from fasttune.data.problems import counted, some_of
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import Problem, shown

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

NOT_FOR_ALL = re.compile(r"(^|-)nc(-|$)|other|unknown", re.IGNORECASE)  # as the hub names licences
DROP = "data.drop_duplicates=true"
MOST_LISTED = 1000  # rows of one finding in data_report.json
FEW_ROWS_FOR_ORDER = 20  # so many labels in rising order are no accident
RARE_SHARE = 0.01  # of the rows of the most frequent label
CUT_SHARE = 0.05  # of the rows
UNKNOWN_SHARE = 0.02  # of the tokens; English reviews have less than 0.001


@dataclass
class Audit:
    """`warnings` in words; `entries`: the same with all rows and counts, for data_report.json."""

    warnings: list[Problem] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: str, where: str, found: str, expected: str, hint: str = "", **details: Any) -> None:
        problem = Problem(code=code, where=where, found=found, expected=expected, hint=hint)
        self.warnings.append(problem)
        self.entries.append({**asdict(problem), **details})

    def add_rows(self, code: str, split: Split, rows: Sequence[int], found: str, expected: str, hint: str) -> None:
        """A warning about these rows, if there are any; the first few of them are named behind `found`."""
        if len(rows):
            listed = [split.rows.place(int(row)) for row in rows[:MOST_LISTED]]
            self.add(code, _where(split), f"{found} ({some_of(listed)})", expected, hint, rows=listed)


def _where(split: Split) -> str:
    return f"{split.name} ({split.where})"


def audit_rows(splits: Sequence[Split], task: Task) -> Audit:
    """What texts and labels show by themselves, before any model is loaded."""
    audit = Audit()
    names = {split.name: split for split in splits}
    duplicates = find(text for split in splits for text in compared_texts(split, task))
    parts = np.cumsum([0, *(len(split.rows) for split in splits)])
    ranges = {split.name: np.arange(*bounds) for split, bounds in zip(splits, pairwise(parts), strict=True)}
    own = {name: Duplicates(duplicates.exact[rows], duplicates.near[rows]) for name, rows in ranges.items()}
    for later, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if later in names and earlier in names:
            similar = duplicates.similar_to(ranges[later], ranges[earlier])
            _leakage(audit, names[later], own[later], names[earlier], own[earlier], similar)
    for split in splits:
        if task.groups(split.rows) is None:
            _repeats(audit, split, own[split.name], task)
        _texts(audit, split, task)
    _labels(audit, splits[0], task)
    _absent(audit, splits, task)
    _licence(audit, splits[0])
    return audit


def _licence(audit: Audit, train: Split) -> None:
    """Where a card should say how the rows may be used."""
    if train.licence is None or (train.licence and not NOT_FOR_ALL.search(train.licence)):
        return
    audit.add(
        "W265",
        _where(train),
        f"licence {train.licence}" if train.licence else "a card that names no licence",
        "a licence that allows what you have in mind: a model inherits the limits of its data",
        "ask the author of the data",
    )


def _leakage(
    audit: Audit, later: Split, of_later: Duplicates, earlier: Split, of_earlier: Duplicates, similar: np.ndarray
) -> None:
    """`similar`: the rows of `later` that are the same as one of `earlier`, or similar to it."""
    exact = np.isin(of_later.exact, of_earlier.exact)
    near = similar & ~exact
    if not exact.any() and not near.any():
        return
    rows = np.flatnonzero(exact | near)
    twins = [_first(of_earlier.near, of_later.near[row]) for row in rows[:MOST_LISTED]]
    pairs = [(later.rows.place(int(row)), earlier.rows.place(twin)) for row, twin in zip(rows, twins, strict=False)]
    found = (
        f"{counted(int(exact.sum()), 'row')} whose text is in {earlier.name} too, {near.sum():,} nearly so "
        f"({some_of([f'{row} as {twin}' for row, twin in pairs])})"
    )
    audit.add(
        "W250",
        _where(later),
        found,
        f"rows that {earlier.name} does not have: scores on these say little",
        DROP if earlier.name == "train" and not earlier.is_sample else "take them out of one of the two files",
        num_exact=int(exact.sum()),
        num_near=int(near.sum()),
        similarity=SIMILAR,
        rows=pairs,
    )


def _first(groups: np.ndarray, group: int) -> int:
    return int(np.flatnonzero(groups == group)[0])


def _repeats(audit: Audit, split: Split, own: Duplicates, task: Task) -> None:
    """Rows of one split with the same text: with the same target repeated, with another one in conflict."""
    numbers, counts = np.unique(own.exact, return_counts=True)
    rows_of: dict[int, list[int]] = {int(number): [] for number in numbers[counts > 1]}
    for row in np.flatnonzero(np.isin(own.exact, numbers[counts > 1])).tolist():
        rows_of[int(own.exact[row])].append(row)
    num_repeated, repeated, conflicts = 0, [], []
    for rows in rows_of.values():
        targets: dict[str, list[int]] = {}
        for row in rows:
            targets.setdefault(task.targets_of(split.rows, row), []).append(row)
        num_repeated += sum(len(same) - 1 for same in targets.values())
        repeated += [rows for rows in targets.values() if len(rows) > 1]
        if len(targets) > 1:
            conflicts.append([same[0] for same in targets.values()])
    where = _where(split)
    if conflicts:
        listed = _places(split, conflicts)
        audit.add(
            "W251",
            where,
            f"{counted(len(conflicts), 'text')} with different labels ({some_of(listed)})",
            "one label for a text: of two at least one is wrong",
            "correct these rows, or take them out",
            rows=listed,
        )
    if repeated:
        listed = _places(split, repeated)
        audit.add(
            "W258",
            where,
            f"{counted(num_repeated, 'row')} that repeat another, text and label ({some_of(listed)})",
            "each row once, unless it is to count more",
            DROP if split.name == "train" and not split.is_sample else "",
            num_rows=num_repeated,
            rows=listed,
        )


def _places(split: Split, groups: list[list[int]]) -> list[str]:
    return [" = ".join(split.rows.place(row) for row in rows[:3]) for rows in groups[:MOST_LISTED]]


def _texts(audit: Audit, split: Split, task: Task) -> None:
    for kind, rows in rows_with(task.input_texts(split.rows)).items():
        audit.add_rows(
            "W264",
            split,
            rows,
            f"{kind} in {counted(len(rows), 'row')}",
            "texts without personal data, unless you may use it: a model can give away what it was shown",
            "replace them before training",
        )
    apart = [row for row, text in enumerate(task.input_texts(split.rows)) if not unicodedata.is_normalized("NFC", text)]
    audit.add_rows(
        "W263",
        split,
        apart,
        f"{counted(len(apart), 'text')} with letters and accents written apart",
        "one form for the same letter (NFC), or the tokenizer takes it for two",
        "unicodedata.normalize('NFC', text) where the file is made",
    )
    texts, others = split.rows.values.get("text", ()), split.rows.values.get("text_pair")
    same = (
        []
        if others is None
        else [row for row, pair in enumerate(zip(texts, others, strict=True)) if pair[0] == pair[1]]
    )
    audit.add_rows(
        "W231",
        split,
        same,
        f"{counted(len(same), 'pair')} of a text and itself",
        "two different texts",
        "take these rows out if they are a slip",
    )


def _labels(audit: Audit, train: Split, task: Task) -> None:
    role = next(column.role for column in task.columns if column.is_target)
    values = train.rows.values[role]
    where = _where(train)
    if not all(isinstance(value, str) for value in values):
        return
    if len(values) >= FEW_ROWS_FOR_ORDER and all(map(is_number, values)) and _in_order(values):
        audit.add(
            "W219",
            where,
            f"labels that rise or fall with every row: {', '.join(values[:3])} ... {values[-1]}",
            "labels that say something of the text: these look like row numbers or times",
            f"data.columns.{role}=...",
        )
        return
    counts = Counter(values)
    (_, most), (rare, least) = counts.most_common(1)[0], min(counts.items(), key=lambda item: item[1])
    if task.settings().get("problem") == SINGLE and least < RARE_SHARE * most:
        audit.add(
            "W262",
            where,
            f"{counted(least, 'row')} of {shown(rare)} beside {most:,} of the most frequent label",
            f"at least {RARE_SHARE:.0%} of that to learn a label well",
            "training.class_weights=balanced, or more rows of it",
            counts=dict(counts.most_common()),
        )


def _absent(audit: Audit, splits: Sequence[Split], task: Task) -> None:
    """Labels that a split by group or time has left to one side."""
    role = next(column.role for column in task.columns if column.is_target)
    if task.settings().get("problem") != SINGLE:
        return
    train, *others = splits
    learned = set(task.strata(train.rows, train.where))  # classes: two values may have one name
    for split in others:
        classes = task.strata(split.rows, split.where)
        values = zip(split.rows.values[role], classes, strict=True)
        counts = Counter(value for value, number in values if number not in learned)
        if counts:
            listed = some_of([f"{shown(value)} in {counted(number, 'row')}" for value, number in counts.items()])
            audit.add(
                "W266",
                _where(split),
                f"labels that no training row has: {listed}",
                "every label among the training rows: no prediction can be one that was never shown",
                "another data.columns.group or data.columns.time, or splits of your own",
                counts=dict(counts),
            )


def _in_order(values: Sequence[str]) -> bool:
    steps = np.diff([float(value) for value in values])
    return bool((steps > 0).all() or (steps < 0).all())


def audit_tokens(audit: Audit, split: Split, store: TokenStore, task: Task, unknown: int | None) -> None:
    """What shows in the tokens: lengths, unknown ones, answers out of reach. `unknown`: that token of the tokenizer."""
    where = _where(split)
    cut = store.num_tokens_cut
    share = float((cut > 0).mean())
    if share >= CUT_SHARE:
        num_cut, longest = int(cut.sum()), int(store.lengths.max())
        audit.add(
            "W253",
            where,
            f"{share:.0%} of the texts longer than the model reads: {num_cut:,} of {num_cut + store.num_tokens:,} "
            "tokens are lost",
            f"texts of at most {longest} tokens",
            f"{task.hint_for_long}; preprocessing.max_length={2 * longest} where the model has room",
            share=share,
            num_tokens=num_cut,
        )
    rate = store.share_of(unknown)
    if rate >= UNKNOWN_SHARE:
        audit.add(
            "W254",
            where,
            f"{rate:.1%} of the tokens unknown to the model's tokenizer",
            f"less than {UNKNOWN_SHARE:.0%}: texts in the language and with the signs of the model",
            "model=FacebookAI/xlm-roberta-base (100 languages)",
            share=rate,
        )
    lost = task.unanswerable(store)
    audit.add_rows(
        "W246",
        split,
        lost,
        f"{counted(len(lost), 'answer')} that cannot be given, because no window holds it or it is longer than "
        "evaluation.max_answer_length",
        "answers that the model can point to",
        "a larger evaluation.max_answer_length or preprocessing.max_length",
    )
