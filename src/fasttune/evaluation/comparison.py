"""`fasttune compare`: are two finished runs of different quality, judged on the same rows?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fasttune.data.problems import counted
from fasttune.data.reading import TEST, VALIDATION
from fasttune.errors import DataError, EnvironmentProblem, Problem, UsageError
from fasttune.evaluation.own_split import read_own_split
from fasttune.evaluation.predictor import Predictor
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.runs.folder import RunFolder, open_run, read_json
from fasttune.tasks.metrics import intervals
from fasttune.tasks.metrics.sums import ANSWERS, CLASSES, ENTITIES, LABELS, TAGS, RowSums

SIGNIFICANT = 0.05
# Quantiles of the normal distribution for a test at 5 % that finds a true difference in 80 % of the cases.
QUANTILES = 1.96 + 0.84
DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile)  # what NumPy raises for such a file
MOST_ROWS = 10_000_000  # a larger estimate says only that there is no difference
# Kinds whose sums are counts per class: correct, predicted and true.
BY_CLASS = (CLASSES, LABELS, TAGS, ENTITIES)


@dataclass(frozen=True)
class Compared:
    """One metric of two runs on the same rows; `difference` is b - a, with its 95 % interval and two-sided p-value."""

    run_a: str
    run_b: str
    split: str
    num_rows: int
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    sentence: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(runs: Sequence[str | Path], split: str | None = None, log: Callable[[str], None] = print) -> list[Compared]:
    """Every metric of each further run beside the first one's; p-values of several are corrected by Holm's method.

    `split`: validation or test; by default test, if all runs have scored test rows. DataError if the runs have scored
    different rows, UsageError for fewer than two runs.
    """
    if len(runs) < 2:
        raise UsageError(Problem(where="compare", found=counted(len(runs), "run"), expected="at least two"))
    folders = [open_run(run) for run in runs]
    chosen = split or _common_split(folders)
    first, *others = (_row_sums(folder, chosen, log) for folder in folders)
    names = _names(folders)
    found: list[list[intervals.Difference]] = []
    for folder, other in zip(folders[1:], others, strict=True):
        found.append(intervals.differences(first, _aligned(first, other, folders[0], folder)))
    found = _corrected(found)
    compared = []
    for folder, name, differences in zip(folders[1:], names[1:], found, strict=True):
        for one in differences:
            compared.append(
                Compared(
                    run_a=str(folders[0].path),
                    run_b=str(folder.path),
                    split=chosen,
                    num_rows=len(first),
                    metric=one.metric,
                    a=one.a,
                    b=one.b,
                    difference=one.difference,
                    low=one.low,
                    high=one.high,
                    p_value=one.p_value,
                    sentence=sentence(one, names[0], name, len(first), first.kind == ANSWERS),
                )
            )
    return compared


def sentence(found: intervals.Difference, a: str, b: str, num_rows: int, in_percent: bool = False) -> str:
    """What a difference means, in words; `in_percent`: the metric is in 0..100."""
    in_unit = found.metric in ("rmse", "mae")
    scale = 1.0 if in_unit or in_percent else 100.0
    digits = 3 if in_unit else 1
    sign = -1.0 if found.difference < 0 and found.p_value < SIGNIFICANT else 1.0
    low, high = sorted((sign * scale * found.low, sign * scale * found.high))
    difference = sign * scale * found.difference
    unit = f" in {found.metric}" if in_unit else f" points of {found.metric}"
    p_value = f"p = {found.p_value:.3f}" if found.p_value >= 0.001 else "p < 0.001"
    interval = f"95 % interval {low:.{digits}f} to {high:.{digits}f}, {p_value}"
    if found.p_value < SIGNIFICANT:
        b_is_better = (found.difference > 0) != (found.metric in LESS_IS_BETTER)
        better, worse = (b, a) if b_is_better else (a, b)
        by = f"{difference:.{digits}f} lower" if found.metric in LESS_IS_BETTER else f"{difference:+.{digits}f} points"
        return f"{better} is better than {worse} by {found.metric}: {by} on these {num_rows:,} rows ({interval})."
    if found.difference == 0:
        return f"On these {num_rows:,} rows {a} and {b} have the same {found.metric} ({interval})."
    deviation = (found.high - found.low) / (2 * 1.96)
    needed = num_rows * (QUANTILES * deviation / abs(found.difference)) ** 2
    digits_kept = 10 ** max(int(math.log10(max(needed, 1))) - 1, 0)
    enough = f"{math.ceil(needed / digits_kept) * digits_kept:,}"
    rows = f"; if the true difference is this large, about {enough} such rows would show it in four of five cases"
    side = f"{b} minus {a}: {difference:+.{digits}f}{unit}"
    return (
        f"These {num_rows:,} rows do not show which of {a} and {b} is better by {found.metric} ({side}, {interval})"
        f"{rows if needed < MOST_ROWS else ''}."
    )


def _common_split(folders: Sequence[RunFolder]) -> str:
    scored = [read_json(folder.data_report)["splits"] for folder in folders]
    return TEST if all(TEST in splits for splits in scored) else VALIDATION


def _row_sums(folder: RunFolder, split: str, log: Callable[[str], None]) -> RowSums:
    """Those that the run kept; a run without them, as made by 0.1.0, scores its rows again."""
    path = folder.row_sums(split)
    if path.exists():
        try:
            with path.open("rb") as file:
                return RowSums.load(file)
        except DAMAGED as error:
            log(f"{path} is damaged ({error}): scoring the rows again")
    predictor = Predictor.open(folder.path)
    found = predictor.scored(read_own_split(predictor, split))[1]
    if found is None:
        where, what = f"run {folder.path}", f"its task, {predictor.task.name}, cannot be compared row by row"
        raise EnvironmentProblem(Problem(where=where, found=what, expected="a task with `row_sums`"))
    return found


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """The names of the folders, or their paths if two have the same."""
    names = [folder.path.resolve().name for folder in folders]
    return names if len({*names}) == len(names) else [str(folder.path) for folder in folders]


def _aligned(first: RowSums, other: RowSums, folder_a: RunFolder, folder_b: RunFolder) -> RowSums:
    """`other` with its rows and classes in the order of `first`; DataError if rows or labels differ."""

    def refuse(found: str, hint: str = "") -> DataError:
        where = f"compare {folder_a.path} {folder_b.path}"
        return DataError(Problem(code="E532", where=where, found=found, hint=hint))

    same_rows = f"fasttune evaluate {folder_b.path} --data FILE scores any rows, but compare needs the same ones"
    if first.kind != other.kind:
        raise refuse(f"one run predicts {first.kind}, the other {other.kind}")
    if first.keys is None or other.keys is None or len(first) != len(other):
        raise refuse(f"the runs scored {len(first):,} and {len(other):,} rows", same_rows)
    order = [np.argsort(sums.keys, kind="stable") for sums in (first, other) if sums.keys is not None]
    if not np.array_equal(first.keys[order[0]], other.keys[order[1]]):
        num_shared = int(np.isin(first.keys, other.keys).sum())
        raise refuse(f"only {num_shared:,} of the {len(first):,} scored rows are the same", same_rows)
    position = np.empty(len(first), dtype=np.int64)
    position[order[0]] = order[1]
    other = replace(other.take(position), clusters=first.clusters)
    if first.kind in BY_CLASS:
        first_names = [*first.names, *(name for name in other.names if name not in first.names)]
        if first.kind != ENTITIES and sorted(first.names) != sorted(other.names):
            raise refuse(f"labels {', '.join(first.names)} in one run and {', '.join(other.names)} in the other")
        other, num_names = _with_names(other, first_names), len(first_names)
        true = slice(2 * num_names, 3 * num_names)
        gold = [sums.values[:, true] for sums in (_with_names(first, first_names), other)]
    else:  # the number, or whether a question has an answer
        gold = [sums.values[:, 3] for sums in (first, other)]
    num_other = int(np.count_nonzero(np.asarray(abs(gold[0] - gold[1]).max(axis=1).todense()) > 1e-9))
    if num_other:
        raise refuse(f"{counted(num_other, 'row')} with the same text and another label")
    return other


def _with_names(sums: RowSums, names: Sequence[str]) -> RowSums:
    """The sums with their classes in this order; further ones have none."""
    from scipy import sparse

    rest = sums.values.shape[1] - 3 * len(sums.names)
    column = {name: number for number, name in enumerate(names)}
    targets = [part * len(names) + column[name] for part in range(3) for name in sums.names]
    targets += [3 * len(names) + number for number in range(rest)]
    shape = (sums.values.shape[1], 3 * len(names) + rest)
    move = sparse.csr_matrix((np.ones(len(targets), np.float32), (np.arange(len(targets)), targets)), shape=shape)
    return replace(sums, names=tuple(names), values=(sums.values @ move).tocsr())


def _corrected(found: list[list[intervals.Difference]]) -> list[list[intervals.Difference]]:
    """The p-values of each metric, corrected for the number of runs by Holm's method (1979)."""
    if len(found) == 1:
        return found
    by_metric: dict[str, list[tuple[int, int]]] = {}
    for run, differences in enumerate(found):
        for place, one in enumerate(differences):
            by_metric.setdefault(one.metric, []).append((run, place))
    corrected = [list(differences) for differences in found]
    for places in by_metric.values():
        largest = 0.0
        ranked = sorted(places, key=lambda place: found[place[0]][place[1]].p_value)
        for rank, (run, place) in enumerate(ranked):
            largest = max(largest, min(1.0, (len(ranked) - rank) * found[run][place].p_value))
            corrected[run][place] = replace(found[run][place], p_value=largest)
    return corrected
