"""Which checkpoints stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from fasttune.runs.checkpoint.resume import all_steps
from fasttune.runs.checkpoint.verify import FOREIGN, fault
from fasttune.runs.checkpoint.write import DELETED, PREFIX, REPLACED, STAGED, path_of, put_back


def prune(checkpoints: Path, keep_newest: int | None, keep_steps: set[int], run_id: str) -> list[int]:
    """Delete all but the newest `keep_newest` whole ones (None: all stay) and `keep_steps`, and what a killed write or
    deletion left behind.

    Returns the steps that went. Nothing goes unless the newest checkpoint is read back and found whole.
    """
    put_back(checkpoints)
    for leftover in checkpoints.glob(f".{PREFIX}*"):
        if leftover.name.endswith((STAGED, REPLACED, DELETED)):
            shutil.rmtree(leftover, ignore_errors=True)
    steps = all_steps(checkpoints)
    if keep_newest is None or len(steps) <= keep_newest:
        return []
    whole: list[int] = []
    others: list[int] = []
    for step in reversed(steps):
        problem = fault(path_of(checkpoints, step), run_id) if len(whole) < keep_newest else None
        if problem == FOREIGN:
            continue
        if problem is not None and not whole:
            return []
        (whole if problem is None and len(whole) < keep_newest else others).append(step)
    if len(whole) < keep_newest:
        return []
    deleted = sorted(step for step in others if step < whole[-1] and step not in keep_steps)
    for step in deleted:
        # Renamed first: a kill half-way through the deletion must not leave a folder that looks like a checkpoint.
        path = path_of(checkpoints, step)
        doomed = path.with_name(f".{path.name}{DELETED}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # what a busy file system keeps goes next time
    return deleted
