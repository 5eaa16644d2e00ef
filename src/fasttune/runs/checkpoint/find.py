"""Find and read the newest intact checkpoint.

In a launch of several processes, the main process reads and verifies, and sends the result to the others: they do not
need access to its disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fasttune.errors import CheckpointError, Problem
from fasttune.runs.checkpoint.verify import fault, read_manifest
from fasttune.runs.checkpoint.write import STATE, restore_replaced, step_of


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
    """The steps of all checkpoints in the folder, intact or not, in ascending order."""
    paths = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return sorted(step for path in paths if (step := step_of(path)) is not None)


def open_checkpoint(path: Path, run_id: str | None) -> Checkpoint:
    """Verify and open a checkpoint; CheckpointError if it is damaged or belongs to another run."""
    problem = fault(path, run_id)
    if problem is not None:
        raise CheckpointError(Problem(where=f"checkpoint {path}", found=problem, code="E520"))
    manifest = read_manifest(path)
    return Checkpoint(path, manifest["step"], manifest)


def newest_good(checkpoints: Path, run_id: str | None) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint of this run, and one line for each newer one that was skipped.

    None if there is no checkpoint at all; CheckpointError if there are some but none is intact.
    """
    restore_replaced(checkpoints)
    skipped: list[str] = []
    problems: list[Problem] = []
    for step in reversed(all_steps(checkpoints)):
        path = checkpoints / f"checkpoint-{step}"
        try:
            return open_checkpoint(path, run_id), skipped
        except CheckpointError as error:
            problems += error.problems
            skipped.append(f"skipping {path.name}: {error.problems[0].found}")
    if problems:
        raise CheckpointError(*problems)
    return None, []
