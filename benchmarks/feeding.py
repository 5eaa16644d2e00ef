"""Data on its way to the model: collation, the second run of a recipe, and the memory of evaluation.

    python benchmarks/feeding.py            about four minutes on two cores; nothing else may run meanwhile

1. Real tokens a second that one process collates from a mapped token store (generated reviews, batch 16).
2. Seconds from the loaded model to the end of the first step, in the first run of a recipe and in the second.
3. Peak memory of predicting 1,000 and 50,000 rows of about ten tokens, each in a process of its own.
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
    from fasttune.batching.collate import collate
    from fasttune.batching.plan import Plan
    from fasttune.engine.pretrained import load_tokenizer
    from fasttune.tasks.prepare import encode, read_splits

    recipe = recipes.load("quickstart")
    splits = read_splits(recipe)
    tokenizer = load_tokenizer(recipe.model)
    for _ in range(2):  # the second time it is mapped
        store = encode(splits.train, splits.task, tokenizer, 512)
    plan = Plan(store.lengths, 16, 4096, seed=1)
    speeds = []
    for epoch in range(ROUNDS):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        cuts = [cut for step in steps for cut in plan.microbatches(step)]
        begin = time.perf_counter()
        for cut in cuts:
            collate(store, cut, 0)
        speeds.append(store.num_tokens / (time.perf_counter() - begin))
    return statistics.median(speeds)


def first_step() -> float:
    """Seconds from the loaded model to the end of the first step."""
    import fasttune
    from fasttune import start
    from fasttune.engine.events import StepDone

    times: dict[str, float] = {}
    set_up = start.set_up

    def timed_set_up(*args: Any) -> Any:
        setup = set_up(*args)
        times["loaded"] = time.perf_counter()
        return setup

    def observer(event: object) -> str | None:
        if isinstance(event, StepDone):
            times["step"] = time.perf_counter()
            return "enough"
        return None

    start.set_up = timed_set_up
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["output.save_strategy=no", "evaluation.eval_strategy=no"]
        output = Path(folder) / "run"
        fasttune.fit("quickstart", overrides=overrides, output=output, progress=False, observers=[observer])
    return times["step"] - times["loaded"]


def evaluation(num_rows: int, run: str) -> int:
    """Peak memory in bytes."""
    import fasttune
    from fasttune.starter.reviews import generate

    texts = [row["text"] for row in generate()["train"]]
    predictor = fasttune.load(run)
    predictor.predict([texts[index % len(texts)][:40] + f" {index}" for index in range(num_rows)])
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
        few, many = (in_process("evaluation", str(number), run, cache=cache) for number in (1_000, 50_000))
    lines = [
        "# Data on its way to the model",
        "",
        heading(facts),
        "",
        "| what | measured |",
        "|---|---|",
        f"| collation in one process | {tokens / 1e6:.1f} million real tokens/s |",
        f"| from the loaded model to the end of the first step, first run | {first:.2f} s |",
        f"| the same, second run of the recipe | {second:.2f} s |",
        f"| peak memory of predicting 1,000 rows | {few / 1e6:,.0f} MB |",
        f"| of 50,000 rows | {many / 1e6:,.0f} MB ({many / few - 1:+.1%}) |",
    ]
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-feeding.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "evaluation":
        print(json.dumps(evaluation(int(sys.argv[2]), sys.argv[3])))
    else:
        print(json.dumps({"collation": collation, "first_step": first_step}[sys.argv[1]]()))
