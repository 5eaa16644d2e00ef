"""Warnings about the rows of a run, shown before the first step and stored in data_report.json.

Errors stop a run; a warning leaves the decision to the user. Each warning names its consequence, some of the rows and,
if there is one, the setting that ends it. A finding too small to matter is stored, but not shown.
"""

from __future__ import annotations

import math
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
from fasttune.data.label_kinds import ORDINAL, SINGLE
from fasttune.data.labels import is_number
from fasttune.data.personal import rows_with
from fasttune.data.problems import counted, some_of
from fasttune.data.reading import TRAIN
from fasttune.data.tokens.language import split_into_pieces
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import Problem, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fasttune.tasks.base import Task

RESTRICTED = re.compile(r"(^|-)nc(-|$)|other|unknown", re.IGNORECASE)  # licence ids of the hub
DROP = "data.drop_duplicates=true"
MAX_LISTED = 1000  # rows of one finding in data_report.json
PAIRS_SHOWN = 3
MIN_ROWS_FOR_ORDER = 20  # this many labels in rising or falling order are no accident
NEAR_SHARE = 0.05  # of the rows, or less if the split is large: see `_is_noise`
RARE_SHARE = 0.01  # of the rows of the most frequent label
CUT_SHARE = 0.05  # of the rows
UNKNOWN_SHARE = 0.02  # of the tokens; English reviews have less than 0.001


@dataclass
class Audit:
    """What the checks found.

    `warnings` are shown; `entries` are the same with all rows and counts, for data_report.json. `observations` have
    the form of `entries` and are too small to be a warning.
    """

    warnings: list[Problem] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    observations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: str, where: str, found: str, hint: str = "", **details: Any) -> None:
        problem = Problem(code=code, where=where, found=found, hint=hint)
        self.warnings.append(problem)
        self.entries.append({**asdict(problem), **details})

    def observe(self, code: str, where: str, found: str, **details: Any) -> None:
        self.observations.append({**asdict(Problem(code=code, where=where, found=found)), **details})

    def add_rows(self, code: str, split: Split, rows: Sequence[int], found: str, consequence: str, hint: str) -> None:
        """Warn about these rows, if there are any; the first few are named between `found` and `consequence`."""
        if len(rows):
            listed = [split.rows.place(int(row)) for row in rows[:MAX_LISTED]]
            self.add(code, _where(split), f"{found} ({some_of(listed)}){consequence}", hint, rows=listed)


def _where(split: Split) -> str:
    return f"{split.name} ({split.where})"


def audit_rows(splits: Sequence[Split], task: Task) -> Audit:
    """Check texts and labels; needs no tokenizer and no model."""
    audit = Audit()
    by_name = {split.name: split for split in splits}
    duplicates = find(text for split in splits for text in compared_texts(split, task))
    bounds = np.cumsum([0, *(len(split.rows) for split in splits)])
    ranges = {split.name: np.arange(*pair) for split, pair in zip(splits, pairwise(bounds), strict=True)}
    within = {name: Duplicates(duplicates.exact[rows], duplicates.near[rows]) for name, rows in ranges.items()}
    for later, earlier in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if later in by_name and earlier in by_name:
            similar = duplicates.similar_to(ranges[later], ranges[earlier])
            _leakage(audit, by_name[later], within[later], by_name[earlier], within[earlier], similar)
    for split in splits:
        if task.groups(split.rows) is None:
            _repeats(audit, split, within[split.name], task)
        _texts(audit, split, task)
    _labels(audit, splits[0], task)
    _labels_without_training_rows(audit, splits, task)
    _licence(audit, splits[0])
    return audit


def _licence(audit: Audit, train: Split) -> None:
    """Warn if the card of the data restricts their use, or names no licence; None means that there is no card."""
    if train.licence is None or (train.licence and not RESTRICTED.search(train.licence)):
        return
    if train.licence:
        found = f"licence {train.licence}: its restrictions may extend to the model"
    else:
        found = "the dataset card names no licence: you may not be allowed to use the data"
    audit.add("W265", _where(train), found, "ask the author of the data")


def _leakage(
    audit: Audit, later: Split, of_later: Duplicates, earlier: Split, of_earlier: Duplicates, similar: np.ndarray
) -> None:
    """`similar`: the rows of `later` that are the same as one of `earlier`, or similar to it."""
    exact = np.isin(of_later.exact, of_earlier.exact)
    near = similar & ~exact
    num_exact, num_near = int(exact.sum()), int(near.sum())
    if not num_exact and not num_near:
        return
    rows = np.flatnonzero(similar | exact)
    twins = [_first(of_earlier.near, of_later.near[row]) for row in rows[:MAX_LISTED]]
    pairs = [(later.rows.place(int(row)), earlier.rows.place(twin)) for row, twin in zip(rows, twins, strict=False)]
    clauses = []
    if num_exact:
        clauses.append(
            f"{counted(num_exact, 'row')} {'repeats' if num_exact == 1 else 'repeat'} a text of {earlier.name}"
        )
    if num_near:
        verb = "is a near-duplicate" if num_near == 1 else "are near-duplicates"
        clauses.append(f"{counted(num_near, 'row')} {verb} of {earlier.name} rows")
    listed = some_of([f"{row} of {twin}" for row, twin in pairs], PAIRS_SHOWN)
    found = f"{' and '.join(clauses)} ({listed})"
    details = {"num_exact": num_exact, "num_near": num_near, "similarity": SIMILAR, "rows": pairs}
    if not num_exact and _is_noise(num_near, len(later.rows)):
        audit.observe("W250", _where(later), found, **details)
        return
    is_droppable = earlier.name == "train" and not earlier.is_sample
    hint = DROP if is_droppable else f"remove them from {later.name} or {earlier.name}"
    audit.add("W250", _where(later), f"{found}: the score may be optimistic", hint, **details)


def _is_noise(num_near: int, num_rows: int) -> bool:
    """Whether so few near-duplicates cannot be seen in a score.

    A model that has memorised them gains at most their share in accuracy. The 95 % confidence interval of an accuracy
    on N rows is at most 1 / sqrt(N) to either side, so a smaller gain disappears in the sampling error. That interval
    is wide for a small split; there the limit is NEAR_SHARE.
    """
    return num_near / num_rows < min(NEAR_SHARE, 1 / math.sqrt(num_rows))


def _first(groups: np.ndarray, group: int) -> int:
    return int(np.flatnonzero(groups == group)[0])


def _repeats(audit: Audit, split: Split, duplicates: Duplicates, task: Task) -> None:
    """Warn about rows of one split with the same text: repeats if their targets agree, conflicts if they differ."""
    numbers, counts = np.unique(duplicates.exact, return_counts=True)
    rows_of: dict[int, list[int]] = {int(number): [] for number in numbers[counts > 1]}
    for row in np.flatnonzero(np.isin(duplicates.exact, numbers[counts > 1])).tolist():
        rows_of[int(duplicates.exact[row])].append(row)
    num_repeated, repeated, conflicts = 0, [], []
    for rows in rows_of.values():
        targets: dict[str, list[int]] = {}
        for row in rows:
            targets.setdefault(task.targets_of(split.rows, row), []).append(row)
        num_repeated += sum(len(same) - 1 for same in targets.values())
        repeated += [rows for rows in targets.values() if len(rows) > 1]
        if len(targets) > 1:
            conflicts.append([same[0] for same in targets.values()])
    if conflicts:
        listed = _places(split, conflicts)
        verb = "has" if len(conflicts) == 1 else "have"
        audit.add(
            "W251",
            _where(split),
            f"{counted(len(conflicts), 'text')} {verb} conflicting labels ({some_of(listed, PAIRS_SHOWN)}): "
            "no prediction can match them all",
            "correct or remove these rows",
            rows=listed,
        )
    if repeated:
        listed = _places(split, repeated)
        verb, consequence = ("repeats", "it counts") if num_repeated == 1 else ("repeat", "they count")
        audit.add(
            "W258",
            _where(split),
            f"{counted(num_repeated, 'row')} {verb} the text and label of another "
            f"({some_of(listed, PAIRS_SHOWN)}): {consequence} again",
            DROP if split.name == "train" and not split.is_sample else "",
            num_rows=num_repeated,
            rows=listed,
        )


def _places(split: Split, groups: list[list[int]]) -> list[str]:
    return [" = ".join(split.rows.place(row) for row in rows[:3]) for rows in groups[:MAX_LISTED]]


def _texts(audit: Audit, split: Split, task: Task) -> None:
    for kind, rows in rows_with(task.input_texts(split.rows)).items():
        audit.add_rows(
            "W264",
            split,
            rows,
            f"{kind} in {counted(len(rows), 'row')}",
            ": a model can reveal personal data that it was trained on",
            "mask them before training",
        )
    decomposed = [
        row for row, text in enumerate(task.input_texts(split.rows)) if not unicodedata.is_normalized("NFC", text)
    ]
    audit.add_rows(
        "W263",
        split,
        decomposed,
        f"{counted(len(decomposed), 'text')} {'is' if len(decomposed) == 1 else 'are'} not in Unicode form NFC",
        ": the tokenizer may read a letter and its accent as two characters",
        "write the file with unicodedata.normalize('NFC', text)",
    )
    first, second = split.rows.values.get("text", ()), split.rows.values.get("text_pair")
    identical: list[int] = []
    if second is not None:
        identical = [row for row, (text, other) in enumerate(zip(first, second, strict=True)) if text == other]
    audit.add_rows(
        "W231",
        split,
        identical,
        f"{counted(len(identical), 'pair')} with two identical texts",
        ": the model has nothing to compare",
        "remove these rows if they are a mistake",
    )


def _labels(audit: Audit, train: Split, task: Task) -> None:
    role = next(column.role for column in task.columns if column.is_target)
    values = train.rows.values[role]
    if not all(isinstance(value, str) for value in values):
        return
    if len(values) >= MIN_ROWS_FOR_ORDER and all(map(is_number, values)) and _in_order(values):
        audit.add(
            "W219",
            _where(train),
            f"labels rise or fall with every row ({', '.join(values[:3])} ... {values[-1]}): they look like row "
            "numbers or times, which no text predicts",
            f"data.columns.{role}=...",
        )
        return
    counts = Counter(values)
    num_frequent = counts.most_common(1)[0][1]
    rare, num_rare = min(counts.items(), key=lambda item: item[1])
    if task.settings().get("problem") in (SINGLE, ORDINAL) and num_rare < RARE_SHARE * num_frequent:
        audit.add(
            "W262",
            _where(train),
            f"label {shown(rare)} has {counted(num_rare, 'row')}, the most frequent label {num_frequent:,}: "
            f"the model may never predict {shown(rare)}",
            "training.class_weights=balanced, or add rows with this label",
            counts=dict(counts.most_common()),
        )


def _labels_without_training_rows(audit: Audit, splits: Sequence[Split], task: Task) -> None:
    """Warn about labels that a split by group or time has left without training rows."""
    role = next(column.role for column in task.columns if column.is_target)
    if task.settings().get("problem") not in (SINGLE, ORDINAL):
        return
    train, *held_out = splits
    learned = set(task.strata(train.rows, train.where))  # classes: data.label_names may give two labels one class
    for split in held_out:
        classes = task.strata(split.rows, split.where)
        values = zip(split.rows.values[role], classes, strict=True)
        counts = Counter(value for value, number in values if number not in learned)
        if counts:
            listed = some_of([f"{shown(value)} ({counted(number, 'row')})" for value, number in counts.items()])
            audit.add(
                "W266",
                _where(split),
                f"{'label' if len(counts) == 1 else 'labels'} {listed} without training rows: the model cannot predict "
                f"{'it' if len(counts) == 1 else 'them'}",
                "choose another data.columns.group or data.columns.time, or give the splits yourself",
                counts=dict(counts),
            )


def _in_order(values: Sequence[str]) -> bool:
    steps = np.diff([float(value) for value in values])
    return bool((steps > 0).all() or (steps < 0).all())


def audit_tokens(audit: Audit, split: Split, store: TokenStore, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check what only tokens show: truncation, unknown tokens, a foreign language, answers that cannot be predicted."""
    cut = store.num_tokens_cut
    share = float((cut > 0).mean())
    if share >= CUT_SHARE:
        num_cut, longest = int(cut.sum()), int(store.lengths.max())
        audit.add(
            "W253",
            _where(split),
            f"{share:.0%} of the texts are truncated to {longest} tokens: {num_cut:,} of "
            f"{num_cut + store.num_tokens:,} tokens are lost",
            f"{task.hint_for_long}; preprocessing.max_length={2 * longest} if the model allows it",
            share=share,
            num_tokens=num_cut,
        )
    rate = store.share_of(tokenizer.unk_token_id)
    if rate >= UNKNOWN_SHARE:
        audit.add(
            "W254",
            _where(split),
            f"{rate:.1%} of the tokens are unknown to the tokenizer: the model cannot tell them apart",
            "model=FacebookAI/xlm-roberta-base (100 languages)",
            share=rate,
        )
    foreign = split_into_pieces(task.input_texts(split.rows), tokenizer) if split.name == TRAIN else ""
    if foreign:
        audit.add("W267", _where(split), foreign, "model=FacebookAI/xlm-roberta-base (100 languages)")
    rows = task.unanswerable(store)
    audit.add_rows(
        "W246",
        split,
        rows,
        f"{counted(len(rows), 'answer')} can never be predicted",
        ": longer than evaluation.max_answer_length, or in no window",
        "a larger evaluation.max_answer_length or preprocessing.max_length",
    )
