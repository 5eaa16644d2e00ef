"""Test exact resume and damaged checkpoints exhaustively.

    python benchmarks/resumes.py

Stops: a run of six steps with dropout is stopped after each step and resumed. Weights, moments, logs and predictions
are compared bit for bit with those of an uninterrupted run: every task, fp32 and bf16, steps of 1, 2 and 4
micro-batches, one process and two, one of which is asked to stop. Damage: every file of the newer of two checkpoints is
deleted, emptied, truncated, changed in one bit at 20 places, or swapped with that of the older one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from sides import ROOT, heading, machine

sys.path.insert(0, str(ROOT / "tests"))
from exact import BUDGETS, NUM_STEPS, TASKS, make_recipes, try_all_stops

from fasttune.parallel import collectives, rendezvous
from fasttune.runs.checkpoint import newest_good
from fasttune.runs.folder import RunFolder, read_json

PLACES_OF_BITS = 20


def all_stops(folder: Path) -> list[dict[str, Any]]:
    """Stop at every step and resume, in this process or in each of several."""
    found = []
    recipes = make_recipes(folder)
    for task, precision, parts in itertools.product(TASKS, ("fp32", "bf16"), BUDGETS):
        own = folder / f"{task}-{precision}-{parts}"
        here = collectives.is_main() == (int(os.environ.get("WORLD_SIZE", "1")) == 1)
        differing = try_all_stops(recipes[task], own, precision, parts, range(1, NUM_STEPS), here)
        cell = {"task": task, "precision": precision, "microbatches": parts, "found": differing}
        found.append({**cell, "processes": int(os.environ.get("WORLD_SIZE", "1"))})
        if collectives.is_main():
            print(found[-1], flush=True)
            shutil.rmtree(own)
        collectives.barrier()
    return found


def in_processes(number: int, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    subprocess.run([*command, __file__, "--worker", str(folder)], check=True)
    return json.loads((folder / "found.json").read_text())


def worker(folder: Path) -> None:
    import torch

    rendezvous.rendezvous({})
    rendezvous.init_process_group("cpu")
    found = all_stops(folder)
    if collectives.is_main():
        (folder / "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def damages(newest: Path, older: Path) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """(file, kind of damage, function that does it) of every case."""
    places = random.Random(0)
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        yield path.name, "missing", path.unlink
        yield path.name, "empty", lambda path=path: path.write_bytes(b"")
        for share in (0.01, 0.5, 0.99):
            cut = content[: int(len(content) * share)]
            yield path.name, f"cut at {share:.0%}", lambda path=path, cut=cut: path.write_bytes(cut)
        for _ in range(PLACES_OF_BITS):
            place, bit = places.randrange(len(content)), places.randrange(8)
            changed = bytes([*content[:place], content[place] ^ (1 << bit), *content[place + 1 :]])
            yield path.name, "one bit", lambda path=path, changed=changed: path.write_bytes(changed)
        other = (older / path.name).read_bytes()
        yield path.name, "of another step", lambda path=path, other=other: path.write_bytes(other)


def all_damages(folder: Path) -> tuple[list[dict[str, Any]], float]:
    """Damage the checkpoints of a real run; also the longest time it took to find the older one."""
    import fasttune

    recipe = make_recipes(folder)["text-classification"]
    recipe["output"]["save_steps"] = 3
    recipe["evaluation"]["eval_steps"] = NUM_STEPS
    run = RunFolder(fasttune.fit(recipe, output=folder / "run", progress=False).folder)
    run_id = read_json(run.environment)["run_id"]
    pristine = folder / "pristine"
    shutil.copytree(run.checkpoints, pristine)
    newest, older = (run.checkpoints / f"checkpoint-{step}" for step in (6, 3))
    found, longest = [], 0.0
    for name, kind, damage in damages(newest, older):
        damage()
        begin = time.perf_counter()
        chosen, passed_over = newest_good(run.checkpoints, run_id)
        longest = max(longest, time.perf_counter() - begin)
        is_noticed = chosen is not None and chosen.step == 3 and len(passed_over) == 1
        found.append({"file": name, "damage": kind, "noticed": is_noticed})
        shutil.rmtree(run.checkpoints)
        shutil.copytree(pristine, run.checkpoints)
    return found, longest


def summary(stops: list[dict[str, Any]], damaged: list[dict[str, Any]], longest: float, facts: dict[str, Any]) -> str:
    lines = ["# Exact resume and damaged checkpoints", "", heading(facts), ""]
    lines += [
        "| processes | task | precision | micro-batches per step | stops | identical |",
        "|---|---|---|---|---|---|",
    ]
    for cell in stops:
        same = sum(not differing for differing in cell["found"].values())
        lines.append(
            f"| {cell['processes']} | {cell['task']} | {cell['precision']} | {cell['microbatches']} "
            f"| {len(cell['found'])} | {same} |"
        )
    lines += ["", "| file | cases of damage | detected, older checkpoint used |", "|---|---|---|"]
    for name in dict.fromkeys(one["file"] for one in damaged):
        own = [one for one in damaged if one["file"] == name]
        lines.append(f"| {name} | {len(own)} | {sum(one['noticed'] for one in own)} |")
    lines += ["", f"The older checkpoint was found and verified in {longest:.2f} s at most (a tiny model)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        damaged, longest = all_damages(Path(folder) / "damage")
        stops = all_stops(Path(folder) / "one") + in_processes(2, Path(folder) / "two")
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-resumes"
    path.with_suffix(".json").write_text(json.dumps({"stops": stops, "damaged": damaged}, indent=1))
    path.with_suffix(".md").write_text(summary(stops, damaged, longest, machine()))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
