"""Find and read the newest checkpoint that is whole.

Of several processes the main one reads and verifies, and the others are sent what it found: they need not see its disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fasttune.errors import CheckpointError, Problem
from fasttune.runs.checkpoint.verify import fault, read_manifest
from fasttune.runs.checkpoint.write import STATE, put_back, step_of


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    step: int
    manifest: dict[str, Any]

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.path / STATE).read_text(encoding="utf-8")))

    def tensors(self, stem: str) -> dict[str, torch.Tensor]:
        """The tensors of STEM.safetensors, on the CPU."""
        from safetensors.torch import load_file

        return load_file(self.path / f"{stem}.safetensors")


def all_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints there, good or not, in order."""
    found = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return sorted(step for path in found if (step := step_of(path)) is not None)


def open_checkpoint(path: Path, run_id: str | None) -> Checkpoint:
    """Verify and open; CheckpointError says what is wrong."""
    problem = fault(path, run_id)
    if problem is not None:
        raise CheckpointError(
            Problem(where=f"checkpoint {path}", found=problem, expected="a whole checkpoint of this run", code="E520")
        )
    manifest = read_manifest(path)
    return Checkpoint(path, manifest["step"], manifest)


def newest_good(checkpoints: Path, run_id: str | None) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of this run, and one line for each newer one that was passed over.

    None when there is no checkpoint at all; CheckpointError when there are some and every one is damaged.
    """
    put_back(checkpoints)
    passed_over: list[str] = []
    problems: list[Problem] = []
    for step in reversed(all_steps(checkpoints)):
        path = checkpoints / f"checkpoint-{step}"
        try:
            return open_checkpoint(path, run_id), passed_over
        except CheckpointError as error:
            problems += error.problems
            passed_over.append(f"{path.name} is not used: {error.problems[0].found}")
    if problems:
        raise CheckpointError(*problems)
    return None, []
