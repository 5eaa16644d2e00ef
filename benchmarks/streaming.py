"""Stream data that do not fit into memory: rows counted, memory, time to the first step, resume after a kill.

    python benchmarks/streaming.py [--gigabytes 5] [--steps 200] [--folder FOLDER]

The data are the generated reviews, numbered. `rows`: an epoch of the reader without a model, in one process and in two
ranks; every process is killed on the way and resumes from the last position and counts that it saved. `training`: the
embedded model, uninterrupted and killed once; the weights must be byte-identical.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sides import ROOT, heading, machine

BATCH_SIZE = 64
STEPS_A_SAVE = 500
LATER = -1  # replaces row numbers of the second epoch, which the last step of the first may contain
KILL_AT = 0.5  # share of the reader's epoch
KILL_AT_STEP = 120  # of the training, which saves every 50 steps


def write_rows(path: Path, num_bytes: int) -> int:
    from fasttune.data.starter import reviews

    made = [(json.dumps(row["text"])[1:-1], row["label"]) for row in reviews.generate()["train"]]
    number, written = 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < num_bytes:
            text, label = made[number % len(made)]
            written += file.write(f'{{"number": {number}, "text": "{text} Visit {number}.", "label": "{label}"}}\n')
            number += 1
    return number


@dataclass
class Numbers:
    """Windows with one-token examples: the number of the row."""

    stream: Any
    num_read: int = 0

    @property
    def num_windows(self) -> int:
        return self.stream.num_windows

    def read(self, epoch: int, number: int) -> Numbered:
        table = self.stream.window(epoch, number).dataset.with_format("arrow")[:]
        order = np.random.default_rng([epoch, number]).permutation(table.num_rows)
        self.num_read += table.num_rows
        sizes = np.array([len(text) for text in table["text"].to_pylist()])
        numbers = table["number"].to_numpy()[order]
        return Numbered(numbers if epoch == 0 else np.full_like(numbers, LATER), sizes[order])


@dataclass
class Numbered:
    numbers: np.ndarray
    sizes: np.ndarray

    def encode(self, rows: np.ndarray) -> Any:
        from fasttune.data.tokens.store import TokenStore

        places = np.arange(len(rows))
        return TokenStore({"input_ids": self.numbers[rows]}, np.arange(len(rows) + 1), places, np.zeros_like(places))

    def place(self, row: int) -> str:
        return str(self.numbers[row])


def read_epoch(path: Path, num_rows: int, rank: int, num_ranks: int, saved: Path) -> None:
    """Count the rows of one rank's share of an epoch; resume from `saved`, and save there now and then."""
    from itertools import islice

    from fasttune.data.batching.stream import BEGINNING, StreamSampler
    from fasttune.data.file_stream import open_stream
    from fasttune.data.formats.storage import ReadOptions

    windows = Numbers(open_stream(str(path), "train", ReadOptions(), 10_000, 1))
    counts, begin, first = np.zeros(num_rows, dtype=np.uint8), BEGINNING, 0
    if saved.exists():
        with np.load(saved) as found:
            counts, begin, first = found["counts"], tuple(found["begin"].tolist()), int(found["step"])
    memory = []
    steps = StreamSampler(windows, BATCH_SIZE, rank, num_ranks).steps(begin)
    for number, step in enumerate(islice(steps, -(-num_rows // BATCH_SIZE) - first), first + 1):
        for part in step.parts:
            if part.store is not None:
                numbers = part.store.inputs["input_ids"][part.examples]
                np.add.at(counts, numbers[numbers != LATER], 1)
        if number % STEPS_A_SAVE == 0:
            memory.append(psutil.Process().memory_info().rss)
            with saved.with_suffix(".new").open("wb") as file:
                np.savez(file, counts=counts, begin=np.array(step.after), step=number, memory=memory)
            saved.with_suffix(".new").replace(saved)
            print(number, flush=True)
    with saved.open("wb") as file:
        np.savez(file, counts=counts, begin=np.array(step.after), step=number, memory=memory)


def rows_lines(path: Path, num_rows: int, folder: Path, num_ranks: int) -> dict[str, Any]:
    """Kill every rank past KILL_AT and start it again."""
    begin = time.perf_counter()
    saved = [folder / f"{num_ranks}-{rank}.npz" for rank in range(num_ranks)]
    commands = [
        [sys.executable, __file__, "--read", str(path), str(num_rows), str(rank), str(num_ranks), str(saved[rank])]
        for rank in range(num_ranks)
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > KILL_AT * num_rows / BATCH_SIZE:
                break
        time.sleep(0.7)  # so that the kill interrupts a read
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for process in [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]:
        assert process.wait() == 0
    counts, memory = np.zeros(num_rows, dtype=np.int64), []
    for one in saved:
        with np.load(one) as found:
            counts += found["counts"]
            memory.append(found["memory"])
    return {
        "num_ranks": num_ranks,
        "seconds": time.perf_counter() - begin,
        "rows_missing": int((counts == 0).sum()),
        "rows_twice": int((counts > 1).sum()),
        "memory_after_resume_first": int(max(found[0] for found in memory)),
        "memory_after_resume_last": int(max(found[-1] for found in memory)),
    }


def train(recipe: Path, folder: Path, kill_at: int | None = None) -> dict[str, Any]:
    """One run in a separate process, optionally killed at a step: seconds to the first step, memory at steps."""
    command = [sys.executable, "-m", "fasttune", "train", str(recipe), "--output", str(folder), "--resume", "--quiet"]
    events = folder / "events.jsonl"
    before = events.read_text().count('"event": "step"') if events.exists() else 0
    begin, first, memory = time.perf_counter(), None, {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        own = psutil.Process(process.pid)
        while process.poll() is None:
            done = events.read_text().count('"event": "step"') if events.exists() else 0
            if done > before or 0 < done < before:  # a resume drops the steps after its checkpoint
                first = first or time.perf_counter() - begin
                memory[done] = own.memory_info().rss
                if kill_at is not None and done >= kill_at:
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.05)
        code = process.returncode
    return {"seconds_to_first_step": first, "memory": memory, "exit_code": code}


def training_lines(path: Path, folder: Path, steps: int) -> dict[str, Any]:
    import yaml

    from fasttune.data.starter import reviews

    held_out = folder / "validation.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in reviews.generate()["validation"]))
    recipe = {
        "data": {"train": str(path), "validation": str(held_out), "streaming": True},
        "training": {"max_steps": steps},
        "evaluation": {"eval_strategy": "steps", "eval_steps": steps},
        "output": {"save_strategy": "steps", "save_steps": 50},
    }
    written = folder / "recipe.yaml"
    written.write_text(yaml.safe_dump(recipe))
    whole = train(written, folder / "whole")
    killed = train(written, folder / "killed", KILL_AT_STEP)
    resumed = train(written, folder / "killed")
    weights = [hashlib.sha256((folder / run / "model.safetensors").read_bytes()) for run in ("whole", "killed")]
    assert killed["exit_code"] == -signal.SIGKILL
    return {
        "seconds_to_first_step": whole["seconds_to_first_step"],
        "memory": whole["memory"],
        "seconds_to_first_step_of_resume": resumed["seconds_to_first_step"],
        "weights_are_equal": weights[0].digest() == weights[1].digest(),
    }


def page(results: dict[str, Any], steps: int) -> str:
    lines = [f"# A stream of {results['gigabytes']:.1f} GB, {results['num_rows']:,} rows", ""]
    lines += ["| at the reader, no model | one process | two ranks |", "|---|---|---|"]
    one, two = results["rows"]
    for name, key in (
        ("seconds, the kill and the second start included", "seconds"),
        ("rows missing", "rows_missing"),
        ("rows twice", "rows_twice"),
    ):
        lines.append(f"| {name} | {one[key]:,.0f} | {two[key]:,.0f} |")
    for name, key in (("soon after the resume", "first"), ("at the end", "last")):
        values = [f"{one[f'memory_after_resume_{key}'] / 1e6:,.0f} MB" for one in results["rows"]]
        lines.append(f"| memory of a process {name} | {' | '.join(values)} |")
    trained = results["training"]
    memory = {int(step): value for step, value in trained["memory"].items()}
    at = [min(memory, key=lambda step: abs(step - wanted)) for wanted in (10, steps // 2, steps - 1)]
    equal = "equal" if trained["weights_are_equal"] else "DIFFERENT"
    lines += [
        "",
        f"| training, {steps} steps of the embedded model | |",
        "|---|---|",
        f"| from the command to the first step | {trained['seconds_to_first_step']:.1f} s |",
        f"| memory at steps {', '.join(map(str, at))} | {', '.join(f'{memory[step] / 1e6:,.0f} MB' for step in at)} |",
        f"| killed at step {KILL_AT_STEP}: from the command to the first step again "
        f"| {trained['seconds_to_first_step_of_resume']:.1f} s |",
        f"| weights at the end, killed compared with uninterrupted | {equal} |",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the rows are written; default: a temporary folder")
    parser.add_argument("--read", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        path, num_rows, rank, num_ranks, saved = arguments.read
        read_epoch(Path(path), int(num_rows), int(rank), int(num_ranks), Path(saved))
        return
    facts = machine()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        path = folder / "rows.jsonl"
        num_rows = write_rows(path, int(arguments.gigabytes * 1e9))
        results: dict[str, Any] = {"gigabytes": path.stat().st_size / 1e9, "num_rows": num_rows}
        results["training"] = training_lines(path, folder, arguments.steps)
        results["rows"] = [rows_lines(path, num_rows, folder, num_ranks) for num_ranks in (1, 2)]
    target = ROOT / "benchmarks" / "results" / f"{facts['date']}-streaming"
    target.with_suffix(".json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    title, rest = page(results, arguments.steps).split("\n", 1)
    target.with_suffix(".md").write_text(f"{title}\n\n{heading(facts)}\n{rest}\n")
    print(page(results, arguments.steps))


if __name__ == "__main__":
    main()
