"""DeepSpeed's ZeRO: what it alone does. test_same_run.py compares its training with that of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from faulty import events, make_recipe
from launched import HAS_DEEPSPEED, WITHOUT_DROPOUT, ZERO_1, ZERO_2, configured, launch, needs_deepspeed, trained
from safetensors.torch import load_file
from tiny import save_tiny_model

from fasttune.runs.folder import RunFolder, read_json

pytestmark = pytest.mark.slow
CONFIG = "distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 2\nnum_processes: 2\n"

# Row 5 makes a loss, or its gradient alone, that is no number.
POISONED = """
import sys
import torch
import fasttune
from fasttune.tasks.text_classification import TextClassification
real = TextClassification.loss
def loss(self, outputs, batch, training):
    found, weight = real(self, outputs, batch, training)
    if training and 5 in batch.examples:
        nothing = outputs.logits.sum() * 0
        found = found + (torch.nan if sys.argv[3] == "loss" else nothing.sqrt())
    return found, weight
TextClassification.loss = loss
fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False)
"""

AFTERWARDS = """
import io
import sys
import torch
from torch import nn
from fasttune.training import zero
from fasttune.training.optimizer import make_optimizer
torch.distributed.init_process_group("gloo")
torch.manual_seed(torch.distributed.get_rank())
model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
plain = set(vars(model[0].weight))
engine, optimizer = zero.begin(model, make_optimizer(model, 0.1, 0.01), int(sys.argv[1]), 1.0)
engine.backward(engine(torch.ones(2, 4))[:, 0].sum())
assert zero.update(engine, 1.0) > 0
weights = [parameter.detach().clone() for parameter in model.parameters()]
engine.backward(engine(torch.ones(2, 4))[:, 0].sum())
zero.update(engine, float("nan"))
assert all(map(torch.equal, weights, model.parameters())), "a loss that is no number was learned from"
zero.end(engine)
assert not model._forward_hooks and not model._forward_pre_hooks
assert all(set(vars(parameter)) == plain for parameter in model.parameters())
assert all(parameter.untyped_storage().nbytes() == 4 * parameter.numel() for parameter in model.parameters())
torch.save(model, io.BytesIO())
print("plain")
"""


@needs_deepspeed
def test_a_config_file_of_accelerate(tmp_path: Path) -> None:
    recipe, home = make_recipe(tmp_path), configured(tmp_path, CONFIG)
    done = trained(tmp_path, str(recipe), "--processes", "2", "--output", "run", "--json", **home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["reason"] == "all 12 steps done", "what DeepSpeed says is not in it"
    assert read_json(RunFolder(tmp_path / "run").environment)["parallel"]["value"] == "ZeRO-2"
    assert "DeepSpeed" not in done.stderr and "Warning" not in done.stderr


@pytest.mark.skipif(HAS_DEEPSPEED, reason="deepspeed is installed")
def test_without_deepspeed(tmp_path: Path) -> None:
    recipe, home = make_recipe(tmp_path), configured(tmp_path, CONFIG)
    done = trained(tmp_path, str(recipe), "--processes", "2", "--output", "run", **home)
    assert done.returncode == 5
    assert done.stderr.startswith("error: E543") and "pip install deepspeed" in done.stderr


@needs_deepspeed
@pytest.mark.parametrize("stage", [1, 2])
def test_a_plain_model_is_left(tmp_path: Path, stage: int) -> None:
    (tmp_path / "script.py").write_text(AFTERWARDS)
    done = launch(2, tmp_path / "script.py", stage)
    assert done.returncode == 0 and done.stdout.count("plain") == 2, done.stderr[-3000:]


def skipped(run: Path) -> list[int]:
    return [event["skipped"] for event in events(run) if event["event"] == "rolled_back"]


@needs_deepspeed
@pytest.mark.parametrize(("poisoned", "how"), [("loss", ZERO_1), ("gradient", ZERO_2)])
def test_what_is_not_finite_is_not_learned(tmp_path: Path, poisoned: str, how: dict[str, str]) -> None:
    """The batch is left out by all processes, and the run ends as one process ends."""
    recipe = make_recipe(tmp_path, divergence_policy="rollback")
    save_tiny_model(tmp_path / "model", **WITHOUT_DROPOUT)
    (tmp_path / "script.py").write_text(POISONED)
    for name, number, environment in (("alone", 1, {}), ("run", 2, how)):
        done = launch(number, tmp_path / "script.py", recipe, tmp_path / name, poisoned, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (skipped(tmp_path / name) for name in ("alone", "run"))
    assert together == alone == [2]
    alone, together = (load_file(RunFolder(tmp_path / name).weights) for name in ("alone", "run"))
    for name, tensor in together.items():
        if not name.endswith("key.bias"):
            np.testing.assert_allclose(tensor, alone[name], atol=1e-4, rtol=0, err_msg=name)
