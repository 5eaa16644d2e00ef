"""A harness for faults: runs of the command line that are killed, signalled, or whose disk fails at a chosen call.

    run_cli(["train", ...], Fault(folder, at=17))      killed before the 17th change of a file there
    run_cli(["train", ...], Fault(folder, at=17, error=-SIGTERM))      sends that signal there and continues
    run_cli(["train", ...], Fault(folder, at=1, error=errno.ENOSPC, times=30))
    run_cli(["train", ...], signal=SIGTERM, after=0.8)      seconds after its handlers are there

Each run is a fork (see forks.py), and takes about a second with a tiny model. Faults take Linux and gcc.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal as signals
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import forks
import yaml
from tiny import make_rows, save_tiny_model, write_csv

from fasttune.errors import CheckpointError
from fasttune.runs.checkpoint.find import all_steps, newest_good
from fasttune.runs.checkpoint.verify import fault as fault_of
from fasttune.runs.checkpoint.write import path_of
from fasttune.runs.folder import RunFolder, read_json
from fasttune.training.events import Event, StepDone


@dataclass(frozen=True)
class Fault:
    """What `faults/shim.c` does to write, fsync, rename, unlink, mkdir and open below `folder`."""

    folder: str
    at: int = 0  # the number of the call, from 1
    error: int = 0  # an errno; 0: killed; -N: signal N is sent, and the call continues
    times: int = 1  # how many calls fail; 0: all from there
    bytes: int = -1  # that can be written before the disk is full
    calls: str = ""  # only these, blanks between
    until: str = ""  # once this file is there, nothing fails
    log: str = ""  # the file in which each call is logged


@dataclass(frozen=True)
class Ended:
    """`code` as subprocess has it (negative: killed by that signal), None where the run hung until its limit."""

    code: int | None
    output: str  # stdout, then stderr
    seconds: float


def run_cli(
    arguments: Sequence[str],
    fault: Fault | None = None,
    *,
    signal: int | None = None,
    after: float = 0.0,
    limit: float = forks.LIMIT,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    begin = time.monotonic()
    with forks.start(arguments, fault=asdict(fault) if fault else None, environment=environment) as fork:
        if signal is not None:
            if signal != signals.SIGKILL:
                forks.wait_for(lambda: catches_signals(fork.pid), fork)
            time.sleep(after)
            fork.send_signal(signal)
        try:
            code: int | None = fork.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
    seconds = time.monotonic() - begin
    return Ended(code, fork.stdout.read_text(errors="replace") + fork.stderr.read_text(errors="replace"), seconds)


def catches_signals(pid: int) -> bool:
    """Whether fasttune's handlers are there; SIGHUP's is the last to come."""
    try:
        mask = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return False
    return mask is not None and bool(int(mask[1], 16) >> (signals.SIGHUP - 1) & 1)


def make_recipe(folder: Path, num_steps: int = 12, **training: Any) -> Path:
    """A recipe of a run of about a second, with dropout, an evaluation every 4 and a checkpoint every 2 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {
        "model": str(save_tiny_model(folder / "model")),
        "data": {"train": str(write_csv(folder / "reviews.csv", make_rows(80))), "validation_fraction": 0.25},
        "training": {
            "preset": "tutorial",
            "max_steps": num_steps,
            "learning_rate": 1e-3,
            "precision": "fp32",
            "device": "cpu",
            **training,
        },
        "evaluation": {"eval_strategy": "steps", "eval_steps": 4, "metric_for_best_model": "loss"},
        "output": {"save_strategy": "steps", "save_steps": 2},
        "tracking": {"report_to": "none"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def train(recipe: Path, run: Path, *more: str) -> list[str]:
    """The command line that serves for the first start and for every restart."""
    return ["train", str(recipe), *more, "--output", str(run), "--resume"]


def sha256(run: Path) -> str:
    """Of what a run ends with: the published weights, the last weights and moments, the predictions."""
    folder = RunFolder(run)
    last = path_of(folder.checkpoints, all_steps(folder.checkpoints)[-1])
    digest = hashlib.sha256(last.name.encode())
    files = (
        folder.weights,
        last / "model.safetensors",
        last / "optimizer.safetensors",
        folder.predictions("validation"),
    )
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stop_at(step: int, here: bool = True) -> Callable[[Event], None]:
    """An observer that asks for a stop as a scheduler does; `here`: in this process of several."""

    def observer(event: Event) -> None:
        if here and isinstance(event, StepDone) and event.step == step:
            signals.raise_signal(signals.SIGTERM)

    return observer


def trouble(run: Path) -> list[str]:
    """Checkpoints that are visible and not whole, and those that were reported as saved and have no successor."""
    folder = RunFolder(run)
    if not folder.is_run:
        return []
    run_id = read_json(folder.environment)["run_id"]
    found = []
    for step in all_steps(folder.checkpoints):
        problem = fault_of(path_of(folder.checkpoints, step), run_id)
        if problem is not None:
            found.append(f"visible, but corrupt: checkpoint-{step}: {problem}")
    acknowledged = max((event["step"] for event in events(run) if is_saved(event)), default=0)
    try:
        newest, _ = newest_good(folder.checkpoints, run_id)
    except CheckpointError:
        newest = None
    if acknowledged > (newest.step if newest else 0):
        found.append(f"acknowledged, but lost: step {acknowledged}, the newest is {newest and newest.step}")
    return found


def last_step(run: Path) -> int:
    """The newest step in events.jsonl; 0 where there is none."""
    return max((event["step"] for event in events(run)), default=0)


def is_saved(event: dict[str, Any]) -> bool:
    return event["event"] == "checkpoint" and event["failure"] is None


def events(run: Path) -> list[dict[str, Any]]:
    """Whole lines of events.jsonl."""
    path = RunFolder(run).events
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
