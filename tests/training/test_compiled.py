"""training.compile: the same numbers from compiled layers, exact resumes, and a choice by measurement.

Most are slow: torch's compiler takes 10 to 30 seconds for each model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.utils
import transformers
from exact import built, losses
from faulty import stop_at
from parity import FAMILIES, differences, make_batch, make_pair
from tiny import make_rows, tiny_config, write_csv
from torch._dynamo.exc import TorchDynamoException

import fasttune
from fasttune import recipe as recipes
from fasttune.errors import EnvironmentProblem, RecipeError
from fasttune.training import compiled
from fasttune.unpadding import compiled_layers, read_first_token
from fasttune.unpadding.families import OWN_ATTENTION

# The compiler of torch imports what torch itself has deprecated, and warns of what it reads.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile calls g++")
COMPILED = [family for family, config in FAMILIES.items() if config.model_type not in (*OWN_ATTENTION, "albert")]


def recipe(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": str(write_csv(folder / "rows.csv", make_rows(80)))},
        "training": {"preset": "tutorial", "max_steps": 8, "precision": "fp32", "device": "cpu", **training},
        "evaluation": {"baselines": False, "eval_strategy": "steps", "eval_steps": 3},
        "output": {"save_strategy": "steps", "save_steps": 4},
        "tracking": {"report_to": "none"},
    }


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.parametrize("family", COMPILED)
def test_compiled_layers_equal_the_padded_model(family: str) -> None:
    """Also for other numbers of tokens and of sequences than the first two, without further programs."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    padded, free = make_pair(family, "classification")
    pad = padded.config.pad_token_id
    read_first_token(free)
    with compiled_layers(free):
        for number, lengths in enumerate([(24, 7, 22, 1, 15), (3, 80), range(1, 40), (9, 9, 9)]):
            with torch.compiler.set_stance("fail_on_recompile" if number >= 2 else "default"):
                found = differences(padded, free, make_batch(pad, lengths), "classification")
            assert max(found.logits, found.loss, found.gradients) <= 1e-5, (lengths, found)
            if number == 0:
                assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    assert not any("forward" in vars(module) for module in free.modules())


@pytest.mark.slow
@needs_a_compiler
def test_a_compiled_run_learns_the_same(tiny_model_without_dropout: Path, tmp_path: Path) -> None:
    runs = {}
    for choice in (True, False):
        asked = recipe(tiny_model_without_dropout, tmp_path, compile=choice)
        runs[choice] = fasttune.fit(asked, output=tmp_path / f"{choice}", progress=False)
    assert losses(runs[True].folder) == pytest.approx(losses(runs[False].folder), abs=1e-5)
    assert recipes.load(runs[True].folder / "recipe.yaml").training.compile is True
    assert json.loads((runs[True].folder / "environment.json").read_text())["compile"]["value"] == "true"


@pytest.mark.slow
@needs_a_compiler
def test_a_compiled_run_that_was_interrupted_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, tmp_path, compile=True)
    whole = fasttune.fit(asked, output=tmp_path / "whole", progress=False)
    assert losses(whole.folder) != losses(
        fasttune.fit(recipe(tiny_model, tmp_path), output=tmp_path / "eager", progress=False).folder
    ), "this has dropout, and the masks are others"
    torch.compiler.reset()

    fasttune.fit(asked, output=tmp_path / "parts", progress=False, observers=[stop_at(5)])
    torch.compiler.reset()  # as in a new process
    parts = fasttune.fit(asked, output=tmp_path / "parts", progress=False, resume=True)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert weights[0] == weights[1]


@pytest.mark.slow
@needs_a_compiler
def test_the_choice_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    run = built(recipe(tiny_model, tmp_path, compile=True), tmp_path / "run")  # with torch's dropout, as on a GPU
    batches = compiled.sample(run.recipe, run.setup, run.stores["train"])
    before = torch.get_rng_state()
    short = compiled.measure(run.setup, run.splits.task, batches, num_passes=10)
    assert short.value == "false" and "too short" in short.reason
    long = compiled.measure(run.setup, run.splits.task, batches, num_passes=10**9)
    assert "ms compiled" in long.reason
    assert torch.equal(before, torch.get_rng_state()) and run.setup.model.classifier.weight.grad is None


@pytest.mark.parametrize(
    ("eager", "faster", "expected"), [(2.0, 1.0, "true"), (2.0, 1.98, "false"), (2.0, 3.0, "false")]
)
def test_the_faster_way_is_kept(
    eager: float, faster: float, expected: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, times = built(recipe(tiny_model, tmp_path), tmp_path / "run"), iter((eager, faster))
    monkeypatch.setattr(compiled, "_seconds", lambda *arguments: next(times))
    chosen = compiled.measure(run.setup, run.splits.task, [], num_passes=10_000)
    assert chosen.value == expected and chosen.reason.startswith("2000.0 ms for a micro-batch, ")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), TorchDynamoException("no compiler")])
def test_a_measurement_that_fails_leaves_no_gradients(
    error: Exception, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = built(recipe(tiny_model, tmp_path), tmp_path / "run")
    backward = type(run.setup.accelerator).backward

    def fails_after(self: Any, loss: torch.Tensor) -> None:
        backward(self, loss)
        raise error

    monkeypatch.setattr(type(run.setup.accelerator), "backward", fails_after)
    batches = compiled.sample(run.recipe, run.setup, run.stores["train"])
    chosen = compiled.measure(run.setup, run.splits.task, batches, num_passes=10**9)
    assert chosen.value == "false" and ("did not fit" in chosen.reason or "no compiler" in chosen.reason)
    assert all(parameter.grad is None for parameter in run.setup.model.parameters())


@pytest.mark.parametrize(
    ("error", "raised"), [(TorchDynamoException("no compiler"), "E508"), (RuntimeError("device-side assert"), None)]
)
def test_only_an_error_of_the_compiler_is_said_to_be_one(
    error: Exception, raised: str | None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(compiled, "run_once", fails)
    with pytest.raises(EnvironmentProblem if raised else RuntimeError, match=raised or "device-side assert"):
        fasttune.fit(recipe(tiny_model, tmp_path, compile=True), output=tmp_path / "run", progress=False)


def test_memory_that_runs_out_while_programs_are_made_ends_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compiled.run_once

    def full(*arguments: Any) -> None:
        monkeypatch.setattr(compiled, "run_once", real)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compiled, "run_once", full)
    with torch.compiler.set_stance("force_eager"):
        run = fasttune.fit(recipe(tiny_model, tmp_path, compile=True), output=tmp_path / "run", progress=False)
    assert run.is_complete and len(losses(run.folder)) == 8


@pytest.mark.slow
@needs_a_compiler
def test_models_of_several_sizes_are_compiled_in_one_process() -> None:
    """By default, torch stops compiling a function after eight programs."""
    torch.compiler.reset()
    for width in range(16, 161, 16):
        torch._dynamo.utils.counters.clear()
        model = fasttune.padding_free(transformers.BertForTokenClassification(tiny_config(hidden_size=width)))
        with compiled_layers(model):
            model(**make_batch(0, (24, 7, 22, 1, 15), vocabulary=79)).logits.sum()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3, width


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"training": {"gradient_checkpointing": True}}, "gradient_checkpointing"),
        ({"training": {"freeze_layers": 1}}, "freeze_layers"),
        ({"preprocessing": {"padding": "longest"}}, "padded"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    settings: dict[str, Any], reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    asked = recipe(tiny_model, tmp_path, compile=True)
    asked["training"] |= settings.pop("training", {})
    with pytest.raises(RecipeError, match=reason):
        fasttune.fit({**asked, **settings}, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_cpu_does_not_compile_unless_asked(tiny_model: Path, tmp_path: Path) -> None:
    run = built(recipe(tiny_model, tmp_path), tmp_path / "run")
    assert run.recipe.training.compile is False and "compile" not in run.setup.choices
