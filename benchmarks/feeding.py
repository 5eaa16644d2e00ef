"""Measure how data reach the model: collation, the second run of a recipe, and the memory of evaluation.

    python benchmarks/feeding.py            about twenty minutes on two cores; nothing else may run at the same time

1. Real tokens per second that one process collates from a mapped token store (generated reviews, batch 16).
2. Seconds from the loaded model to the end of the first step, in the first run of a recipe and in the second.
3. Peak memory of `fasttune evaluate` and `predict` on files of 1,000 and 50,000 reviews, each in a separate process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sides import ROOT, heading, machine, peak_memory_bytes

ROUNDS = 20


def collation() -> float:
    """Real tokens a second, the median of some epochs."""
    import statistics

    from fasttune import recipe as recipes
    from fasttune.data.batching.collate import collate
    from fasttune.data.batching.plan import Plan
    from fasttune.data.pipeline import encode, read_splits
    from fasttune.tasks import TASKS
    from fasttune.training.model import load_tokenizer

    recipe = recipes.load("quickstart")
    splits = read_splits(recipe, TASKS)
    tokenizer = load_tokenizer(recipe.model)
    for _ in range(2):  # the second time the store is mapped
        store = encode(splits.train, splits.task, tokenizer, 512)
    plan = Plan(lengths=store.lengths, batch_size=16, tokens_per_microbatch=4096, seed=1)
    speeds = []
    for epoch in range(ROUNDS):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        cuts = [cut for step in steps for cut in plan.microbatches(step)]
        begin = time.perf_counter()
        for cut in cuts:
            collate(store, cut)
        speeds.append(store.num_tokens / (time.perf_counter() - begin))
    return statistics.median(speeds)


def first_step() -> float:
    """Seconds from the loaded model to the end of the first step."""
    import fasttune
    from fasttune.training import prepare
    from fasttune.training.events import StepDone

    times: dict[str, float] = {}
    set_up = prepare.set_up

    def timed_set_up(*args: Any) -> Any:
        setup = set_up(*args)
        times["loaded"] = time.perf_counter()
        return setup

    def observer(event: object) -> str | None:
        if isinstance(event, StepDone):
            times["step"] = time.perf_counter()
            return "enough"
        return None

    prepare.set_up = timed_set_up
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["output.save_strategy=no", "evaluation.eval_strategy=no"]
        output = Path(folder) / "run"
        fasttune.fit("quickstart", overrides=overrides, output=output, progress=False, observers=[observer])
    return times["step"] - times["loaded"]


def write_reviews(path: Path, num_rows: int) -> None:
    from fasttune.data.starter.reviews import generate

    rows = generate()["train"]
    with path.open("w") as file:
        for index in range(num_rows):
            row = rows[index % len(rows)]
            file.write(json.dumps({"text": f"{row['text']} {index}", "label": row["label"]}) + "\n")


def evaluation(run: str, data: str) -> int:
    """Peak memory in bytes."""
    import fasttune

    fasttune.evaluate(run, data=data)
    return peak_memory_bytes()


def prediction(run: str, data: str) -> int:
    """Peak memory in bytes."""
    from fasttune.cli import commands as cli

    assert cli.run(["predict", run, "--data", data, "--output", f"{data}.predictions"]) == 0
    return peak_memory_bytes()


def in_process(*words: str, cache: str) -> Any:
    command = [sys.executable, __file__, *words]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    facts = machine()
    with tempfile.TemporaryDirectory() as cache:
        tokens = in_process("collation", cache=cache)
    with tempfile.TemporaryDirectory() as cache:
        first, second = (in_process("first_step", cache=cache) for _ in range(2))
        run = str(Path(cache) / "run")
        command = [sys.executable, "-m", "fasttune", "train", "quickstart", "training.max_steps=2", "--output", run]
        subprocess.run([*command, "evaluation.eval_strategy=no"], check=True, capture_output=True)
        memory = {}
        for num_rows in (1_000, 50_000):
            data = str(Path(cache) / f"{num_rows}.jsonl")
            write_reviews(Path(data), num_rows)
            for what in ("evaluation", "prediction"):
                memory[what, num_rows] = in_process(what, run, data, cache=cache)
    lines = [
        "# Feeding the model",
        "",
        heading(facts),
        "",
        "| what | measured |",
        "|---|---|",
        f"| collation in one process | {tokens / 1e6:.1f} million real tokens/s |",
        f"| from the loaded model to the end of the first step, first run of the recipe | {first:.2f} s |",
        f"| the same, second run | {second:.2f} s |",
    ]
    for what in ("evaluation", "prediction"):
        few, many = memory[what, 1_000], memory[what, 50_000]
        lines.append(f"| peak memory of {what} of 1,000 rows | {few / 1e6:,.0f} MB |")
        lines.append(f"| of 50,000 rows | {many / 1e6:,.0f} MB ({many / few - 1:+.1%}) |")
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-feeding.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        parts = (collation, first_step, evaluation, prediction)
        print(json.dumps({part.__name__: part for part in parts}[sys.argv[1]](*sys.argv[2:])))
