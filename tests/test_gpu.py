"""On a GPU: training in each precision, resume, memory, waits. Marked `gpu`; it has not been run on one yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import stop_at
from tiny import make_rows, write_jsonl

import fasttune
from fasttune.training import step
from fasttune.unpadding import cuda

pytestmark = pytest.mark.gpu


def recipe(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", make_rows(80)))},
        "training": {"preset": "tutorial", "max_steps": 8, "device": "cuda", **training},
        "evaluation": {"baselines": False, "calibrate": False},
        "output": {"report": False, "save_strategy": "steps", "save_steps": 4},
        "tracking": {"report_to": "none"},
    }


def losses(run: Path) -> list[float]:
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["event"] == "step"]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2), ("fp16", 3e-2)])
def test_the_losses_are_those_of_a_cpu(
    precision: str, tolerance: float, tiny_model_without_dropout: Path, tmp_path: Path
) -> None:
    model = tiny_model_without_dropout
    own = fasttune.fit(recipe(model, tmp_path, precision=precision), output=tmp_path / "gpu", progress=False)
    on_cpu = recipe(model, tmp_path, precision="fp32") | {}
    on_cpu["training"] = {**on_cpu["training"], "device": "cpu"}
    expected = fasttune.fit(on_cpu, output=tmp_path / "cpu", progress=False)
    assert losses(own.folder) == pytest.approx(losses(expected.folder), abs=tolerance)
    environment = json.loads((own.folder / "environment.json").read_text())
    assert environment["kernel"]["value"] == "padding-free"
    assert fasttune.load(own.folder).predict(["good"])[0]["label"] in ("negative", "positive")


def test_deterministic_runs_and_resumes_give_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, tmp_path, precision="fp32", deterministic=True)
    first = fasttune.fit(asked, output=tmp_path / "first", progress=False)

    fasttune.fit(asked, output=tmp_path / "again", progress=False, observers=[stop_at(5)])
    again = fasttune.fit(asked, output=tmp_path / "again", progress=False, resume=True)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (first, again)]
    assert weights[0] == weights[1]


def test_a_step_waits_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises at every wait but the one read."""
    read = step.read

    def allowed(values: torch.Tensor) -> list[float]:
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read(values)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    def checked(**how: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return run_step(**how)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    from fasttune.training import loop

    run_step = loop.run_step
    monkeypatch.setattr(step, "read", allowed)
    monkeypatch.setattr(loop, "run_step", checked)
    fasttune.fit(recipe(tiny_model, tmp_path, precision="bf16"), output=tmp_path / "run", progress=False)


def test_memory_that_runs_out_makes_micro_batches_smaller(tiny_model: Path, tmp_path: Path) -> None:
    plenty = torch.empty(torch.cuda.mem_get_info()[0] - (300 << 20), dtype=torch.uint8, device="cuda")
    asked = recipe(tiny_model, tmp_path, precision="fp32", batch_size=64, tokens_per_microbatch=1_000_000)
    run = fasttune.fit(asked, output=tmp_path / "run", progress=False)
    assert run.is_complete and len(plenty)


@pytest.mark.parametrize("kernel", [cuda.flash, cuda.efficient])
def test_dropout_keeps_its_share(kernel: cuda.Kernel) -> None:
    """With values of one, an output is the kept weights divided by the share that is kept: one on average."""
    query, key = (torch.randn(1, 4, 512, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    starts = torch.tensor([0, 200, 512], dtype=torch.int32, device="cuda")
    out = kernel(query, key, torch.ones_like(query), cuda.Packed(starts, 312, 312), 0.2, 0.125)
    assert out.float().mean().item() == pytest.approx(1.0, abs=0.01) and out.float().std() > 0.01
