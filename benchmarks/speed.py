"""Compare the speed of training and evaluation with transformers' Trainer: same rows, model and machine, alternating.

    python benchmarks/speed.py --data FOLDER [--rounds 3] [--model distilbert-sized] [--sides ...]

FOLDER is yelp_review_full (about forty minutes on two cores), mrpc or squad_v1, with the published files (see
sides.py). Every side trains one epoch of the same rows and evaluates others. A round runs all sides one after the
other, each in a separate process; results are medians over the rounds. Nothing else may run at the same time. Real
tokens per second leave out padding, evaluations, start-up and the first two steps of each run. The share of the peak
compares the forward and backward passes of the layers alone (fasttune.training.flops) with the fastest matrix product
measured on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from sides import (
    DATA_SETS,
    ROOT,
    SIDES,
    YELP,
    heading,
    in_process,
    machine,
    recipe_of,
    save_distilbert_sized,
)

NUM_ROWS = {"yelp_review_full": (192, 96), "mrpc": (320, 160), "squad_v1": (192, 96)}  # trained, evaluated
ORDER = ("fasttune", *SIDES)


def flops_per_token(recipe: dict[str, Any]) -> float:
    from fasttune import recipe as recipes
    from fasttune.data.pipeline import encode, read_splits
    from fasttune.tasks import TASKS
    from fasttune.training.flops import training_flops
    from fasttune.training.model import load_model, load_tokenizer

    loaded = recipes.load(recipe)
    splits = read_splits(loaded, TASKS)
    store = encode(splits.train, splits.task, load_tokenizer(loaded.model), 512)
    model = load_model(loaded.model, splits.task.auto_class, splits.task.state(), seed=1).model
    return training_flops(model, store.lengths) / store.num_tokens


def summary(title: str, runs: list[dict[str, Any]], facts: dict[str, Any], flops: float) -> str:
    """A Markdown page of medians and ratios to fasttune."""

    def median(side: str, key: str) -> float:
        return statistics.median(run[key] for run in runs if run["side"] == side)

    lines = [
        f"# {title}",
        "",
        heading(facts),
        "",
        "| side | | real tokens/s, median (range) | fasttune / side | share of the peak | evaluation, rows/s "
        "| fasttune / side | peak memory, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for side in (side for side in ORDER if any(run["side"] == side for run in runs)):
        speeds = [run["tokens_per_second"] for run in runs if run["side"] == side]
        tokens, rows = median(side, "tokens_per_second"), median(side, "eval_rows_per_second")
        is_fp32 = side in SIDES and not SIDES[side].bf16
        share = tokens * flops / 1e9 / facts["fp32_gflops" if is_fp32 else "bf16_gflops"]
        lines.append(
            f"| {side} | {SIDES[side].what if side in SIDES else 'as shipped'} "
            f"| {tokens:,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f}) "
            f"| {median('fasttune', 'tokens_per_second') / tokens:.1f} | {share:.0%} | {rows:,.0f} "
            f"| {median('fasttune', 'eval_rows_per_second') / rows:.1f} "
            f"| {median(side, 'peak_memory_bytes') / 1e9:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=YELP)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=("embedded", "distilbert-sized"), default="embedded")
    parser.add_argument("--sides", nargs="+", default=list(ORDER), choices=ORDER)
    arguments = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        run_all(arguments, facts, Path(folder))


def run_all(arguments: argparse.Namespace, facts: dict[str, Any], folder: Path) -> None:
    """Run all sides, except runs that the day's result file already contains."""
    data, model = arguments.data, arguments.model
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-speed-{data.name}-{model}"
    known = path.with_suffix(".json")
    runs = json.loads(known.read_text())["runs"] if known.exists() else []
    num_rows, num_eval_rows = NUM_ROWS[data.name]
    title = f"Speed on {num_rows} rows of {data.name}, model {model}, batch {DATA_SETS[data.name].batch_size}"
    own = {} if model == "embedded" else {"model": save_distilbert_sized(folder)}
    # The rows are drawn with data.seed, so every round trains on the same; training.seed shuffles them.
    recipes = {
        seed: {**recipe_of(data, seed, num_rows, num_eval_rows, 1), **own} for seed in range(1, arguments.rounds + 1)
    }
    flops = flops_per_token(recipes[1])
    for seed, recipe in recipes.items():
        for side in arguments.sides:
            if any((run["side"], run["seed"]) == (side, seed) for run in runs):
                continue
            runs.append(in_process(side, recipe))
            known.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n")
            if any(run["side"] == "fasttune" for run in runs):
                path.with_suffix(".md").write_text(summary(title, runs, facts, flops))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
