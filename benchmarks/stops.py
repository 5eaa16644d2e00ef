"""Send signals at random instants: does a run stop soon, with the right exit code, and resume to the same end?

    python benchmarks/stops.py [--trials 100] [--with-two 20]

A single process gets a signal at a random instant, uniform over the run once its handlers are installed. With two
processes (torchrun, gloo), one of them gets it. The same command is then repeated until the run ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from sides import ROOT, heading, machine

sys.path.insert(0, str(ROOT / "tests"))
from faulty import make_recipe, run_cli, sha256, train, trouble

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}
LIMIT = 120.0  # seconds until a run counts as hung
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fasttune"]


def one_process(folder: Path, trials: int) -> list[dict[str, Any]]:
    recipe, places, found = make_recipe(folder), random.Random(1), []
    run_cli(train(recipe, folder / "undisturbed"))
    # Time a second run, because the first fork waits for the server to load its libraries.
    seconds = run_cli(train(recipe, folder / "again")).seconds
    expected = sha256(folder / "undisturbed")
    for _ in range(trials):
        number, after = places.choice(list(CODES)), places.uniform(0.0, seconds)
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        ended = run_cli(train(recipe, run), signal=number, after=after, limit=LIMIT)
        problems = trouble(run)
        said = "resume with: " in ended.output and "Traceback" not in ended.output
        again = run_cli(train(recipe, run), limit=LIMIT)
        found.append(
            {
                "processes": 1,
                "signal": number.name,
                "after": round(after, 3),
                "code": ended.code,
                "right": ended.code == 0 or (ended.code == CODES[number] and said),
                "seconds_to_stop": round(ended.seconds - after, 3),
                "trouble": problems,
                "same_end": again.code == 0 and sha256(run) == expected,
            }
        )
        print(found[-1], flush=True)
    return found


def two_processes(folder: Path, trials: int) -> list[dict[str, Any]]:
    recipe, places, found = make_recipe(folder, num_steps=60), random.Random(2), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    expected = ""
    for trial in range(trials + 1):
        run = folder / f"run-{trial}"
        arguments = [*LAUNCH, *train(recipe, run)]
        number, begin = places.choice([signal.SIGTERM, signal.SIGUSR1]), time.monotonic()
        output = folder / "output"
        with (
            output.open("w") as file,
            subprocess.Popen(arguments, env=environment, stdout=file, stderr=file) as launcher,
        ):
            if trial == 0:  # undisturbed
                launcher.wait(LIMIT)
                expected = sha256(run)
                continue
            ranks = workers_of(launcher)
            after = wait_until_some_phase(run, places)
            told, moment = places.choice(ranks), time.monotonic()
            if told.is_running():
                told.send_signal(number)
            try:
                code = launcher.wait(LIMIT)
            except subprocess.TimeoutExpired:
                code = None
                launcher.kill()
        stopped = time.monotonic() - moment
        problems = trouble(run)
        again = subprocess.run(arguments, env=environment, capture_output=True, timeout=LIMIT)
        text = output.read_text(errors="replace")
        found.append(
            {
                "processes": 2,
                "signal": number.name,
                "after": f"{moment - begin:.1f} s, {after}",
                "code": code,
                # torchrun's own exit code is 1 if a worker's is not 0; its report has the workers' codes.
                "right": code is not None and (code == 0 or f"exitcode  : {CODES[number]}" in text or "SIG" in text),
                "seconds_to_stop": round(stopped, 3),
                "trouble": problems,
                "same_end": again.returncode == 0 and sha256(run) == expected,
            }
        )
        print(found[-1], flush=True)
        shutil.rmtree(run)
    return found


def workers_of(launcher: subprocess.Popen) -> list[psutil.Process]:
    while len(found := psutil.Process(launcher.pid).children()) < 2:
        time.sleep(0.05)
    return found


def wait_until_some_phase(run: Path, places: random.Random) -> str:
    """Wait until import, reading, training or finalizing."""
    phase = places.choice(["import", "reading", "training", "training", "training", "end"])
    if phase == "import":
        time.sleep(places.uniform(0.5, 3.0))
    until = {"reading": run / ".lock", "training": run / "events.jsonl", "end": run / "model.safetensors"}.get(phase)
    begin = time.monotonic()
    while until is not None and not until.exists() and time.monotonic() - begin < LIMIT:
        time.sleep(0.005)
    if phase == "training":
        time.sleep(places.uniform(0.0, 1.0))
    return phase


def summary(trials: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    lines = ["# Signals", "", heading(facts), ""]
    lines += [
        "| processes | signal | trials | hung | right exit code | finished before the signal "
        "| seconds to stop, median and maximum | broken or lost checkpoints | same result after resuming |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key in sorted({(trial["processes"], trial["signal"]) for trial in trials}):
        own = [trial for trial in trials if (trial["processes"], trial["signal"]) == key]
        seconds = sorted(trial["seconds_to_stop"] for trial in own if trial["code"] != 0) or [0.0]
        lines.append(
            f"| {key[0]} | {key[1]} | {len(own)} | {sum(trial['code'] is None for trial in own)} "
            f"| {sum(trial['right'] for trial in own)} | {sum(trial['code'] == 0 for trial in own)} "
            f"| {seconds[len(seconds) // 2]:.2f}, {seconds[-1]:.2f} | {sum(bool(trial['trouble']) for trial in own)} "
            f"| {sum(trial['same_end'] for trial in own)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--with-two", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = one_process(Path(folder) / "one", arguments.trials)
        found += two_processes(Path(folder) / "two", arguments.with_two)
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-stops"
    path.with_suffix(".json").write_text(json.dumps(found, indent=1))
    path.with_suffix(".md").write_text(summary(found, machine()))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
