"""Compare scores with transformers' Trainer over several seeds: same rows, model, hyperparameters and machine.

    python benchmarks/accuracy.py --data FOLDER [--seeds 1 2 3 4 5] [--rows N] [--shared]

FOLDER is one of DATA_SETS in sides.py and holds the published files. An interrupted campaign resumes: runs that the
day's result file already contains are not repeated. With --shared, other work may run on the machine; scores count,
times are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from sides import DATA_SETS, OWN_SIDES, ROOT, SIDES, heading, in_process, machine, recipe_of

DEFAULT_SIDES = ("fasttune", "trainer-best-0")


def spread(values: list[float]) -> str:
    listed = ", ".join(f"{value:.4g}" for value in values)
    deviation = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{deviation} ({listed})"


def summary(title: str, runs: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """A Markdown page: mean, deviation and values by seed, after the last epoch and at the best one."""
    names = list(runs[0]["scores"])
    head = ["side", "", *(f"{name} after the last epoch (by seed)" for name in names)]
    head += [f"best {names[0]} of all epochs", "seconds of training, median"]
    lines = [f"# {title}", "", heading(facts), "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for side in dict.fromkeys(run["side"] for run in runs):
        own = sorted((run for run in runs if run["side"] == side), key=lambda run: run["seed"])
        alone = [run["train_seconds"] for run in own if not run.get("shared")]
        own_settings = ", ".join(f"{name}={value}" for name, value in OWN_SIDES.get(side, {}).items())
        cells = [side, SIDES[side].what if side in SIDES else own_settings or "as shipped"]
        cells += [spread([run["scores"][name][-1] for run in own]) for name in names]
        cells.append(spread([max(run["scores"][names[0]]) for run in own]))
        cells.append(f"{statistics.median(alone):,.0f}" if alone else "not alone")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--sides", nargs="+", default=DEFAULT_SIDES, choices=(*OWN_SIDES, *SIDES))
    parser.add_argument("--rows", type=int, help="training rows, drawn with data.seed; default: all")
    parser.add_argument(
        "--shared", action="store_true", help="other work runs on the machine: scores count, times do not"
    )
    arguments = parser.parse_args()
    facts = machine()
    data = arguments.data
    stem = data.name if arguments.rows is None else f"{data.name}-{arguments.rows}"
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-accuracy-{stem}"
    known = path.with_suffix(".json")
    runs = json.loads(known.read_text())["runs"] if known.exists() else []
    own = DATA_SETS[data.name]
    how = f"{own.epochs} epochs, batch {own.batch_size}, learning rate {own.learning_rate:g}"
    title = f"{stem}, the embedded model, {how}: fasttune and the Trainer"
    for seed in arguments.seeds:
        for side in arguments.sides:
            if any((run["side"], run["seed"]) == (side, seed) for run in runs):
                continue
            shared = {"shared": True} if arguments.shared else {}
            runs.append({**in_process(side, recipe_of(data, seed, arguments.rows)), **shared})
            known.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n")
            path.with_suffix(".md").write_text(summary(title, runs, facts))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
