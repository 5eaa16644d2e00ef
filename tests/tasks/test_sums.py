"""Metrics from sums over rows equal those that the tasks compute, for all rows and for any sample of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasttune.tasks.metrics import classification, entities, intervals, multilabel, regression, squad, sums

RNG = np.random.default_rng(0)
MEANS = ["f1_micro", "f1_macro", "f1_weighted", "precision_macro", "recall_macro"]


def differences(of_rows: sums.RowSums, score, tmp_path: Path) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Measured and expected metrics where they differ; `score(rows)` is the reference for drawn rows."""
    apart = []
    number = len(of_rows)
    with (tmp_path / "sums.npz").open("wb") as file:
        of_rows.save(file)
    with (tmp_path / "sums.npz").open("rb") as file:
        saved = sums.RowSums.load(file)
    for drawn in (np.arange(number), *(RNG.integers(number, size=number) for _ in range(3))):
        expected = score(drawn)
        for found in (of_rows.take(drawn).measure(), saved.take(drawn).measure()):
            values = {name: float(value) for name, value in found.items()}
            if values != pytest.approx(expected, abs=1e-6):
                apart.append((values, expected))
    return apart


@pytest.mark.parametrize("num_classes", [2, 5])
def test_classes(num_classes: int, tmp_path: Path) -> None:
    gold = RNG.integers(num_classes, size=200)
    predicted = np.where(RNG.random(200) < 0.7, gold, RNG.integers(num_classes, size=200))
    metrics = ["accuracy", *MEANS, "matthews_correlation", "quadratic_kappa", "mae"]
    metrics += ["f1"] if num_classes == 2 else []
    names = [str(number) for number in range(num_classes)]
    assert not differences(
        sums.of_classes(gold, predicted, names, metrics),
        lambda rows: classification.score(gold[rows], predicted[rows], num_classes, metrics),
        tmp_path,
    )


def test_labels(tmp_path: Path) -> None:
    gold, predicted = RNG.random((150, 4)) < 0.3, RNG.random((150, 4)) < 0.3
    metrics = ["accuracy", *MEANS]
    assert not differences(
        sums.of_labels(gold, predicted, list("abcd"), metrics),
        lambda rows: multilabel.score(gold[rows], predicted[rows], metrics),
        tmp_path,
    )


def test_answers(tmp_path: Path) -> None:
    gold = [["the red cat"] if number % 3 else [] for number in range(60)]
    answers = [["", "red cat", "a cat", "dog"][number] for number in RNG.integers(4, size=60)]
    exact, f1 = (
        np.array([score(answer, correct) for answer, correct in zip(answers, gold, strict=True)])
        for score in (squad.exact_match, squad.f1)
    )
    has_answer = np.array([bool(correct) for correct in gold])
    assert not differences(
        sums.of_answers(exact, f1, has_answer, squad.METRICS, np.arange(60) // 5),
        lambda rows: squad.score([answers[row] for row in rows], [gold[row] for row in rows]),
        tmp_path,
    )


def test_entities(tmp_path: Path) -> None:
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    gold, predicted = ([[tags[number] for number in RNG.integers(6, size=8)] for _ in range(80)] for _ in range(2))
    counts, types = entities.counts_of(predicted, gold)
    assert not differences(
        sums.of_entities(counts, types, entities.METRICS),
        lambda rows: entities.score([predicted[row] for row in rows], [gold[row] for row in rows]),
        tmp_path,
    )


def test_tags(tmp_path: Path) -> None:
    names = ["NOUN", "VERB", "X"]
    gold = [[names[number] for number in RNG.integers(3, size=1 + row % 7)] for row in range(60)]
    predicted = [[names[number] for number in RNG.integers(3, size=len(row))] for row in gold]
    number_of = {name: number for number, name in enumerate(names)}

    def score(rows: np.ndarray) -> dict[str, float]:
        flat = [np.array([number_of[tag] for row in rows for tag in side[row]]) for side in (gold, predicted)]
        return classification.score(flat[0], flat[1], 3, ["accuracy", "f1_macro"])

    assert not differences(sums.of_tags(predicted, gold, names, ["accuracy", "f1_macro"]), score, tmp_path)


def test_numbers(tmp_path: Path) -> None:
    gold = 1e4 + RNG.normal(size=200)
    predicted = gold + RNG.normal(size=200)
    of_rows = sums.of_numbers(gold, predicted, regression.METRICS)
    found = {name: float(value) for name, value in of_rows.measure().items()}
    assert found == pytest.approx(regression.score(gold, predicted, regression.METRICS), abs=1e-6)
    names = ("pearson", "rmse", "mae")  # the ranks are those of all rows
    assert not differences(
        sums.of_numbers(gold, predicted, names),
        lambda rows: regression.score(gold[rows], predicted[rows], names),
        tmp_path,
    )


def test_interval_of_a_share_is_wilsons_and_of_f1_holds_it() -> None:
    gold = np.repeat([0, 1], 200)
    predicted = np.where(np.arange(400) % 10 == 0, 1 - gold, gold)
    found = intervals.intervals(sums.of_classes(gold, predicted, ["a", "b"], ["accuracy", "f1"]))
    # statsmodels.stats.proportion.proportion_confint(360, 400, method="wilson")
    assert found["accuracy"] == pytest.approx((0.866699, 0.925698), abs=1e-5)
    assert found["f1"][0] < 0.9 < found["f1"][1] and 0.02 < found["f1"][1] - found["f1"][0] < 0.1


def test_clusters_widen_the_interval_and_blocks_do_not() -> None:
    right = np.repeat(RNG.random(60) < 0.6, 10).astype(float)  # ten questions a text, all right or all wrong
    alone = sums.of_answers(right, right, np.ones(600), ["f1"], np.arange(600))
    together = sums.of_answers(right, right, np.ones(600), ["f1"], np.arange(600) // 10)
    widths = [np.ptp(intervals.intervals(one)["f1"]) for one in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.1)
    many = (RNG.random(20_000) < 0.3).astype(float)
    whole = sums.of_answers(many, many, np.ones(20_000), ["f1"], np.arange(20_000))
    expected = 2 * 1.96 * 100 * np.sqrt(0.3 * 0.7 / 20_000)
    assert np.ptp(intervals.intervals(whole)["f1"]) == pytest.approx(expected, rel=0.1)


def test_all_right_or_all_wrong_is_not_certain() -> None:
    for value in (0.0, 1.0):
        gold = np.arange(50) % 2
        found = intervals.intervals(sums.of_classes(gold, gold if value else 1 - gold, ["a", "b"], ["f1", "f1_macro"]))
        for low, high in found.values():
            assert high - low > 0.05 and low <= value <= high


def test_mid_p_by_enumeration() -> None:
    from math import comb

    for only_a, only_b in ((1, 9), (3, 4), (0, 5), (12, 12)):
        number, fewer = only_a + only_b, min(only_a, only_b)
        exact = 2 * sum(comb(number, k) for k in range(fewer + 1)) / 2**number
        expected = 1.0 if only_a == only_b else exact - comb(number, fewer) / 2**number
        assert intervals.mid_p(only_a, only_b) == pytest.approx(expected)
