"""Coverage of the intervals, and false positives of the paired tests, on simulated models whose true scores are known.

    python benchmarks/intervals.py [--samples 1000] [--rows 300]

Each sample draws the rows of a split, and what a model makes of them, from a fixed distribution. The true score
is that of 2,000,000 such rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy import sparse
from sides import ROOT, heading, machine

from fasttune.tasks.metrics import sums
from fasttune.tasks.metrics.intervals import differences, intervals

Draw = Callable[[np.random.Generator, int], sums.RowSums]
NAMES = ("a", "b", "c", "d", "e")
MEANS = ("f1_micro", "f1_macro", "f1_weighted", "precision_macro", "recall_macro")
TRUE_ROWS = 2_000_000


def binary(rng: np.random.Generator, number: int) -> sums.RowSums:
    """Nine of ten rows are classified correctly, a quarter are of class 1."""
    gold = (rng.random(number) < 0.25).astype(np.int64)
    wrong = rng.random(number) < np.where(gold == 1, 0.16, 0.08)
    metrics = ("accuracy", "f1", "matthews_correlation")
    return sums.of_classes(gold, np.where(wrong, 1 - gold, gold), NAMES[:2], metrics)


def five_classes(rng: np.random.Generator, number: int) -> sums.RowSums:
    """Unequal classes, the rarest of about 5 % of the rows; errors are drawn from the other classes."""
    gold = rng.choice(5, number, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    error = np.array([0.1, 0.2, 0.4, 0.3, 0.5])[gold]
    other = (gold + rng.integers(1, 5, number)) % 5
    predicted = np.where(rng.random(number) < error, other, gold)
    return sums.of_classes(gold, predicted, NAMES, ("accuracy", *MEANS, "matthews_correlation"))


def labels(rng: np.random.Generator, number: int) -> sums.RowSums:
    gold = rng.random((number, 5)) < [0.4, 0.3, 0.2, 0.1, 0.06]
    predicted = np.where(gold, rng.random((number, 5)) < 0.75, rng.random((number, 5)) < 0.06)
    return sums.of_labels(gold, predicted, NAMES, ("accuracy", *MEANS))


def answers(rng: np.random.Generator, number: int) -> sums.RowSums:
    """Five questions a text; texts differ in difficulty. A third of the questions has no answer."""
    texts = np.arange(number) // 5
    ease = rng.normal(0.8, 1.0, texts[-1] + 1)[texts]
    exact = (rng.random(number) < 1 / (1 + np.exp(-ease))).astype(float)
    f1 = np.where(exact > 0, 1.0, rng.random(number) * (rng.random(number) < 0.5))
    has_answer = rng.random(number) > 1 / 3
    f1 = np.where(has_answer, f1, exact)
    return sums.of_answers(exact, f1, has_answer, ("exact_match", "f1"), texts)


def entities(rng: np.random.Generator, number: int) -> sums.RowSums:
    """Sentences of 5 to 30 words with entities of four types."""
    gold = rng.poisson([0.9, 0.6, 0.4, 0.2], (number, 4))
    correct = rng.binomial(gold, [0.9, 0.8, 0.7, 0.6])
    predicted = correct + rng.poisson([0.1, 0.12, 0.1, 0.1], (number, 4))
    words = rng.integers(5, 30, number)
    tags = np.stack([rng.binomial(words, 0.95), words], axis=1)
    return sums.of_entities(
        np.concatenate([correct, predicted, gold, tags], axis=1),
        NAMES[:4],
        ("precision", "recall", "f1", "f1_macro", "accuracy"),
    )


def numbers(rng: np.random.Generator, number: int) -> sums.RowSums:
    gold = rng.normal(size=number)
    return sums.of_numbers(
        gold, 0.7 * gold + rng.normal(scale=0.5, size=number), ("pearson", "spearman", "rmse", "mae")
    )


def coverage(draw: Draw, num_samples: int, num_rows: int) -> Iterator[tuple[str, float, float]]:
    """(metric, true score, share of the intervals that hold it)."""
    truth = {name: float(value) for name, value in draw(np.random.default_rng(10**6), TRUE_ROWS).measure().items()}
    held = dict.fromkeys(truth, 0)
    for sample in range(num_samples):
        found = intervals(draw(np.random.default_rng(sample), num_rows), seed=sample)
        for name, value in truth.items():
            held[name] += found[name][0] <= value <= found[name][1]
    yield from ((name, value, held[name] / num_samples) for name, value in truth.items())


def pair(rng: np.random.Generator, number: int, kind: str) -> tuple[sums.RowSums, sums.RowSums]:
    """Two equally good models with correlated errors: of each row or text, chance decides which gets which outcome."""
    draw = {"binary": binary, "five classes": five_classes, "answers": answers, "entities": entities}[kind]
    seed = int(rng.integers(2**31))
    first, second = draw(np.random.default_rng(seed), number), _second(draw, seed, rng, number)
    swap = rng.random(number) < 0.5
    if first.clusters is not None:
        swap = (rng.random(first.clusters.max() + 1) < 0.5)[first.clusters]
    mixed = [model.values.toarray() for model in (first, second)]
    mixed = [np.where(swap[:, None], mixed[1 - side], mixed[side]) for side in (0, 1)]
    one, two = (replace(first, values=sparse.csr_matrix(values)) for values in mixed)
    return one, two


def _second(draw: Draw, seed: int, rng: np.random.Generator, number: int) -> sums.RowSums:
    """Another model on the rows of `draw(seed)`: it agrees with the first on half of them."""
    first, other = draw(np.random.default_rng(seed), number), draw(np.random.default_rng(seed + 1), number)
    mine, theirs = first.values.toarray(), other.values.toarray()
    num_gold = len(first.names)
    if first.kind == sums.CLASSES:  # a row of the same class takes the fate of another row of this class
        gold, gold_of_other = (values[:, 2 * num_gold :].argmax(axis=1) for values in (mine, theirs))
        for kind in range(num_gold):
            rows, others = np.flatnonzero(gold == kind), np.flatnonzero(gold_of_other == kind)
            if len(others):
                rows = rows[rng.random(len(rows)) < 0.5]
                mine[rows] = theirs[rng.choice(others, len(rows))]
    else:
        rows = np.flatnonzero(rng.random(number) < 0.5)
        mine[rows] = theirs[rows]
    return replace(first, values=sparse.csr_matrix(mine))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--pairs-of", nargs="+", help="only the paired tests of these kinds, such as entities")
    arguments = parser.parse_args()
    facts = machine()
    lines = [
        f"# Intervals and paired tests on simulated models, {arguments.rows} rows, {arguments.samples:,} samples",
        "",
        heading(facts),
        "",
        "| task | metric | true score | coverage of the 95 % interval |",
        "|---" * 4 + "|",
    ]
    for draw in () if arguments.pairs_of else (binary, five_classes, labels, answers, entities, numbers):
        for name, value, share in coverage(draw, arguments.samples, arguments.rows):
            lines.append(f"| {draw.__name__.replace('_', ' ')} | {name} | {value:.3f} | {share:.3f} |")
            print(lines[-1], flush=True)
    lines += ["", "Two equally good models:", "", "| task | metric | p < .05 | interval without 0 |", "|---" * 4 + "|"]
    for kind in arguments.pairs_of or ("binary", "five classes", "answers", "entities"):
        counts: dict[str, list[int]] = {}
        for sample in range(arguments.samples):
            for found in differences(*pair(np.random.default_rng(sample), arguments.rows, kind), seed=sample):
                count = counts.setdefault(found.metric, [0, 0])
                count[0] += found.p_value < 0.05
                count[1] += not found.low <= 0 <= found.high
        for name, count in counts.items():
            shares = " | ".join(f"{number / arguments.samples:.3f}" for number in count)
            lines.append(f"| {kind} | {name} | {shares} |")
            print(lines[-1], flush=True)
    name = "-".join(["intervals", *(arguments.pairs_of or ())])
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-{name}.md"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
