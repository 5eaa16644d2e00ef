"""The tutorial's small run on real reviews: fasttune beside transformers' Trainer, same rows, model, seeds and machine.

    python benchmarks/yelp_small.py --data FOLDER                all of it, two to three hours on two cores
    python benchmarks/yelp_small.py --sides trainer --shared     accuracy only, while other work goes on

A run that was stopped goes on: what stands in the day's file of results is not measured again.

FOLDER holds train.jsonl and validation.jsonl of Yelp Review Full ({"label": 0..4, "text": ...} a line); default:
yelp_review_full in the folder that FASTTUNE_REAL_DATA names. 1,000 training rows are drawn with seed 42, batch 16,
learning rate 5e-5, 3 epochs; the slow sides are timed on fewer. Nothing else may run meanwhile, except with --shared.
Real tokens a second leave padding out, and evaluations, start-up and each run's first two steps too.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from sides import EPOCHS, ROOT, SIDES, YELP, heading, in_process, machine, recipe_of

SEEDS = (1, 2, 3)
ALL_ROWS = 1000
# (side, rows, epochs, seed). In turn, so that a slow hour of the machine meets both sides; the slowest last.
RUNS = [
    ("tutorial", 96, 1, 1),
    ("trainer-default", 128, 1, 1),
    ("trainer", 128, 1, 1),
    *((side, ALL_ROWS, EPOCHS, seed) for seed in SEEDS for side in ("fasttune", "trainer-best-0")),
    *(("trainer", ALL_ROWS, EPOCHS, seed) for seed in SEEDS),
]
EVAL_ROWS_WHEN_TIMED = 32


def summary(runs: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """A markdown page: medians of speed, means of accuracy, ratios to fasttune."""

    def speed(side: str) -> float | None:
        alone = [run["tokens_per_second"] for run in runs if run["side"] == side and not run.get("shared")]
        return statistics.median(alone) if alone else None

    lines = [
        "# Yelp, 1,000 rows, the embedded model: fasttune beside the Trainer",
        "",
        heading(facts),
        "",
        "| side | | real tokens/s, median | fasttune / side | accuracy after 3 epochs, by seed | mean |",
        "|---|---|---|---|---|---|",
    ]
    ours = speed("fasttune")
    for side in dict.fromkeys(run["side"] for run in runs):
        tokens = speed(side)
        timing = f"{tokens:,.0f} | {ours / tokens:.1f}" if tokens and ours else "not alone |"
        last = [run["accuracy"][-1] for run in runs if run["side"] == side and run["rows"] == ALL_ROWS]
        mean = f"{statistics.mean(last):.4f}" if last else ""
        what = SIDES[side].what if side in SIDES else "as shipped (recipes/yelp.yaml)"
        lines.append(f"| {side} | {what} | {timing} | {', '.join(f'{value:.3f}' for value in last)} | {mean} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=YELP)
    parser.add_argument("--sides", nargs="+", help="only these")
    parser.add_argument("--shared", action="store_true", help="other work goes on: accuracy counts, speed does not")
    arguments = parser.parse_args()
    facts = machine()
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-yelp-small"
    known = path.with_suffix(".json")
    runs = json.loads(known.read_text())["runs"] if known.exists() else []
    for side, rows, epochs, seed in RUNS:
        is_known = any((run["side"], run["rows"], run["seed"]) == (side, rows, seed) for run in runs)
        if is_known or (arguments.sides and side not in arguments.sides):
            continue
        recipe = recipe_of(arguments.data, seed, rows, None if rows == ALL_ROWS else EVAL_ROWS_WHEN_TIMED, epochs)
        shared = {"shared": True} if arguments.shared else {}
        runs.append({"rows": rows, **in_process(side, recipe), **shared})
        known.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n")
        path.with_suffix(".md").write_text(summary(runs, facts))
    print(summary(runs, facts))


if __name__ == "__main__":
    main()
