"""Predict 1,000,000 short rows: memory over time, a kill and a resume.

    python benchmarks/predict_many.py FOLDER [--rows 100000 1000000]

The model is a two-layer BERT of width 32, as in the tests, so reading and writing are most of the work. FOLDER keeps
the model, the rows and the predictions. After the numbers of rows, the largest is predicted once more, killed with
SIGKILL after 35 parts, and continued; the outputs must have the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
from sides import ROOT, heading, machine

sys.path.insert(0, str(ROOT / "tests"))
WORDS = (
    "good",
    "bad",
    "food",
    "room",
    "staff",
    "never",
    "again",
    "great",
    "soup",
    "cold",
    "warm",
    "clean",
    "rude",
    "slow",
)
PARTS_BEFORE_KILL = 35


def made(folder: Path) -> Path:
    """A run of a few steps."""
    from tiny import make_rows, save_tiny_model, write_csv

    import fasttune

    run = folder / "run"
    if not (run / "all_results.json").exists():
        recipe = {
            "model": str(save_tiny_model(folder / "model")),
            "data": {"train": str(write_csv(folder / "train.csv", make_rows(200)))},
            "training": {"preset": "tutorial", "max_steps": 20},
            "output": {"report": False},
            "tracking": {"report_to": "none"},
        }
        fasttune.fit(recipe, output=run, progress=False)
    return run


def rows(folder: Path, number: int) -> Path:
    path, rng = folder / f"{number}.csv", random.Random(number)
    if not path.exists():
        with path.open("w") as file:
            file.write("id,text\n")
            for row in range(number):
                file.write(f"r{row},{' '.join(rng.choices(WORDS, k=rng.randint(4, 12)))}\n")
    return path


def predicted(run: Path, data: Path, output: Path, num_parts: int | None = None) -> tuple[float, float, float]:
    """Seconds, and the largest resident memory in the first and the second half of the time, in MiB.

    `num_parts`: after which the process is killed.
    """
    command = [sys.executable, "-m", "fasttune", "predict", str(run), "--data", str(data), "--output", str(output)]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched, memory = psutil.Process(process.pid), []
    parts = output.with_name(f".{output.name}.parts")
    while process.poll() is None:
        memory.append(watched.memory_info().rss / 2**20)
        if num_parts is not None and len(list(parts.glob("*.jsonl"))) >= num_parts:
            process.kill()
            process.wait()
        time.sleep(0.2)
    half = len(memory) // 2
    return time.perf_counter() - begin, max(memory[:half]), max(memory[half:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments = parser.parse_args()
    folder, facts = arguments.folder, machine()
    folder.mkdir(parents=True, exist_ok=True)
    run, largest = made(folder), max(arguments.rows)
    calls = [(f"{number:,} rows", number, folder / f"{number}.jsonl", None) for number in arguments.rows]
    again = folder / "again.jsonl"
    calls += [("the last, killed", largest, again, PARTS_BEFORE_KILL), ("and continued", largest, again, None)]
    lines = [
        "# Predicting many rows",
        "",
        heading(facts),
        "",
        "| call | seconds | largest memory in the first half, MiB | in the second half |",
        "|---|---|---|---|",
    ]
    for name, number, output, num_parts in calls:
        seconds, first, second = predicted(run, rows(folder, number), output, num_parts)
        lines.append(f"| {name} | {seconds:.1f} | {first:.0f} | {second:.0f} |")
        print(lines[-1], flush=True)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / f"{largest}.jsonl", again)}
    assert len(digests) == 1, "the outputs differ"
    assert sum(1 for _ in again.open()) == largest
    lines += ["", "The output of the continued call has the bytes of the one that was not killed, and every row once."]
    (ROOT / "benchmarks" / "results" / f"{facts['date']}-predict-many.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
