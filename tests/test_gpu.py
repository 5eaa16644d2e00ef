"""On a GPU: training in each precision and of each task, resume, memory, waits, several processes, serving, export.

Marked `gpu`: they need a CUDA device or one of Apple's (MPS), and have not run on either yet. With
FASTTUNE_TEST_DEVICE=cpu those that need no CUDA run on a CPU, to see that nothing else is wrong with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from exact import TASKS, built, losses, make_recipes
from faulty import events, stop_at
from launched import SHARDED, WITHOUT_DROPOUT, WORKER, launch
from parity import FAMILIES, HEADS, differences, make_batch, make_pair
from served import server
from tiny import make_rows, write_jsonl

import fasttune
from fasttune.data.batching.collate import MicroBatch
from fasttune.parallel.launcher import make_accelerator
from fasttune.runs.folder import RunFolder, read_json
from fasttune.tasks import TextClassification
from fasttune.training import compiled, loop, memory_probe, setup, step
from fasttune.unpadding import compiled_layers, cuda
from fasttune.unpadding.families import OWN_ATTENTION

pytestmark = pytest.mark.gpu
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once in a process; one of the tests needs it
DEVICE = os.environ.get("FASTTUNE_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "mps")
not_on_apple = pytest.mark.skipif(DEVICE == "mps", reason="torch.compile is for CUDA")
needs_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
PRECISIONS = [
    pytest.param("fp32", 1e-4, id="fp32"),
    pytest.param("bf16", 3e-2, id="bf16"),
    pytest.param("fp16", 3e-2, id="fp16", marks=needs_cuda),
]


def recipe(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", make_rows(80)))},
        "training": {"preset": "tutorial", "max_steps": 8, "device": DEVICE, **training},
        "evaluation": {"baselines": False, "calibrate": False},
        "output": {"report": False, "save_strategy": "steps", "save_steps": 4},
        "tracking": {"report_to": "none"},
    }


def fit(asked: dict[str, Any], output: Path, **how: Any) -> fasttune.Run:
    return fasttune.fit(asked, output=output, progress=False, **how)


def with_training(asked: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {**asked, "training": {**asked["training"], **training}}


# --- the same numbers as on a CPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_the_losses_are_those_of_a_cpu(task: str, precision: str, tolerance: float, tmp_path: Path) -> None:
    asked = make_recipes(tmp_path, **WITHOUT_DROPOUT)[task]
    expected = fit(with_training(asked, precision="fp32"), tmp_path / "cpu")
    found = fit(with_training(asked, precision=precision, device=DEVICE), tmp_path / "gpu")
    assert losses(found.folder) == pytest.approx(losses(expected.folder), rel=tolerance)
    chosen = read_json(RunFolder(found.folder).environment)
    assert (chosen["device"]["value"], chosen["kernel"]["value"]) == (DEVICE, "padding-free")
    # Bytes of activations alone: the programs on a CPU take more.
    assert 0 < read_json(RunFolder(found.folder).all_results)["peak_memory_bytes"] < 4e9


@pytest.mark.parametrize(
    "training", [{"gradient_checkpointing": True}, {"freeze_layers": 1}, {"mlm_epochs": 1}], ids=str
)
def test_other_ways_to_train(training: dict[str, Any], tiny_model_without_dropout: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model_without_dropout, tmp_path, precision="fp32", **training)
    found, expected = fit(asked, tmp_path / "gpu"), fit(with_training(asked, device="cpu"), tmp_path / "cpu")
    assert losses(found.folder) == pytest.approx(losses(expected.folder), abs=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "family", [name for name, config in FAMILIES.items() if config.model_type not in OWN_ATTENTION]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_family_without_padding(family: str, head: str, precision: str) -> None:
    """ModernBERT has windows. In bf16 a padded model rounds elsewhere, so that is compared with it in fp32."""
    padded, free = (model.to(DEVICE) for model in make_pair(family, head))
    batch = {name: tensor.to(DEVICE) for name, tensor in make_batch(padded.config.pad_token_id, (24, 7, 80, 1)).items()}
    if precision == "bf16":
        forward = free.forward

        def in_bf16(**inputs: Any) -> Any:
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                return forward(**inputs)

        free.forward = in_bf16
    found = differences(padded, free, batch, head)
    assert max(found.logits, found.loss, found.gradients) <= (1e-4 if precision == "fp32" else 0.1), found
    assert found.gradients <= found.largest * (1e-3 if precision == "fp32" else 0.1)


@needs_cuda
@pytest.mark.parametrize("kernel", [cuda.flash, cuda.efficient])
def test_dropout_keeps_its_share(kernel: cuda.Kernel) -> None:
    """With values of one, an output is the kept weights divided by the share that is kept: one on average."""
    query, key = (torch.randn(1, 4, 512, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    starts = torch.tensor([0, 200, 512], dtype=torch.int32, device="cuda")
    out = kernel(query, key, torch.ones_like(query), cuda.Packed(starts, 312, 312), 0.2, 0.125)
    assert out.float().mean().item() == pytest.approx(1.0, abs=0.01) and out.float().std() > 0.01


# --- steps, resume, loss scaling ----------------------------------------------------------------------------------


def test_deterministic_runs_and_resumes_give_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, tmp_path, precision="fp32", deterministic=True)
    first = fit(asked, tmp_path / "first")
    fit(asked, tmp_path / "again", observers=[stop_at(5)])
    again = fit(asked, tmp_path / "again", resume=True)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (first, again)]
    assert weights[0] == weights[1]


@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("task", TASKS)
def test_a_step_waits_once(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second step on, torch raises at every wait but the one read."""
    read, run_step, number = step.read, loop.run_step, 0

    def allowed(values: torch.Tensor) -> list[float]:
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read(values)
        finally:
            torch.cuda.set_sync_debug_mode("error" if number > 1 else "default")

    def checked(**how: Any) -> Any:
        nonlocal number
        number += 1
        torch.cuda.set_sync_debug_mode("error" if number > 1 else "default")
        try:
            return run_step(**how)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(step, "read", allowed)
    monkeypatch.setattr(loop, "run_step", checked)
    asked = make_recipes(tmp_path)[task]
    fit(with_training(asked, precision="bf16", device=DEVICE), tmp_path / "run")
    assert number == 6


@needs_cuda
def test_gradients_that_overflow_fp16_are_skipped_and_training_goes_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_large_scale(device: str, precision: str) -> Any:
        accelerator = make_accelerator(device, precision)
        if accelerator.scaler is not None:
            accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30)
        return accelerator

    monkeypatch.setattr(setup, "make_accelerator", with_a_large_scale)
    run = fit(recipe(tiny_model, tmp_path, precision="fp16", max_steps=60), tmp_path / "run")
    norms = [event["grad_norm"] for event in events(run.folder) if event["event"] == "step"]
    assert norms[0] is None and isinstance(norms[-1], float), "scales were halved until one fitted"


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=needs_cuda)])
def test_a_batch_that_diverges_is_left_out(
    precision: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, run_step, number = TextClassification.loss, loop.run_step, 0

    def numbered(**how: Any) -> Any:
        nonlocal number
        number = how["seed"][1] + 1
        return run_step(**how)

    def loss(self: TextClassification, outputs: Any, batch: MicroBatch, training: bool) -> torch.Tensor:
        return real(self, outputs, batch, training) * (float("nan") if training and number == 6 else 1.0)

    monkeypatch.setattr(loop, "run_step", numbered)
    monkeypatch.setattr(TextClassification, "loss", loss)
    run = fit(recipe(tiny_model, tmp_path, precision=precision, divergence_policy="rollback"), tmp_path / "run")
    assert [event["skipped"] for event in events(run.folder) if event["event"] == "rolled_back"] == [6]
    assert [event["step"] for event in events(run.folder) if event["event"] == "step"] == [1, 2, 3, 4, 5, 7, 8]


# --- memory -------------------------------------------------------------------------------------------------------


@needs_cuda
def test_the_budget_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, tmp_path, precision="bf16")
    write_jsonl(tmp_path / "rows.jsonl", make_rows(4000, longest=60))
    run = built(asked, tmp_path / "run")
    measured = memory_probe.probe(run.setup, run.splits.task, run.stores["train"])
    assert measured is not None and 2048 <= int(measured.value) <= memory_probe.MAX_TOKENS
    assert torch.cuda.max_memory_allocated() < 2e9, "a run reports its own peak, not that of the trial"


@needs_cuda
def test_memory_that_runs_out_makes_micro_batches_smaller(tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, tmp_path, precision="fp32", batch_size=4000, max_steps=2)
    write_jsonl(tmp_path / "rows.jsonl", make_rows(4800, longest=60))
    expected = fit(with_training(asked, tokens_per_microbatch=4000), tmp_path / "parts")
    plenty = torch.empty(torch.cuda.mem_get_info()[0] - (300 << 20), dtype=torch.uint8, device="cuda")
    try:
        found = fit(with_training(asked, tokens_per_microbatch=1_000_000), tmp_path / "run")
    finally:
        del plenty
        torch.cuda.empty_cache()
    assert any(event["event"] == "out_of_memory" for event in events(found.folder))
    # With dropout the masks would depend on the cut; the first loss is before any update.
    assert losses(found.folder)[0] == pytest.approx(losses(expected.folder)[0], rel=0.05)


class _Full(torch.autograd.Function):
    """Raises in its backward pass as a GPU that is full does."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_a_step_is_repeated_whichever_phase_was_out_of_memory(
    phase: str, tiny_model_without_dropout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tiny_model_without_dropout, tmp_path, precision="fp32")
    expected = fit(asked, tmp_path / "whole")
    real, full = TextClassification.loss, 2

    def loss(self: TextClassification, outputs: Any, batch: MicroBatch, training: bool) -> torch.Tensor:
        nonlocal full
        total = real(self, outputs, batch, training)
        if not training or len(batch.examples) < 3 or not full:
            return total
        full -= 1
        if phase == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return _Full.apply(total)

    monkeypatch.setattr(TextClassification, "loss", loss)
    found = fit(asked, tmp_path / "parts")
    assert not full and any(event["event"] == "out_of_memory" for event in events(found.folder))
    assert losses(found.folder) == pytest.approx(losses(expected.folder), abs=1e-4)


# --- compiled layers ----------------------------------------------------------------------------------------------


@not_on_apple
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_cuda)])
def test_compiled_layers_learn_the_same(precision: str, tiny_model_without_dropout: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model_without_dropout, tmp_path, precision=precision)
    runs = [fit(with_training(asked, compile=choice), tmp_path / str(choice)) for choice in (True, False)]
    first, second = (losses(run.folder) for run in runs)
    assert first == pytest.approx(second, abs=1e-4 if precision == "fp32" else 3e-2)


@not_on_apple
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_whether_to_compile_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    run = built(recipe(tiny_model, tmp_path, precision="bf16", compile=True), tmp_path / "run")
    batches = compiled.sample(run.recipe, run.setup, run.stores["train"])
    measured = compiled.measure(run.setup, run.splits.task, batches, num_passes=10**9)
    assert measured.value in ("true", "false") and "ms compiled" in measured.reason
    with compiled_layers(run.setup.model):
        compiled.run_once(run.setup, run.splits.task, batches[0])


# --- several processes --------------------------------------------------------------------------------------------

AS_ONE_OF_SEVERAL = """
import sys
import torch.distributed
from accelerate import PartialState
import fasttune
from fasttune.parallel import rendezvous
from fasttune.training import setup
from fasttune.training.precision import Choice
PartialState()
rendezvous._host_group = torch.distributed.new_group(backend="gloo")  # as for several
setup.choose_parallel = lambda accelerator: Choice(sys.argv[1], "asked for by a test")
fasttune.fit(sys.argv[2], output=sys.argv[3], progress=False)
print(torch.distributed.get_backend())
"""


@needs_cuda
@pytest.mark.parametrize("how", ["DDP", "FSDP2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nccl_with_one_process(how: str, precision: str, tiny_model_without_dropout: Path, tmp_path: Path) -> None:
    """Wrapped as in a launch of several, with NCCL, on the one GPU that there is."""
    asked = recipe(tiny_model_without_dropout, tmp_path, precision=precision, tokens_per_microbatch=60)
    alone = fit(asked, tmp_path / "alone")
    (tmp_path / "recipe.yaml").write_text(json.dumps(asked))  # JSON is YAML
    (tmp_path / "script.py").write_text(AS_ONE_OF_SEVERAL)
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    done = subprocess.run(
        [sys.executable, "script.py", how, "recipe.yaml", "run"],
        cwd=tmp_path,
        env={**os.environ, **launched},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split()[-1] == "nccl"
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    assert losses(tmp_path / "run") == pytest.approx(losses(alone.folder), abs=tolerance)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("how", [{}, SHARDED], ids=["DDP", "FSDP2"])
def test_nccl_with_two_processes(how: dict[str, str], tiny_model_without_dropout: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model_without_dropout, tmp_path, precision="fp32", tokens_per_microbatch=60)
    alone = fit(asked, tmp_path / "alone")
    (tmp_path / "recipe.yaml").write_text(json.dumps(asked))
    done = launch(2, WORKER, tmp_path, tmp_path / "runs", **how)
    assert done.returncode == 0, done.stderr[-4000:]
    assert losses(tmp_path / "runs" / "recipe") == pytest.approx(losses(alone.folder), abs=1e-4)


# --- after training -----------------------------------------------------------------------------------------------

TEXTS = [row["text"] for row in make_rows(16, seed=5)]


def scores(predictions: list[dict[str, Any]]) -> list[float]:
    return [value for row in predictions for _, value in sorted(row["probabilities"].items())]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return fit(recipe(tiny_model, folder, precision="fp32"), folder / "run").folder


def test_predictions_are_those_of_a_cpu(run: Path) -> None:
    found = fasttune.load(run).predict(TEXTS)
    expected = fasttune.load(run, precision="fp32", device="cpu").predict(TEXTS)
    assert scores(found) == pytest.approx(scores(expected), abs=1e-4)


def test_a_server_answers_from_the_gpu(run: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with server(run) as (_, address):
        answer = httpx.post(f"{address}/predict", json={"inputs": TEXTS}, timeout=60).json()
    expected = fasttune.load(run, precision="fp32", device="cpu").predict(TEXTS)
    assert scores(answer["predictions"]) == pytest.approx(scores(expected), abs=2e-2)


def test_an_export_of_a_run_that_a_gpu_trained(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    export = fasttune.export_run(run, "onnx", output=tmp_path / "export", progress=False)
    expected = fasttune.load(run, precision="fp32", device="cpu").predict(TEXTS)
    assert scores(fasttune.load(export.folder).predict(TEXTS)) == pytest.approx(scores(expected), abs=1e-4)
