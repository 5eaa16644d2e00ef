"""Out of memory at any step, in training and in evaluation: smaller micro-batches, the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_rows, save_tiny_model, write_csv

import fasttune
from fasttune.training import setup


def lines(run: fasttune.Run, event: str) -> list[dict[str, Any]]:
    events = map(json.loads, (run.folder / "events.jsonl").read_text().splitlines())
    return [line for line in events if line["event"] == event]


@pytest.fixture
def recipe(tiny_model_without_dropout: Path, reviews_csv: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_model_without_dropout),
        "data": {"train": str(reviews_csv), "validation_fraction": 0.25},
        "training": {"num_train_epochs": 2, "learning_rate": 1e-3, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }


class SmallDevice:
    """The model's encoder refuses more than `room` real tokens, as a device that is full does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, from_forward: int = 0):
        self.room, self.from_forward, self.forwards, self.refused = room, from_forward, 0, 0
        stock = setup.load_model

        def load_model(*args: Any) -> Any:
            loaded = stock(*args)
            loaded.model.base_model.encoder.layer[1].register_forward_pre_hook(self.check)
            return loaded

        monkeypatch.setattr(setup, "load_model", load_model)

    def check(self, layer: torch.nn.Module, args: tuple) -> None:
        num_tokens = args[0].shape[:2].numel()
        self.forwards += 1
        if self.forwards > self.from_forward and num_tokens > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("padding", ["none", "longest"])
def test_the_step_is_done_again_in_parts(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: str
) -> None:
    recipe["preprocessing"] = {"padding": padding}
    expected = fasttune.fit(recipe, output=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        device = SmallDevice(patch, room=70, from_forward=16)  # in the middle of the first epoch
        found = fasttune.fit(recipe, output=tmp_path / "parts", progress=False)
    assert 1 <= device.refused <= 8 < len(lines(found, "step")), "the size that fitted is kept"
    halvings = lines(found, "out_of_memory")
    assert halvings and halvings[-1]["tokens_per_microbatch"] <= 70
    assert "out of memory" in halvings[0]["reason"]
    losses = [[line["loss"] for line in lines(run, "step")] for run in (expected, found)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-5)
    assert found.metrics["eval_loss"] == pytest.approx(expected.metrics["eval_loss"], abs=1e-5)
    assert found.metrics["eval_accuracy"] == expected.metrics["eval_accuracy"]


def test_evaluation_alone(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    texts = [row["text"] for row in make_rows(50, seed=3)]
    expected = fasttune.load(run.folder).predict(texts)
    device = SmallDevice(monkeypatch, room=100)
    predictor = fasttune.load(run.folder)
    refused = []
    for _ in range(2):
        found = predictor.predict(texts)
        assert [row["label"] for row in found] == [row["label"] for row in expected]
        np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], atol=1e-6)
        refused.append(device.refused)
    assert refused[0] == refused[1] > 0, "the size that fitted is remembered"


def test_a_resume_keeps_the_size_that_fitted(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: fasttune.training.events.Event) -> str | None:
        return "enough" if event.name == "step" and event.step == 5 else None

    SmallDevice(monkeypatch, room=70)
    fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[stop])
    resumed = fasttune.fit(recipe, output=tmp_path / "run", progress=False, resume=True)
    assert {line["step"] for line in lines(resumed, "out_of_memory")} == {0}, "found before the first step, and kept"


def test_one_sequence_that_does_not_fit(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallDevice(monkeypatch, room=5, from_forward=10)  # after the probes at load
    with pytest.raises(fasttune.Error, match="not enough memory to train on it: CUDA out of memory") as caught:
        fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    problem = caught.value.problems[0]
    assert problem.code == "E506" and "preprocessing.max_length=" in problem.hint


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
def test_a_real_limit_of_memory(tmp_path: Path) -> None:
    """The operating system refuses memory; torch's own allocator says so.

    How much freed memory the heap holds when training starts varies by several hundred megabytes, so several limits
    above what is mapped are tried until one is too small for the step and large enough for its half.
    """
    model = save_tiny_model(tmp_path / "model", hidden_size=128, intermediate_size=8192)
    rows = write_csv(tmp_path / "rows.csv", make_rows(400, longest=60))
    tried = []
    for megabytes in (600, 900, 300, 1200):
        run = tmp_path / f"run-{megabytes}"
        program = f"""
import resource, sys, fasttune, psutil
def observer(event):
    if event.name == "start":
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20, resource.RLIM_INFINITY))
    if event.name == "step" and event.step == 3:  # what comes then is not what is tested
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
fasttune.fit(
    {{"model": {str(model)!r}, "data": {{"train": {str(rows)!r}}},
     "training": {{"batch_size": 128, "max_steps": 3, "precision": "fp32", "tokens_per_microbatch": 100000}},
     "evaluation": {{"eval_strategy": "no"}}, "tracking": {{"report_to": "none"}}}},
    output={str(run)!r}, progress=False, observers=[observer])
"""
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # each thread would reserve memory of its own
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=alone)
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        reasons = [event["reason"] for event in events if event["event"] == "out_of_memory"]
        if done.returncode == 0 and any("can't allocate memory" in reason for reason in reasons):
            assert [event["event"] for event in events].count("step") == 3
            return
        tried.append(f"{megabytes} MB: {reasons} {done.stderr[-300:]}")
    pytest.fail("\n".join(tried))
