"""Expected calibration error before and after, and thresholds, on rows that chose neither.

    python benchmarks/calibration.py RUN [RUN ...]

Each run is a finished text classifier. Its validation rows are divided into random halves, 20 times. One half chooses
temperature, threshold (two classes) and confidence for a precision of 95 %, the other half is measured.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sides import ROOT, heading, machine

from fasttune.data.pipeline import encode
from fasttune.evaluation.own_split import read_own_split
from fasttune.evaluation.predictor import Predictor
from fasttune.tasks.metrics.calibration import confidences, expected_error, fit_temperature
from fasttune.tasks.targets import MultiLabel, SingleLabel
from fasttune.training.scoring import predict_split

PRECISION = 0.95
HALVES = 20


def measured(run: Path) -> dict[str, Any]:
    predictor = Predictor.open(run)
    split = read_own_split(predictor, "validation")
    store = encode(split, predictor.task, predictor.setup.tokenizer, predictor.setup.max_length)
    logits = predict_split(predictor.setup, predictor.task, store).results.astype(np.float64)
    labels = np.asarray(store.targets["labels"])
    target: Any = replace(predictor.task.target, temperature=1.0)  # type: ignore[attr-defined]
    is_single = isinstance(target, SingleLabel)
    right = labels[:, None] == np.arange(logits.shape[1]) if is_single else labels > 0
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    for seed in range(HALVES):
        first = np.random.default_rng(seed).permutation(len(logits)) % 2 == 0
        temperature = fit_temperature(logits[first], right[first], target.probabilities, is_single)
        note("temperature", temperature)
        for name, scale in (("ECE before", 1.0), ("ECE after", temperature)):
            shares = target.probabilities(logits[~first] / scale)
            note(name, expected_error(*confidences(shares, right[~first], is_single)))
        if is_single and logits.shape[1] == 2:
            tuned = replace(target, tunes=True).calibrated(logits[first], labels[first])
            f1 = [one.row_sums(logits[~first], labels[~first]) for one in (target, tuned)]
            for name, sums in zip(("F1 at 0.5", "F1 at the tuned threshold"), f1, strict=True):
                note(name, float(replace(sums, metrics=("f1",)).measure()["f1"]))
        if isinstance(target, MultiLabel):
            plain = replace(target, thresholds=(0.5,) * logits.shape[1])
            tuned = target.calibrated(logits[first], labels[first])
            for name, one in (("micro F1 at 0.5", plain), ("micro F1 at tuned thresholds", tuned)):
                sums = replace(one.row_sums(logits[~first], labels[~first]), metrics=("f1_micro",))
                note(name, float(sums.measure()["f1_micro"]))
        if is_single:
            sure = target.abstaining(logits[first], labels[first], PRECISION)
            note("reaches 95 %", sure is not None)
            if sure is not None:
                scores = sure.score(logits[~first], labels[~first])
                note("coverage at 95 %", scores["coverage"])
                note("accuracy where given", scores["accuracy_where_given"])
            note("accuracy of all", float((target.classes(logits[~first]) == labels[~first]).mean()))
    return {"rows": len(logits), **{name: float(np.mean(values)) for name, values in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    facts = machine()
    lines = ["# Calibration and thresholds on rows that did not choose them", "", heading(facts), ""]
    lines += [
        f"Means over {HALVES} random halves of the validation rows.",
        "",
        "| run | measured | mean |",
        "|---" * 3 + "|",
    ]
    for run in arguments.runs:
        for name, value in measured(run).items():
            lines.append(
                f"| {run.name} | {name} | {value:,.0f} |"
                if name == "rows"
                else f"| {run.name} | {name} | {value:.4f} |"
            )
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-calibration.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
