"""Events on disk: every line whole, none of a lost part, and curves that TensorBoard reads."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fasttune.training.callbacks.files import EventLog, TensorBoard
from fasttune.training.events import Evaluated, Event, Finished, Started, StepDone


def step(number: int, loss: float | None = None) -> StepDone:
    return StepDone(
        step=number, epoch=number / 4, loss=1 / number if loss is None else loss, learning_rate=0.1 * number,
        grad_norm=2.0, num_tokens=100, num_microbatches=1, seconds=0.5,
    )  # fmt: skip


def started(number: int = 0) -> Started:
    return Started(step=number, epoch=0.0, num_steps=9, num_examples=1, batch_size=8, num_processes=1)


def write(path: Path, events: list[Event], resumed_step: int | None = None) -> None:
    log = EventLog(path, resumed_step)
    for event in events:
        assert log(event) is None
    log.close()


def read(path: Path) -> list[tuple]:
    return [(event["event"], event["step"]) for event in map(json.loads, path.read_text().splitlines())]


def test_an_event_is_one_object_a_line_with_all_it_says(tmp_path: Path) -> None:
    evaluated = Evaluated(step=2, epoch=0.5, metrics={"eval_loss": 0.5, "eval_accuracy": 1.0}, is_best=True)
    write(tmp_path / "new" / "events.jsonl", [step(2), evaluated])
    first, second = map(json.loads, (tmp_path / "new" / "events.jsonl").read_text().splitlines())
    assert isinstance(first.pop("time"), float) and isinstance(second.pop("time"), float)
    assert first == {
        "event": "step", "step": 2, "epoch": 0.5, "loss": 0.5, "learning_rate": 0.2, "grad_norm": 2.0,
        "num_tokens": 100, "num_microbatches": 1, "seconds": 0.5,
    }  # fmt: skip
    assert second == {
        "event": "evaluation", "step": 2, "epoch": 0.5, "eval_loss": 0.5, "eval_accuracy": 1.0, "is_best": True,
    }  # fmt: skip


def test_a_line_is_on_disk_before_the_next_event(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", None)
    log(step(1))
    assert read(tmp_path / "events.jsonl") == [("step", 1)]
    log.close()


def test_lines_after_the_step_resumed_from_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    finished = Finished(step=2, epoch=0.5, reason="stopped by SIGINT")
    write(path, [started(), step(1), step(2), finished, step(3), step(4)])
    kept = path.read_text().splitlines()[:3]
    write(path, [started(2), step(3)], resumed_step=2)
    assert read(path) == [("start", 0), ("step", 1), ("step", 2), ("start", 2), ("step", 3)]
    assert path.read_text().splitlines()[:3] == kept, "byte for byte"


def test_a_new_run_begins_with_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, [step(1)])
    write(path, [step(7)], resumed_step=None)
    assert read(path) == [("step", 7)]


@pytest.mark.parametrize("cut", ['{"event": "step", "st', '{"event": "step", "step": 2, "loss": 0.1', "\0\0\0"])
def test_a_last_line_that_a_kill_cut_short_is_dropped(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "events.jsonl"
    write(path, [step(1)])
    with path.open("a") as file:
        file.write(cut)
    write(path, [step(2)], resumed_step=1)
    assert read(path) == [("step", 1), ("step", 2)]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    write(tmp_path / "events.jsonl", [step(1, float("nan")), step(2, float("inf")), step(3, float("-inf"))])
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=refuse)["loss"] for line in lines]
    assert found == [None, None, None]


def test_labels_and_reasons_stay_readable(tmp_path: Path) -> None:
    write(tmp_path / "events.jsonl", [Finished(step=1, epoch=1.0, reason="好 \n end")])
    (line,) = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert "好" in line and json.loads(line)["reason"] == "好 \n end"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the reader and of protobuf, not ours
def test_tensorboard_reads_the_curves_and_a_resume_draws_no_point_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    board = TensorBoard(tmp_path, logging_steps=2, resumed_step=None)
    for number in range(1, 7):
        board(step(number))
    board(Evaluated(step=6, epoch=1.5, metrics={"eval_loss": 9.0}))
    board.close()
    time.sleep(1)  # TensorBoard reads files in the order of their names, which within a second need not be that of time
    board = TensorBoard(tmp_path, logging_steps=2, resumed_step=4)
    for number in range(5, 9):
        board(step(number))
    board(Evaluated(step=8, epoch=2.0, metrics={"eval_loss": 0.25, "eval_accuracy": 0.75}))
    board.close()
    found = scalars(tmp_path)
    assert found["train/loss"] == [(number, pytest.approx(1 / number)) for number in (2, 4, 6, 8)]
    assert found["train/learning_rate"] == [(number, pytest.approx(0.1 * number)) for number in (2, 4, 6, 8)]
    assert found["train/tokens_per_second"] == [(number, 200.0) for number in (2, 4, 6, 8)]
    assert found["eval/loss"] == [(8, 0.25)] and found["eval/accuracy"] == [(8, 0.75)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_that_cannot_be_written_are_said_once_and_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    said: list[str] = []
    board = TensorBoard(tmp_path, logging_steps=1, resumed_step=None, log=said.append)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board.writer, "add_scalar", refuse)
    board(step(1))
    board(step(2))
    board.close()
    assert said == ["warning: could not write TensorBoard's file (No space left on device); no more curves"]
