"""`--restarts`: a run that is killed from outside resumes automatically; other failures end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import forks
import psutil
import pytest
from faulty import events, last_step, make_recipe

from fasttune.cli import commands as cli

NUM_STEPS, KILL_AT = 40, 10


def started(recipe: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fasttune", "train", str(recipe), *more, "--output", str(run), "--restarts", "2"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def child_of(process: subprocess.Popen[str], run: Path, step: int) -> psutil.Process:
    """The process that trains, once it has come so far."""
    forks.wait_for(lambda: last_step(run) >= step, process)
    return psutil.Process(process.pid).children()[0]


@pytest.fixture(scope="module")
def long_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("long"), num_steps=NUM_STEPS)


@pytest.mark.slow
def test_a_killed_run_goes_on_by_itself(long_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started(long_recipe, run) as process:
        child_of(process, run, KILL_AT).kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "the run was killed (exit code -9): restart 1 of 2" in said and "resuming from" in said
    steps = [event["step"] for event in events(run) if event["event"] == "step"]
    assert steps == list(range(1, NUM_STEPS + 1))


@pytest.mark.slow
def test_a_signal_to_the_command_itself_ends_it(long_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started(long_recipe, run) as process:
        child_of(process, run, KILL_AT)
        os.kill(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143 and "restart" not in said.replace("--restarts", "")


@pytest.mark.slow
def test_an_error_is_not_tried_again(long_recipe: Path, tmp_path: Path) -> None:
    with started(long_recipe, tmp_path / "run", "data.train=nowhere.csv") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 4 and said.count("error: E101") == 1


def test_a_folder_has_to_be_named(long_recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["train", str(long_recipe), "--restarts", "2"]) == 2
    assert "hint: add --output runs/NAME" in capsys.readouterr().err
