"""Which checkpoints stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from fasttune.checkpoint.resume import all_steps
from fasttune.checkpoint.verify import fault
from fasttune.checkpoint.write import REPLACED, STAGED, path_of


def prune(checkpoints: Path, keep_newest: int | None, keep_steps: set[int], run_id: str) -> list[int]:
    """Delete all but the newest `keep_newest` (None: all stay) and `keep_steps`, and what a killed write left behind.

    Returns the steps that went. Nothing goes unless the newest checkpoint is read back and found whole.
    """
    for leftover in checkpoints.glob(".checkpoint-*"):
        if leftover.name.endswith((STAGED, REPLACED)):
            shutil.rmtree(leftover, ignore_errors=True)
    steps = all_steps(checkpoints)
    if keep_newest is None or len(steps) <= keep_newest:
        return []
    if fault(path_of(checkpoints, steps[-1]), run_id) is not None:
        return []
    deleted = [step for step in steps[:-keep_newest] if step not in keep_steps]
    for step in deleted:
        # Renamed first: a kill half-way through the deletion must not leave a folder that looks like a checkpoint.
        path = path_of(checkpoints, step)
        doomed = path.with_name(f".{path.name}{REPLACED}")
        path.rename(doomed)
        shutil.rmtree(doomed)
    return deleted
