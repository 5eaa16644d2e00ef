"""Scores and training time of presets beside the tuned Trainer with a tutorial's settings, on the same rows and seeds.

    python benchmarks/time_to_quality.py --data FOLDER [--rows N] [--eval-rows N] [--seeds 1 2 3] [--presets fast auto]

FOLDER is one of DATA_SETS in sides.py and holds the published files. The sides run in turn, alone on the machine. An
interrupted campaign resumes: runs that the day's result file already contains are not repeated. Times leave out the
evaluations, which each side makes after every epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from accuracy import spread
from sides import DATA_SETS, ROOT, heading, in_process, machine, recipe_of

TRAINER = "trainer-best-0"


def recipe_for(side: str, data: Path, seed: int, rows: int | None, eval_rows: int | None) -> dict[str, Any]:
    """The tutorial's recipe for the Trainer; for a preset, the same with its `model_head` and epochs, if given."""
    recipe = recipe_of(data, seed, rows, eval_rows)
    if side != TRAINER:
        settings, _, epochs = side.partition("@")
        preset, _, head = settings.partition("+")
        recipe["training"] = {"preset": preset, "seed": seed, "logging_steps": 30}
        if epochs:
            recipe["training"]["num_train_epochs"] = float(epochs)
        if head:
            recipe["model_head"] = head
    return recipe


def training_seconds(run: dict[str, Any], eval_rows: int) -> float:
    """The time of training without its evaluations."""
    evaluations = len(next(iter(run["scores"].values())))
    return run["train_seconds"] - evaluations * eval_rows / run["eval_rows_per_second"]


def summary(title: str, runs: list[dict[str, Any]], facts: dict[str, Any], eval_rows: int) -> str:
    """A Markdown page: the score after the last epoch by seed, the seconds, and the ratio to the Trainer's."""
    name = next(iter(runs[0]["scores"]))
    lines = [f"# {title}", "", heading(facts), ""]
    lines += [
        f"| side | {name} after the last epoch (by seed) | seconds, median | Trainer's seconds / these |",
        "|---" * 4 + "|",
    ]
    seconds = {
        side: statistics.median(training_seconds(run, eval_rows) for run in runs if run["side"] == side)
        for side in dict.fromkeys(run["side"] for run in runs)
    }
    for side, median in seconds.items():
        own = sorted((run for run in runs if run["side"] == side), key=lambda run: run["seed"])
        ratio = f"{seconds[TRAINER] / median:.1f}" if TRAINER in seconds else ""
        lines.append(f"| {side} | {spread([run['scores'][name][-1] for run in own])} | {median:.0f} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="training rows, drawn with data.seed; default: all")
    parser.add_argument("--eval-rows", type=int, help="validation rows, drawn with data.seed; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--presets", nargs="+", default=["fast", "auto"], help="auto+mean@2: auto with model_head=mean and two epochs"
    )
    arguments = parser.parse_args()
    facts, data = machine(), arguments.data
    stem = data.name if arguments.rows is None else f"{data.name}-{arguments.rows}"
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-time-to-quality-{stem}"
    known = path.with_suffix(".json")
    runs = json.loads(known.read_text())["runs"] if known.exists() else []
    own = DATA_SETS[data.name]
    title = (
        f"{stem}, the embedded model: presets, and {TRAINER} with {own.epochs} epochs, batch {own.batch_size}, "
        f"learning rate {own.learning_rate:g}"
    )
    eval_rows = arguments.eval_rows or sum(1 for _ in (data / own.validation).open(encoding="utf-8"))
    for seed in arguments.seeds:
        for side in (TRAINER, *arguments.presets):
            if any((run["side"], run["seed"]) == (side, seed) for run in runs):
                continue
            recipe = recipe_for(side, data, seed, arguments.rows, arguments.eval_rows)
            run = in_process(TRAINER if side == TRAINER else "fasttune", recipe)
            runs.append({**run, "side": side})
            known.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n")
            path.with_suffix(".md").write_text(summary(title, runs, facts, eval_rows))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
