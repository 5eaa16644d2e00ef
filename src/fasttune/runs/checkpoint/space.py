"""Check that the disk has room for a run's checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from fasttune.errors import EnvironmentProblem, Problem

BYTES = 4  # per fp32 number
MOMENTS = 2  # that AdamW keeps per trained weight


def needed_bytes(model: nn.Module, num_saves: int, keep_newest: int | None) -> int:
    """The maximum disk space of a run, roughly: kept checkpoints, the best, the one being written, the final model.

    `num_saves` of the whole run; at least one is assumed, since a stopped run saves too.
    """
    weights = sum(parameter.numel() for parameter in model.parameters()) * BYTES
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) * BYTES
    num_checkpoints = max(num_saves if keep_newest is None else min(num_saves, keep_newest + 2), 1)
    return num_checkpoints * (weights + MOMENTS * trained) + weights


def check_space(folder: Path, needed: int) -> None:
    """EnvironmentProblem if the disk of `folder`, which need not exist yet, has less than `needed` bytes free."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise EnvironmentProblem(
            Problem(
                where=f"disk of {folder}",
                found=f"{free / 1e9:,.2f} GB free",
                expected=f"{needed / 1e9:,.2f} GB for checkpoints and the model",
                hint="choose an --output on another disk, or set output.save_total_limit=1",
                code="E512",
            )
        )
