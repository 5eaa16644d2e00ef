"""Signals in every phase of a run: it stops soon, prints how to resume, and resumes to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import pytest
from faulty import Ended, Fault, events, last_step, make_recipe, run_cli, sha256, train, trouble

import fasttune
from fasttune.runs.folder import RunFolder
from fasttune.training import signals
from fasttune.training.events import Event, StepDone

needs_shim = pytest.mark.skipif(not forks.CAN_INJECT_FAULTS, reason="needs Linux and gcc")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


def check_stopped(ended: Ended, number: signal.Signals, recipe: Path, run: Path, expected: str) -> None:
    """Stopped by the signal, not by a fault or the end of the run, and resumed to the same bytes."""
    assert ended.code == CODES[number] and "Traceback" not in ended.output, ended.output
    assert f"stopped by {number.name}. Resume with: fasttune train {recipe} --output {run} --resume" in ended.output
    assert trouble(run) == []
    assert run_cli(train(recipe, run)).code == 0
    assert sha256(run) == expected


# A few fixed instants; benchmarks/stops.py tries 100 random ones, and signals one of two processes.
@needs_shim
@pytest.mark.parametrize(
    ("number", "share"),
    [(signal.SIGTERM, 0.0), (signal.SIGINT, 0.2), (signal.SIGUSR1, 0.5), (signal.SIGTERM, 0.8), (signal.SIGINT, 0.95)],
)
def test_a_signal_at_any_change_of_a_file(
    recipe: Path, expected: str, calls: list[str], tmp_path: Path, number: signal.Signals, share: float
) -> None:
    """`share`: of the changes of files in a whole run, from the first one to its results."""
    run = tmp_path / "run"
    at = 1 + int(share * len(calls))
    ended = run_cli(train(recipe, run), Fault(str(run), at=at, error=-number))
    check_stopped(ended, number, recipe, run, expected)


def test_a_signal_before_anything_is_written(recipe: Path, expected: str, tmp_path: Path) -> None:
    ended = run_cli(train(recipe, tmp_path / "run"), signal=signal.SIGTERM)
    check_stopped(ended, signal.SIGTERM, recipe, tmp_path / "run", expected)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_in_a_finaliser_still_stops_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasttune.training import prepare

    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    read_splits = prepare.read_splits

    def reading(*arguments: Any) -> Any:
        Finalised()  # its exception ends here
        return read_splits(*arguments)

    monkeypatch.setattr(prepare, "read_splits", reading)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert (run.signal, run.reason) == (signal.SIGTERM, "stopped by SIGTERM")
    assert not RunFolder(tmp_path / "run").is_run, "before the first step"


def test_a_signal_in_an_evaluation_ends_it_and_it_is_made_up_for(
    recipe: Path, undisturbed: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasttune.training import scoring

    stopped = []
    any_more = scoring.any_rank_has_more

    def told_in_the_second_evaluation(has_more: bool) -> bool:
        if not stopped and reached and has_more:
            stopped.append(True)
            signal.raise_signal(signal.SIGTERM)
        return any_more(has_more)

    reached: list[int] = []

    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 8:
            reached.append(8)

    monkeypatch.setattr(scoring, "any_rank_has_more", told_in_the_second_evaluation)
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


@needs_shim
def test_a_lost_terminal_stops_nothing(recipe: Path, expected: str, calls: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = run_cli(train(recipe, run), Fault(str(run), at=len(calls) // 2, error=-signal.SIGHUP))
    assert ended.code == 0 and sha256(run) == expected


CLOSED_STREAMS = """
import os
for descriptor in (1, 2):  # pipes whose readers are gone
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, descriptor)
from fasttune.__main__ import main
main()
"""


def test_closed_streams_stop_nothing(recipe: Path, expected: str, tmp_path: Path) -> None:
    script = tmp_path / "closed.py"
    script.write_text(CLOSED_STREAMS)
    assert forks.run(train(recipe, tmp_path / "run"), script=script).returncode == 0
    assert sha256(tmp_path / "run") == expected


def test_a_whole_group_is_told(tmp_path: Path) -> None:
    """As a scheduler does it: helpers of the process must not fall before it has saved."""
    recipe = make_recipe(tmp_path, num_steps=1500)
    command = [sys.executable, "-m", "fasttune", *train(recipe, tmp_path / "run")]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        forks.wait_for(lambda: last_step(tmp_path / "run") >= 20, process)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "Resume with:" in said and trouble(tmp_path / "run") == []
