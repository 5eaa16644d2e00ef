"""Is there room on the disk for a run's checkpoints?"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from fasttune.errors import EnvironmentProblem, Problem

BYTES = 4  # of a number in fp32
MOMENTS = 2  # that AdamW keeps of each weight it trains


def needed_bytes(model: nn.Module, num_saves: int, keep_newest: int | None) -> int:
    """About what a run has on the disk at most: the checkpoints kept, the best, the one being written, the final model.

    `num_saves`: in the whole run; one at least, which a stop leaves.
    """
    weights = sum(parameter.numel() for parameter in model.parameters()) * BYTES
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) * BYTES
    num_checkpoints = max(num_saves if keep_newest is None else min(num_saves, keep_newest + 2), 1)
    return num_checkpoints * (weights + MOMENTS * trained) + weights


def check_space(folder: Path, needed: int) -> None:
    """EnvironmentProblem when the disk that `folder` is or will be on has less room than that."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise EnvironmentProblem(
            Problem(
                where=f"disk of {folder}",
                found=f"{free / 1e9:,.2f} GB free",
                expected=f"{needed / 1e9:,.2f} GB for checkpoints and model",
                hint="--output on another disk, or output.save_total_limit=1",
                code="E512",
            )
        )
