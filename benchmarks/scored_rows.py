"""What intervals, comparison and calibration cost at 500 to 500,000 scored rows, from generated predictions.

python benchmarks/scored_rows.py
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
from sides import ROOT, heading, machine, peak_memory_bytes

ROWS = (500, 50_000, 500_000)
KINDS = ("5 classes", "150 classes", "28 labels", "answers")


def measure(kind: str, number: int) -> str:
    """A row of the table: seconds of each part, and the peak memory of this process beyond its start."""
    from fasttune.tasks.metrics import classification, intervals, multilabel, sums
    from fasttune.tasks.metrics.calibration import calibrate

    rng = np.random.default_rng(0)
    if kind == "answers":
        exact = (rng.random(number) < 0.7).astype(float)
        both = [sums.of_answers(exact, exact, np.ones(number), ("f1",), np.arange(number) // 5) for _ in range(2)]
        logits = right = None
    else:
        num_classes = int(kind.split()[0])
        logits = rng.normal(size=(number, num_classes))
        names = [str(one) for one in range(num_classes)]
        if "labels" in kind:
            right = rng.random(logits.shape) < 0.1
            both = [sums.of_labels(right, logits + 3 * right > 1, names, multilabel.DEFAULT) for _ in range(2)]
        else:
            gold = rng.integers(num_classes, size=number)
            right = gold[:, None] == np.arange(num_classes)
            logits = logits + 3 * right
            predicted = logits.argmax(axis=1)
            metrics = classification.default_metrics(num_classes)
            both = [sums.of_classes(gold, predicted, names, metrics) for _ in range(2)]
    before = peak_memory_bytes()
    times = []
    begin = time.perf_counter()
    intervals.intervals(both[0])
    times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    intervals.differences(*both)
    times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    if logits is not None and right is not None:
        function = multilabel.sigmoid if "labels" in kind else classification.softmax
        calibrate(logits, right, function, one_of="labels" not in kind)
        times.append(time.perf_counter() - begin)
    seconds = " | ".join(f"{one:.2f}" for one in times) + (" | " if len(times) == 2 else "")
    return f"| {kind} | {number:,} | {seconds} | {(peak_memory_bytes() - before) / 2**20:,.0f} |"


def main() -> None:
    if len(sys.argv) == 3:
        print(measure(sys.argv[1], int(sys.argv[2])))
        return
    facts = machine()
    lines = ["# What honest numbers cost", "", heading(facts), ""]
    lines += [
        "Generated predictions, each line in a process of its own; seconds.",
        "",
        "| predictions | rows | intervals | comparison of two | calibration | further memory, MiB |",
        "|---" * 6 + "|",
    ]
    for kind in KINDS:
        for number in ROWS:
            done = subprocess.run(
                [sys.executable, __file__, kind, str(number)], capture_output=True, text=True, check=True
            )
            lines.append(done.stdout.strip())
            print(lines[-1], flush=True)
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-scored-rows.md"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
