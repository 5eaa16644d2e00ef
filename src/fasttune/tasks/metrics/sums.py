"""Metrics as functions of sums over rows, so that they can be computed again for many samples of the rows.

Every metric of the tasks is one: F1 is a ratio of counts per class, a mean over answers is a sum. Letters: N rows, M
sums, K classes, labels or entity types; "..." stands for any number of samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from scipy import sparse

Measures = dict[str, np.ndarray]  # metric -> (...)
CLASSES, LABELS, TAGS, ENTITIES, ANSWERS, NUMBERS = "classes", "labels", "tags", "entities", "answers", "numbers"


@dataclass(frozen=True)
class RowSums:
    """What each row adds to the sums, (N, M); `kind` says what they mean.

    `names`: the K names of classes, labels or types. `metrics`: those to compute. `clusters` (N,) int64: rows that
    belong together, such as the questions about one text; None if each stands alone. `keys` (N,) uint64: a hash of
    each row's content.
    """

    kind: str
    names: tuple[str, ...]
    metrics: tuple[str, ...]
    values: sparse.csr_matrix
    clusters: np.ndarray | None = None
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def measure(self, sums: np.ndarray | None = None) -> Measures:
        """The metrics of these `sums` (..., M), of all rows by default."""
        if sums is None:
            sums = np.asarray(self.values.sum(axis=0), dtype=np.float64).ravel()
        every = _KINDS[self.kind](np.asarray(sums, dtype=np.float64), len(self.names))
        return {name: values for name, values in every.items() if _belongs(name, self.metrics)}

    def take(self, rows: np.ndarray) -> RowSums:
        """The sums of these rows, in this order."""
        clusters = None if self.clusters is None else self.clusters[rows]
        keys = None if self.keys is None else self.keys[rows]
        return RowSums(self.kind, self.names, self.metrics, self.values[rows], clusters, keys)

    def errors(self) -> np.ndarray:
        """(N,) how wrong each row is: 0 for a correct one, 1 for a wrong one; of numbers, the distance.

        Of labels and entities 1 - F1 of the row, of tags the share of wrong ones, of answers 1 - F1 of the answer.
        """
        values, num_names = self.values.tocsc(), len(self.names)

        def total(first: int, stop: int) -> np.ndarray:
            return np.asarray(values[:, first:stop].sum(axis=1), dtype=np.float64).ravel()

        if self.kind == NUMBERS:
            return total(1, 2)
        if self.kind == ANSWERS:
            return 1 - total(2, 3)
        correct, predicted, gold = (total(part * num_names, (part + 1) * num_names) for part in range(3))
        if self.kind in (LABELS, ENTITIES):
            return np.where(predicted + gold > 0, 1 - _ratio(2 * correct, predicted + gold), 0.0)
        return 1 - _ratio(correct, gold)

    def confusions(self) -> np.ndarray:
        """(K, K) int64 of CLASSES: the rows of each true class (first axis) by predicted class."""
        num_names = len(self.names)
        predicted, gold = (self.values[:, part * num_names : (part + 1) * num_names] for part in (1, 2))
        return np.asarray((gold.T @ predicted).todense()).astype(np.int64)

    def by_name(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K,) int64 correct, predicted and true ones of each class, label or type."""
        totals = np.asarray(self.values.sum(axis=0)).ravel()[: 3 * len(self.names)]
        correct, predicted, gold = np.split(np.rint(totals).astype(np.int64), 3)
        return correct, predicted, gold

    def save(self, file: BinaryIO) -> None:
        """Write an .npz file without pickle."""
        about = json.dumps({"kind": self.kind, "names": self.names, "metrics": self.metrics})
        arrays = {"data": self.values.data, "indices": self.values.indices, "indptr": self.values.indptr}
        arrays |= {"shape": np.array(self.values.shape), "about": np.frombuffer(about.encode(), dtype=np.uint8)}
        optional = {"clusters": self.clusters, "keys": self.keys}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, file: BinaryIO) -> RowSums:
        """Read a file of `save`; raises what NumPy and zipfile raise if it is damaged."""
        with np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            shape = tuple(arrays["shape"].tolist())
            values = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
            optional = {name: arrays.get(name) for name in ("clusters", "keys")}
        return cls(about["kind"], tuple(about["names"]), tuple(about["metrics"]), values, **optional)


def of_classes(gold: np.ndarray, predicted: np.ndarray, names: Sequence[str], metrics: Sequence[str]) -> RowSums:
    """Of (N,) classes in 0..K-1; a prediction below 0 is none of them."""
    counts = _counts(_one_hot(gold, names), _one_hot(predicted, names))
    distance = np.where(predicted >= 0, np.abs(gold - predicted), 0)
    distances = np.stack([distance, np.square(distance)], axis=1)
    values = sparse.hstack([counts, distances], format="csr", dtype=np.float32)
    return RowSums(CLASSES, tuple(names), tuple(metrics), values)


def of_labels(gold: np.ndarray, predicted: np.ndarray, names: Sequence[str], metrics: Sequence[str]) -> RowSums:
    """Of (N, K) bool: which labels a row has, and which are predicted."""
    counts = _counts(sparse.csr_matrix(gold, dtype=np.float32), sparse.csr_matrix(predicted, dtype=np.float32))
    whole = np.stack([(gold == predicted).all(axis=1), np.ones(len(gold))], axis=1)
    return RowSums(LABELS, tuple(names), tuple(metrics), sparse.hstack([counts, whole], format="csr", dtype=np.float32))


def of_answers(
    exact: np.ndarray, f1: np.ndarray, has_answer: np.ndarray, metrics: Sequence[str], clusters: np.ndarray
) -> RowSums:
    """Of (N,) scores in 0..1 of the answers to questions with and without one."""
    subsets = (np.ones(len(exact)), has_answer.astype(float), 1.0 - has_answer)
    columns = [column * subset for subset in subsets for column in (np.ones(len(exact)), exact, f1)]
    values = sparse.csr_matrix(np.stack(columns, axis=1), dtype=np.float64)
    return RowSums(ANSWERS, (), tuple(metrics), values, clusters)


def of_tags(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], names: Sequence[str], metrics: Sequence[str]
) -> RowSums:
    """Of the tags of N rows, which are classes in rows of different lengths."""
    number_of = {name: number for number, name in enumerate(names)}
    row = np.repeat(np.arange(len(gold)), [len(tags) for tags in gold])
    classes = [np.array([number_of.get(tag, -1) for tags in side for tag in tags]) for side in (gold, predicted)]
    of_tags = of_classes(classes[0], classes[1], names, metrics)
    member = sparse.csr_matrix((np.ones(len(row), np.float32), (row, np.arange(len(row)))), shape=(len(gold), len(row)))
    return replace(of_tags, kind=TAGS, values=(member @ of_tags.values).tocsr())


def numbered(groups: Sequence[Any]) -> np.ndarray:
    """(N,) int64: the number of each row's group."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def of_entities(counts: np.ndarray, names: Sequence[str], metrics: Sequence[str]) -> RowSums:
    """Of (N, 3K + 2): correct, predicted and gold entities of each type, correct tags, tags."""
    return RowSums(ENTITIES, tuple(names), tuple(metrics), sparse.csr_matrix(counts, dtype=np.float32))


def of_numbers(gold: np.ndarray, predicted: np.ndarray, metrics: Sequence[str]) -> RowSums:
    """Of (N,) numbers, shifted and scaled so that their squares keep their digits, and of their ranks."""
    from scipy.stats import rankdata

    scale = float(np.std(gold)) or 1.0
    columns = [np.ones(len(gold)), np.abs(gold - predicted), np.square(gold - predicted)]
    pairs = [((gold - gold.mean()) / scale, (predicted - predicted.mean()) / scale)]
    pairs.append(tuple(rankdata(values) / len(gold) - 0.5 for values in (gold, predicted)))
    for x, y in pairs:
        columns += [x, y, x * x, y * y, x * y]
    return RowSums(NUMBERS, (), tuple(metrics), sparse.csr_matrix(np.stack(columns, axis=1), dtype=np.float64))


def _one_hot(classes: np.ndarray, names: Sequence[str]) -> sparse.csr_matrix:
    rows = np.flatnonzero(classes >= 0)
    shape = (len(classes), len(names))
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, classes[rows])), shape=shape)


def _counts(gold: sparse.csr_matrix, predicted: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.hstack([gold.multiply(predicted), predicted, gold], format="csr", dtype=np.float32)


def _belongs(name: str, metrics: Sequence[str]) -> bool:
    """Whether a metric was asked for; HasAns_exact and NoAns_exact belong to exact_match."""
    return (
        name in metrics
        or (name.endswith("_exact") and "exact_match" in metrics)
        or name.partition("Ans_")[2] in metrics
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where the denominator is 0, as in scikit-learn with zero_division=0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _per_class(sums: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Measures]:
    """(..., K) correct, predicted and gold, and the metrics that treat classes, labels and types alike."""
    correct, predicted, gold = np.split(sums[..., : 3 * num_classes], 3, axis=-1)
    f1 = _ratio(2 * correct, predicted + gold)
    return (
        correct,
        predicted,
        gold,
        {
            "f1_micro": _ratio(2 * correct.sum(-1), predicted.sum(-1) + gold.sum(-1)),
            "f1_macro": f1.mean(-1),
            "f1_weighted": _ratio((f1 * gold).sum(-1), gold.sum(-1)),
            "precision_macro": _ratio(correct, predicted).mean(-1),
            "recall_macro": _ratio(correct, gold).mean(-1),
        },
    )


def _classes(sums: np.ndarray, num_classes: int) -> Measures:
    correct, predicted, gold, measures = _per_class(sums, num_classes)
    total, right = gold.sum(-1), correct.sum(-1)
    # Gorodkin (2004), as in scikit-learn.
    spread = [np.square(total) - np.square(counts).sum(-1) for counts in (predicted, gold)]
    covariance = right * total - (predicted * gold).sum(-1)
    measures |= {"accuracy": _ratio(right, total), "f1_micro": _ratio(right, total)}
    measures["matthews_correlation"] = _ratio(covariance, np.sqrt(np.maximum(spread[0] * spread[1], 0)))
    # Of ordered classes, numbered from 0: the mean of |i - j|, and Cohen's kappa with the weights (i - j)^2.
    numbers = np.arange(num_classes)
    moments = [(counts @ numbers, counts @ np.square(numbers)) for counts in (predicted, gold)]
    by_chance = moments[0][1] + moments[1][1] - 2 * _ratio(moments[0][0] * moments[1][0], total)
    measures["mae"] = _ratio(sums[..., -2], total)
    measures["quadratic_kappa"] = np.where(by_chance > 0, 1 - _ratio(sums[..., -1], by_chance), 0.0)
    if num_classes == 2:
        measures["f1"] = _ratio(2 * correct, predicted + gold)[..., 1]
    return measures


def _labels(sums: np.ndarray, num_labels: int) -> Measures:
    measures = _per_class(sums, num_labels)[-1]
    return {**measures, "accuracy": _ratio(sums[..., -2], sums[..., -1])}


def _entities(sums: np.ndarray, num_types: int) -> Measures:
    correct, predicted, gold, _ = _per_class(sums, num_types)
    occurs = predicted + gold > 0
    f1 = _ratio(2 * correct, predicted + gold)
    return {
        "precision": _ratio(correct.sum(-1), predicted.sum(-1)),
        "recall": _ratio(correct.sum(-1), gold.sum(-1)),
        "f1": _ratio(2 * correct.sum(-1), predicted.sum(-1) + gold.sum(-1)),
        "f1_macro": _ratio(f1.sum(-1), occurs.sum(-1).astype(float)),
        "accuracy": _ratio(sums[..., -2], sums[..., -1]),
    }


def _answers(sums: np.ndarray, _: int) -> Measures:
    measures: Measures = {}
    for number, (prefix, exact) in enumerate([("", "exact_match"), ("HasAns_", "exact"), ("NoAns_", "exact")]):
        count, right, f1 = (sums[..., 3 * number + part] for part in range(3))
        if number and not (np.any(sums[..., 6]) and np.any(count)):
            continue  # as in the official script: only if some questions have no answer
        measures |= {prefix + exact: 100 * _ratio(right, count), f"{prefix}f1": 100 * _ratio(f1, count)}
    return measures


def _numbers(sums: np.ndarray, _: int) -> Measures:
    count = sums[..., 0]

    def correlation(first: int) -> np.ndarray:
        x, y, xx, yy, xy = (sums[..., first + part] / count for part in range(5))
        spread = np.sqrt(np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0))
        return np.where(spread > 1e-12, _ratio(xy - x * y, spread), 0.0)

    return {
        "mae": sums[..., 1] / count,
        "rmse": np.sqrt(sums[..., 2] / count),
        "pearson": correlation(3),
        "spearman": correlation(8),
    }


_KINDS: dict[str, Callable[[np.ndarray, int], Measures]] = {
    CLASSES: _classes,
    LABELS: _labels,
    TAGS: _classes,
    ENTITIES: _entities,
    ANSWERS: _answers,
    NUMBERS: _numbers,
}


def keys_of(rows: Iterable[Sequence[Any]], number: int) -> np.ndarray:
    """(N,) uint64: a hash of each row's values, which are strings or lists of strings."""

    def key(values: Sequence[Any]) -> int:
        text = json.dumps(values, ensure_ascii=False)
        return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")

    return np.fromiter(map(key, rows), dtype=np.uint64, count=number)
