"""Calibration: the temperature undoes a scale of the logits, and no prediction changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, softmax
from tiny import make_rows, write_csv

import fasttune
from fasttune.tasks.metrics import classification, multilabel
from fasttune.tasks.metrics.calibration import calibrate, expected_error, fit_temperature

RNG = np.random.default_rng(0)


def honest(number: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn with exactly their probabilities."""
    logits = RNG.normal(scale=2, size=(number, num_classes))
    drawn = (softmax(logits, axis=1).cumsum(axis=1) > RNG.random((number, 1))).argmax(axis=1)
    return logits, drawn[:, None] == np.arange(num_classes)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_is_the_scale_of_the_logits(scale: float) -> None:
    logits, right = honest(20_000, 4)
    assert fit_temperature(logits * scale, right, classification.softmax, one_of=True) == pytest.approx(scale, rel=0.05)
    logits = RNG.normal(scale=2, size=(20_000, 3))
    labels = RNG.random(logits.shape) < expit(logits)
    assert fit_temperature(logits * scale, labels, multilabel.sigmoid, one_of=False) == pytest.approx(scale, rel=0.05)


def test_error_before_and_after() -> None:
    logits, right = honest(4_000, 4)
    found = calibrate(logits * 3, right, classification.softmax, one_of=True)
    assert found is not None
    assert found.before > 0.15 and found.after < 0.03
    assert sum(one.num_predictions for one in found.reliability) == 4_000
    assert found.reliability[-1].confidence > found.reliability[-1].accuracy  # over-confident


def test_expected_error_by_hand() -> None:
    confidence = np.array([0.6] * 50 + [0.9] * 100)
    is_right = np.array([True, False] * 25 + ([True] * 9 + [False]) * 10)
    assert expected_error(confidence, is_right) == pytest.approx(50 * 0.1 / 150)


def test_few_or_perfect_rows() -> None:
    logits, right = honest(40, 3)
    assert calibrate(logits, right, classification.softmax, one_of=True) is None
    logits = np.eye(3)[RNG.integers(3, size=60)] * 4
    found = calibrate(logits, logits > 0, classification.softmax, one_of=True)
    assert found is not None and 0.1 < found.temperature < 1


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, fasttune.Run]:
    folder = tmp_path_factory.mktemp("calibration")
    write_csv(folder / "train.csv", make_rows(60))
    write_csv(folder / "validation.csv", make_rows(80, seed=2))
    found = {}
    for calibrates in (True, False):
        recipe = {
            "model": str(tiny_model),
            "data": {"train": str(folder / "train.csv"), "validation": str(folder / "validation.csv")},
            "training": {"preset": "tutorial", "learning_rate": 3e-3, "precision": "fp32"},
            "evaluation": {"calibrate": calibrates},
            "tracking": {"report_to": "none"},
        }
        found[calibrates] = fasttune.fit(recipe, output=folder / f"run-{calibrates}", progress=False)
    return found


def test_run_shows_calibrated_probabilities_and_the_same_labels(runs: dict[bool, fasttune.Run]) -> None:
    kept = json.loads((runs[True].folder / "calibration.json").read_text())
    assert not (runs[False].folder / "calibration.json").exists()
    texts = [row["text"] for row in make_rows(20, seed=5)]
    with_it, without = (fasttune.load(runs[calibrates].folder).predict(texts) for calibrates in (True, False))
    for calibrated, plain in zip(with_it, without, strict=True):
        assert calibrated["label"] == plain["label"]
        shares = [list(one["probabilities"].values()) for one in (calibrated, plain)]
        expected = softmax(np.log(shares[1]) / kept["temperature"])
        assert shares[0] == pytest.approx(expected, abs=1e-5)
    assert runs[True].metrics["eval_loss"] == pytest.approx(runs[False].metrics["eval_loss"])
    assert "The probabilities of `fasttune predict` are calibrated" in (runs[True].folder / "README.md").read_text()
