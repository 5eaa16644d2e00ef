"""Several processes on this machine, and what their runs have to have in common with a run of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
from faulty import events
from safetensors.torch import load_file

from fasttune.runs.folder import RunFolder, read_json

COMMAND = [sys.executable, "-m", "fasttune", "train"]
ACCELERATE_LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", *COMMAND[1:]]
WORKER = Path(__file__).parent / "processes" / "worker.py"
# As accelerate's launcher says it.
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
LIMIT = 300  # seconds
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# A number added to all scores changes no softmax: the true gradient is 0, and Adam makes steps of its rounding.
WITHOUT_GRADIENT = ("key.bias", "qa_outputs.bias")
CLOCKS = ("runtime", "per_second", "mfu", "memory")


def launch(num_processes: int, script: Path, *words: object, **environment: str) -> forks.Ranks:
    """Ranks that run a script to their end; as torchrun does it."""
    return forks.run_ranks(num_processes, words, script=script, environment=environment, timeout=LIMIT)


def trained(
    folder: Path, *words: str, command: Sequence[str] = COMMAND, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`fasttune train` in `folder`, to its end. `command`: how it is begun."""
    own = {**os.environ, **environment}
    return subprocess.run([*command, *words], cwd=folder, env=own, capture_output=True, text=True, timeout=LIMIT)


def configured(folder: Path, config: str) -> dict[str, str]:
    """The environment in which this is accelerate's config file."""
    place = folder / "hf" / "accelerate" / "default_config.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(config)
    return {"HF_HOME": str(folder / "hf")}


def steps(run: Path) -> list[dict[str, Any]]:
    return [event for event in events(run) if event["event"] == "step"]


def is_clock(name: str) -> bool:
    """Whether a metric says what this machine did, not what was learned."""
    return any(word in name for word in CLOCKS)


def check_same(run: Path, alone: Path) -> None:
    """Losses and norms to 1e-5, weights to 1e-4, rows, tokens and metrics exactly."""
    found, expected = steps(run), steps(alone)
    for name, tolerance in (("loss", 1e-5), ("grad_norm", 1e-4), ("num_tokens", 0), ("step", 0)):
        values = [[step[name] for step in one] for one in (found, expected)]
        np.testing.assert_allclose(*values, atol=tolerance, rtol=tolerance)
    weights, others = load_file(RunFolder(run).weights), load_file(RunFolder(alone).weights)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        if name.endswith(WITHOUT_GRADIENT):
            continue
        np.testing.assert_allclose(tensor, others[name], atol=1e-4, rtol=0, err_msg=name)
    metrics, those = read_json(RunFolder(run).all_results), read_json(RunFolder(alone).all_results)
    assert metrics.keys() == those.keys()
    for name, value in metrics.items():
        if not is_clock(name):
            assert value == pytest.approx(those[name], abs=1e-5 if "loss" in name or "flos" in name else 0), name
    assert predicted(run) == predicted(alone)


def predicted(run: Path) -> list[Any]:
    return [words_of(json.loads(line)) for line in RunFolder(run).predictions("validation").read_text().splitlines()]


def words_of(prediction: Any) -> Any:
    """Without scores, whose last digits differ."""
    if isinstance(prediction, dict):
        return {name: words_of(value) for name, value in prediction.items() if not isinstance(value, float)}
    return [words_of(one) for one in prediction] if isinstance(prediction, list) else prediction
