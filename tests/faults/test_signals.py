"""Signals in every phase of a run: it stops soon, says how to go on, and goes on to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty import Ended, Server, events, make_recipe, sha256, train, trouble

import fasttune
from fasttune import signals
from fasttune.engine.events import Event, StepDone

pytestmark = pytest.mark.slow
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


# benchmarks/signals.py has a hundred random instants, and two processes of which one is told
@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGTERM, 0.02), (signal.SIGINT, 0.3), (signal.SIGUSR1, 0.5), (signal.SIGTERM, 0.7), (signal.SIGINT, 0.9)],
)
def test_a_signal_at_any_time(
    place: Path, server: Server, recipe: Path, expected: str, number: signal.Signals, after: float
) -> None:
    run = place / "signalled"
    shutil.rmtree(run, ignore_errors=True)
    ended = server.run(train(recipe, run), signal=number, after=after)
    if ended.code != 0:  # it was over before the signal came
        assert ended.code == CODES[number] and "Traceback" not in ended.output
        assert f"stopped by {number.name}. resume with: fasttune train {recipe} --output {run} --resume" in ended.output
    assert trouble(run) == []
    assert server.run(train(recipe, run)).code == 0
    assert sha256(run) == expected


def test_a_signal_in_an_evaluation_ends_it_and_it_is_made_up_for(
    recipe: Path, undisturbed: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasttune.engine import evaluation

    stopped = []
    go_on = evaluation.go_on

    def told_in_the_second_evaluation(has_more: bool) -> bool:
        if not stopped and reached and has_more:
            stopped.append(True)
            signal.raise_signal(signal.SIGTERM)
        return go_on(has_more)

    reached: list[int] = []

    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 8:
            reached.append(8)

    monkeypatch.setattr(evaluation, "go_on", told_in_the_second_evaluation)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer])
    assert (run.signal, run.reason) == (signal.SIGTERM, "stopped by SIGTERM")
    assert [event["step"] for event in events(run.folder) if event["event"] == "evaluation"] == [4]
    assert (run.folder / "checkpoints" / "checkpoint-8").is_dir()
    fasttune.fit(recipe, output=run.folder, progress=False, resume=True)
    scores = [
        [event["eval_loss"] for event in events(one) if event["event"] == "evaluation"]
        for one in (run.folder, undisturbed)
    ]
    assert scores[0] == scores[1] and len(scores[0]) == 3
    assert sha256(run.folder) == expected


def test_a_second_ctrl_c_stops_at_once(recipe: Path, tmp_path: Path) -> None:
    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer])
    assert (run.is_complete, run.signal) == (False, signal.SIGINT)
    assert not (run.folder / "checkpoints" / "checkpoint-3").exists() and trouble(run.folder) == []


def test_other_second_signals_change_nothing(recipe: Path, tmp_path: Path) -> None:
    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer])
    assert run.signal == signal.SIGTERM and (run.folder / "checkpoints" / "checkpoint-3").is_dir()


def test_handlers_are_the_caller_s_again(recipe: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (*signals.STOPS, signal.SIGHUP)]
    fasttune.fit(recipe, output=tmp_path / "run", progress=False, training={"max_steps": 1})
    assert [signal.getsignal(number) for number in (*signals.STOPS, signal.SIGHUP)] == before
    assert signals.pending() is None


def test_a_lost_terminal_stops_nothing(place: Path, server: Server, recipe: Path, expected: str) -> None:
    run = place / "terminal"
    ended = server.run(train(recipe, run), signal=signal.SIGHUP, after=0.5)
    assert ended.code == 0 and sha256(run) == expected


def closed(arguments: list[str], *streams: str) -> Ended:
    """The command with pipes whose reading ends are closed at once."""
    command = [sys.executable, "-m", "fasttune", *arguments]
    begin = time.monotonic()
    pipes = {name: os.pipe() for name in streams}
    for reading, _ in pipes.values():
        os.close(reading)
    writing = {name: pipe[1] for name, pipe in pipes.items()}
    done = subprocess.run(command, timeout=120, **writing)
    for descriptor in writing.values():
        os.close(descriptor)
    return Ended(done.returncode, "", time.monotonic() - begin)


def test_closed_streams_stop_nothing(recipe: Path, expected: str, tmp_path: Path) -> None:
    assert closed(train(recipe, tmp_path / "run"), "stdout", "stderr").code == 0
    assert sha256(tmp_path / "run") == expected


def test_a_whole_group_is_told(tmp_path: Path) -> None:
    """As a scheduler does it: helpers of the process must not fall before it has saved."""
    recipe = make_recipe(tmp_path, num_steps=1500)
    command = [sys.executable, "-m", "fasttune", *train(recipe, tmp_path / "run")]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        while not events(tmp_path / "run") or events(tmp_path / "run")[-1]["step"] < 20:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "resume with:" in said and trouble(tmp_path / "run") == []
