"""What the analysis and the report of a run cost at 500 to 500,000 scored rows, from generated rows and predictions.

    python benchmarks/report_cost.py

Five classes, texts of 5 to 70 words, 4,000 to 500,000 training rows; each size in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import ROOT, heading, machine, peak_memory_bytes

ROWS = (500, 50_000, 500_000)


def measure(number: int) -> str:
    """A row of the table."""
    from findings import texts_of

    from fasttune.analysis.findings import analyse
    from fasttune.analysis.scored import Scored
    from fasttune.data.holdout import Split
    from fasttune.data.rows import Rows
    from fasttune.data.tokens.store import TokenStore
    from fasttune.recipe import dump
    from fasttune.recipe import load as load_recipe
    from fasttune.report.page import write_report
    from fasttune.runs.folder import RunFolder, write_json, write_text
    from fasttune.tasks.text_classification import TextClassification

    generator = np.random.default_rng(0)
    splits, stores, names = {}, {}, [f"{stars} stars" for stars in range(1, 6)]
    for name, size in (("train", max(number, 4000)), ("validation", number)):
        texts, labels = texts_of(size, generator), generator.integers(0, 5, size)
        rows = Rows([str(row) for row in range(size)], {"text": texts, "label": [names[label] for label in labels]})
        lengths = generator.integers(7, 72, size)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        inputs = {"input_ids": generator.integers(5, 30_000, starts[-1]).astype(np.int32)}
        splits[name] = Split(name, f"{name}.csv", rows, "")
        stores[name] = TokenStore(inputs, starts, np.arange(size), np.zeros(size, np.int64), {"labels": labels})
    recipe = load_recipe({"data": {"train": "train.csv"}, "problem": "single-label"})
    task = TextClassification.from_rows(splits["train"].rows, recipe, "train.csv")
    labels = stores["validation"].targets["labels"]
    logits = generator.normal(size=(number, 5)) + 2 * (labels[:, None] == np.arange(5))
    sums = task.row_sums(logits, stores["validation"], splits["validation"].rows)
    before, begin = peak_memory_bytes(), time.perf_counter()
    scored = Scored(task, splits["validation"], stores["validation"], logits, sums)
    found = analyse(scored, splits["train"], [*splits.values()], stores, 100, "accuracy")
    seconds = [time.perf_counter() - begin]
    memory = peak_memory_bytes() - before
    with tempfile.TemporaryDirectory() as parent:
        folder = RunFolder(Path(parent))
        write_text(folder.recipe, dump(recipe))
        write_json(folder.analysis, found)
        accuracy = float(sums.measure()["accuracy"])
        write_json(folder.all_results, {"eval_accuracy": accuracy, "eval_samples": number})
        steps = [{"event": "step", "step": n, "epoch": n / 5000, "loss": 2.0 / (n + 1)} for n in range(20_000)]
        evaluations = [
            {"event": "evaluation", "step": n, "epoch": float(n), "eval_accuracy": 0.8} for n in (1, 2, 3, 4)
        ]
        write_text(folder.events, "".join(json.dumps(one) + "\n" for one in (*steps, *evaluations)))
        begin = time.perf_counter()
        write_report(folder)
        seconds.append(time.perf_counter() - begin)
        size = folder.report.stat().st_size
    shown = " | ".join(f"{one:.2f}" for one in seconds)
    return f"| {number:,} | {shown} | {memory / 2**20:,.0f} | {size / 1000:,.0f} kB |"


def main() -> None:
    if len(sys.argv) == 2:
        print(measure(int(sys.argv[1])))
        return
    facts = machine()
    lines = ["# What analysis and report cost", "", heading(facts), ""]
    lines += [
        "Generated rows and predictions; 20,000 steps and four evaluations in the curves. Without the words behind "
        "mistakes, which need the model: 10 texts of at most 512 tokens, 13 forward passes each.",
        "",
        "| scored rows | analysis, s | report and plots, s | further memory, MiB | report.html |",
        "|---" * 5 + "|",
    ]
    for number in ROWS:
        done = subprocess.run([sys.executable, __file__, str(number)], capture_output=True, text=True, check=True)
        lines.append(done.stdout.strip().splitlines()[-1])
        print(lines[-1], flush=True)
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-report-cost.md"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
