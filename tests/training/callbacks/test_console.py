"""The progress that a run prints."""

from __future__ import annotations

import pytest

from fasttune.training.callbacks import console
from fasttune.training.callbacks.console import ConsoleLog
from fasttune.training.events import Evaluated, Event, Finished, SaveDue, Started, StepDone


def step(number: int, loss: float, num_tokens: int = 1000, seconds: float = 0.5) -> StepDone:
    return StepDone(
        step=number, epoch=number / 4, loss=loss, learning_rate=5e-5, grad_norm=1.0, num_tokens=num_tokens,
        num_microbatches=1, seconds=seconds,
    )  # fmt: skip


METRICS = {"eval_loss": 0.51239, "eval_accuracy": 0.75, "eval_runtime": 1.0, "eval_samples_per_second": 9.0}
EVENTS: list[Event] = [
    Started(step=0, epoch=0.0, num_steps=5, num_examples=1200, batch_size=8, num_processes=1),
    step(1, 0.9),
    step(2, 0.7),
    step(3, 0.6, num_tokens=4000),
    Evaluated(step=4, epoch=1.0, metrics=METRICS, is_best=True),
    step(4, 0.4, num_tokens=4000),
    SaveDue(step=4, epoch=1.0),
    step(5, 0.3, num_tokens=10_000, seconds=2.0),
    Evaluated(step=5, epoch=1.25, metrics={"eval_loss": 0.6}),
    Finished(step=5, epoch=1.25, reason="all 5 steps done"),
]


@pytest.fixture(autouse=True)
def same_memory_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "gigabytes_in_use", lambda: 1.26)


def shown(log: ConsoleLog, events: list[Event], capsys: pytest.CaptureFixture) -> list[str]:
    for event in events:
        assert log(event) is None, "who only shows never stops a run"
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_plain_lines_where_nobody_watches(capsys: pytest.CaptureFixture) -> None:
    """The loss is the mean since the last line, the speed the mean over all steps so far."""
    assert shown(ConsoleLog(logging_steps=2, terminal=False), EVENTS, capsys) == [
        "training: 1,200 examples, 5 steps of 8",
        "step 2/5 | epoch 0.50 | loss 0.8000 | lr 5.0e-05 | 2,000 tokens/s | 0:00:02 left | 1.3 GB",
        "evaluation at step 4, epoch 1.00 | loss 0.5124 | accuracy 0.7500 | best so far",
        "step 4/5 | epoch 1.00 | loss 0.5000 | lr 5.0e-05 | 5,000 tokens/s | 0:00:00 left | 1.3 GB",
        "step 5/5 | epoch 1.25 | loss 0.3000 | lr 5.0e-05 | 5,000 tokens/s | 0:00:00 left | 1.3 GB",
        "evaluation at step 5, epoch 1.25 | loss 0.6000",
        "training ended at step 5 of 5: all 5 steps done",
    ]


def test_a_resumed_run_says_where_it_goes_on(capsys: pytest.CaptureFixture) -> None:
    started = Started(step=40, epoch=1.0, num_steps=1000, num_examples=320, batch_size=8, num_processes=1)
    assert shown(ConsoleLog(10, terminal=False), [started], capsys) == [
        "training: 320 examples, 1,000 steps of 8, resuming after step 40"
    ]


def test_a_stopped_run_says_why(capsys: pytest.CaptureFixture) -> None:
    finished = Finished(step=3, epoch=0.75, reason="stopped by SIGTERM")
    assert shown(ConsoleLog(10, terminal=False), [EVENTS[0], finished], capsys)[-1] == (
        "training ended at step 3 of 5: stopped by SIGTERM"
    )


def test_lines_are_never_read_as_markup(capsys: pytest.CaptureFixture) -> None:
    log = ConsoleLog(10, terminal=False)
    log.log("[red]a[/red] [/] :smile: " + "long " * 60)
    assert capsys.readouterr().err == "[red]a[/red] [/] :smile: " + "long " * 60 + "\n"


def test_on_a_terminal_a_bar_takes_the_place_of_the_step_lines(capsys: pytest.CaptureFixture) -> None:
    lines = shown(ConsoleLog(logging_steps=2, terminal=True), EVENTS, capsys)
    assert not any(line.startswith("step ") for line in lines)
    assert lines[0] == "training: 1,200 examples, 5 steps of 8"
    assert lines[-1].endswith("training ended at step 5 of 5: all 5 steps done")


def test_closing_twice_or_before_the_start_is_fine() -> None:
    log = ConsoleLog(10, terminal=True)
    log.close()
    log(EVENTS[0])
    log.close()
    log.close()
    assert log.progress is not None and not log.progress.live.is_started
