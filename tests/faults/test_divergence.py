"""Losses that are not finite, or far from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from faulty import events, make_recipe, sha256, stop_at
from torch.amp import GradScaler

import fasttune
from fasttune.cli import commands as cli
from fasttune.data.batching.collate import MicroBatch
from fasttune.errors import DivergedError
from fasttune.tasks.text_classification import TextClassification
from fasttune.training import loop
from fasttune.training.events import Event, LossSpike, StepDone
from fasttune.training.step import StepResult

BROKEN = 7  # the step that diverges


def broken_steps(monkeypatch: pytest.MonkeyPatch, *steps: int, loss: float = float("nan")) -> None:
    """In these steps the loss is what a broken batch makes of it; the weights are left alone, as by the real step."""
    real = loop.run_step

    def run_step(**how: Any) -> StepResult:
        if how["seed"][1] + 1 in steps:
            return StepResult(loss, loss, 10, 0.01)
        return real(**how)

    monkeypatch.setattr(loop, "run_step", run_step)


def test_rollback_leaves_the_batch_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(tmp_path, divergence_policy="rollback")
    broken_steps(monkeypatch, BROKEN)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    told = events(run.folder)
    assert [event["step"] for event in told if event["event"] == "step"] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    diverged = next(event for event in told if event["event"] == "diverged")
    assert diverged["loss"] == "nan" and diverged["step"] == BROKEN - 1 and len(diverged["rows"]) == 8
    back = next(event for event in told if event["event"] == "rolled_back")
    assert (back["step"], back["skipped"]) == (6, BROKEN)
    assert "training diverged at steps 7 and resumed" in (run.folder / "README.md").read_text()
    assert run.metrics["train_loss"] == pytest.approx(
        sum(event["loss"] for event in told if event["event"] == "step") / 11
    )


def test_a_rolled_back_run_is_resumed_as_it_would_have_gone_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(tmp_path, divergence_policy="rollback")
    broken_steps(monkeypatch, BROKEN)
    whole = fasttune.fit(recipe, output=tmp_path / "whole", progress=False)

    fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[stop_at(9)])
    resumed = fasttune.fit(recipe, output=tmp_path / "run", progress=False, resume=True)
    assert sha256(resumed.folder) == sha256(whole.folder)


def test_rollback_before_the_first_checkpoint_goes_back_to_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path, divergence_policy="rollback")
    broken_steps(monkeypatch, 2)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert [event["step"] for event in events(run.folder) if event["event"] == "rolled_back"] == [0]


def test_rollback_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(tmp_path, divergence_policy="rollback")
    broken_steps(monkeypatch, *range(BROKEN, 13))
    with pytest.raises(DivergedError, match=r"E601 step 12, training rows .*: training diverged: loss nan"):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert [event["skipped"] for event in events(tmp_path / "run") if event["event"] == "rolled_back"] == [
        7,
        8,
        9,
        10,
        11,
    ]


def test_stop_saves_nothing_of_it_and_exits_with_6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe = make_recipe(tmp_path)
    broken_steps(monkeypatch, BROKEN, loss=float("inf"))
    assert cli.run(["train", str(recipe), "--output", str(tmp_path / "run")]) == 6
    assert "training diverged: loss inf" in capsys.readouterr().err
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved == ["checkpoint-4", "checkpoint-6"]


def test_a_spike_is_flagged_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe = make_recipe(tmp_path, num_steps=30)
    broken_steps(monkeypatch, 25, loss=9.5)
    found = []

    def observer(event: Event) -> None:
        if isinstance(event, LossSpike):
            found.append(event)

    run = fasttune.fit(recipe, output=tmp_path / "run", observers=[observer])
    assert [(event.step, event.loss) for event in found] == [(25, 9.5)] and 0.3 < found[0].average < 0.9
    assert "warning: loss 9.5 at step 25, average before 0." in capsys.readouterr().err
    assert "far above the running average in 1 steps (25)" in (run.folder / "README.md").read_text()


def test_a_loss_scaler_that_only_overflows_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 wants a GPU; the scaler itself also runs here."""
    recipe = make_recipe(tmp_path, num_steps=300)
    real = loop.run_step

    def overflowing(**how: Any) -> StepResult:
        how["accelerator"].scaler = GradScaler("cpu")
        result = real(**how)
        return StepResult(result.loss, float("inf"), result.num_tokens, result.seconds)

    monkeypatch.setattr(loop, "run_step", overflowing)
    with pytest.raises(DivergedError, match=r"E602 .*overflowed fp16 in 100 consecutive steps") as raised:
        fasttune.fit(recipe, output=tmp_path / "run", progress=False, evaluation={"eval_steps": 300})
    assert "training.precision=bf16" in raised.value.problems[0].hint


def test_a_step_that_diverges_moves_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real step: the run continues from the weights before it."""
    recipe = make_recipe(tmp_path)
    is_broken = False
    real = TextClassification.loss

    def loss(self: TextClassification, outputs: Any, batch: MicroBatch, training: bool) -> torch.Tensor:
        total = real(self, outputs, batch, training)
        return total * float("nan") if training and is_broken else total

    def observer(event: Event) -> None:
        nonlocal is_broken
        is_broken |= isinstance(event, StepDone) and event.step == BROKEN - 1

    monkeypatch.setattr(TextClassification, "loss", loss)
    with pytest.raises(DivergedError, match="step 7"):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer])
    is_broken = False
    resumed = fasttune.fit(recipe, output=tmp_path / "run", progress=False, resume=True)
    undisturbed = fasttune.fit(recipe, output=tmp_path / "undisturbed", progress=False)
    assert sha256(resumed.folder) == sha256(undisturbed.folder)


def test_a_rollback_with_a_loss_scaler_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose loss is no number leaves no unscaled and unused gradients in the scaler."""
    recipe = make_recipe(tmp_path, divergence_policy="rollback")
    real_step, real_loss = loop.run_step, TextClassification.loss
    scaler, is_broken = GradScaler("cpu", init_scale=2.0), False

    def scaled_step(**how: Any) -> StepResult:
        nonlocal is_broken
        how["accelerator"].scaler, how["accelerator"].native_amp = scaler, True
        how["optimizer"] = AcceleratedOptimizer(how["optimizer"].optimizer, device_placement=False, scaler=scaler)
        is_broken = how["seed"][1] + 1 == BROKEN
        with monkeypatch.context() as patch:  # as with fp16 on a GPU
            patch.setattr(type(how["accelerator"]), "mixed_precision", "fp16")
            return real_step(**how)

    def loss(self: TextClassification, outputs: Any, batch: MicroBatch, training: bool) -> torch.Tensor:
        total = real_loss(self, outputs, batch, training)
        return total * float("nan") if training and is_broken else total

    monkeypatch.setattr(loop, "run_step", scaled_step)
    monkeypatch.setattr(TextClassification, "loss", loss)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    steps = [event["step"] for event in events(run.folder) if event["event"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12] and run.is_complete
