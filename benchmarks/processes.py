"""Compare training on 1, 2 and 4 processes, with DDP and FSDP2, for every task: are the results the same?

    python benchmarks/processes.py

Tiny models without dropout in fp32, several micro-batches per step, six steps with evaluations. Compared with a run of
one process: the largest difference of a step's loss and of a final weight, and whether tokens, metrics and predictions
are equal. The last rows resume with other numbers of processes. Weights whose true gradient is 0 are left out
(attention's key biases, the bias of answers' ends), because Adam turns their rounding errors into full steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from sides import ROOT, heading, machine

sys.path.insert(0, str(ROOT / "tests"))
from exact import TASKS, make_recipes
from launched import (
    SHARDED,
    WITHOUT_DROPOUT,
    WITHOUT_GRADIENT,
    WORKER,
    is_clock,
    launch,
    predicted,
    steps,
)
from safetensors.torch import load_file

from fasttune.runs.folder import RunFolder, read_json

WAYS = {"DDP": {}, "FSDP2": SHARDED}
# (number of processes, step to stop at, variables of the launcher)
RESUMES = {
    "2 DDP, 1, 2 FSDP2, 1": [(2, 2, {}), (1, 3, {}), (2, 5, SHARDED), (1, None, {})],
    "1, 2 FSDP2, 4 FSDP2, 1": [(1, 2, {}), (2, 3, SHARDED), (4, 5, SHARDED), (1, None, {})],
}


def compared(run: Path, alone: Path) -> dict[str, Any]:
    losses = [(one["loss"], other["loss"]) for one, other in zip(steps(run), steps(alone), strict=True)]
    tokens = [[step["num_tokens"] for step in steps(folder)] for folder in (run, alone)]
    weights, others = (load_file(RunFolder(folder).weights) for folder in (run, alone))
    metrics, those = (read_json(RunFolder(folder).all_results) for folder in (run, alone))
    same = {
        name: abs(value - those[name]) <= (1e-5 if "loss" in name or "flos" in name else 0)
        for name, value in metrics.items()
        if not is_clock(name)
    }
    return {
        "loss": max(abs(one - other) for one, other in losses),
        "weight": max(
            float((tensor - others[name]).abs().max())
            for name, tensor in weights.items()
            if not name.endswith(WITHOUT_GRADIENT)
        ),
        "same": tokens[0] == tokens[1] and all(same.values()) and predicted(run) == predicted(alone),
    }


def trained(recipes: Path, runs: Path, num_processes: int, stop: int | None = None, **how: str) -> None:
    words = [] if stop is None else ["--stop-at", str(stop)]
    done = launch(num_processes, WORKER, recipes, runs, *words, **how)
    if done.returncode:
        raise RuntimeError(done.stderr)


def measured(folder: Path) -> list[dict[str, Any]]:
    for task, recipe in make_recipes(folder, vocab_size=400, **WITHOUT_DROPOUT).items():
        recipe["training"] |= {"precision": "fp32", "tokens_per_microbatch": 60}
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(recipe))
    trained(folder, folder / "alone", 1)
    ways = {f"{number} {name}": [(number, None, how)] for number in (2, 4) for name, how in WAYS.items()}
    ways |= RESUMES
    for name, parts in ways.items():
        for number, stop, how in parts:
            trained(folder, folder / name, number, stop, **how)
    return [
        {"processes": name, "task": task, **compared(folder / name / task, folder / "alone" / task)}
        for name in ways
        for task in TASKS
    ]


def page(found: list[dict[str, Any]]) -> str:
    lines = [
        "| processes | task | largest difference of a loss | of a weight | tokens, metrics, predictions |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        same = "the same" if one["same"] else "DIFFERENT"
        lines.append(f"| {one['processes']} | {one['task']} | {one['loss']:.1e} | {one['weight']:.1e} | {same} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder))
    target = ROOT / "benchmarks" / "results" / f"{date.today().isoformat()}-processes"
    target.with_suffix(".json").write_text(json.dumps({"facts": facts, "found": found}, indent=1) + "\n")
    text = f"# The same training on any number of processes\n\n{heading(facts)}\n\n{page(found)}"
    target.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
