"""Which checkpoints stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from fasttune.checkpoint.resume import all_steps
from fasttune.checkpoint.verify import FOREIGN, fault
from fasttune.checkpoint.write import DELETED, PREFIX, REPLACED, STAGED, path_of, put_back


def prune(checkpoints: Path, keep_newest: int | None, keep_steps: set[int], run_id: str) -> list[int]:
    """Delete all but the newest `keep_newest` whole ones (None: all stay) and `keep_steps`, and what a killed write or
    deletion left behind.

    Returns the steps that went. Nothing goes unless the newest checkpoint is read back and found whole.
    """
    put_back(checkpoints)
    for leftover in checkpoints.glob(f".{PREFIX}*"):
        if leftover.name.endswith((STAGED, REPLACED, DELETED)):
            shutil.rmtree(leftover, ignore_errors=True)
    problems = {step: fault(path_of(checkpoints, step), run_id) for step in reversed(all_steps(checkpoints))}
    own = [step for step, problem in problems.items() if problem != FOREIGN]
    whole = [step for step in own if problems[step] is None]
    if keep_newest is None or len(whole) <= keep_newest or own[0] != whole[0]:
        return []
    deleted = sorted(step for step in own if step < whole[keep_newest - 1] and step not in keep_steps)
    for step in deleted:
        # Renamed first: a kill half-way through the deletion must not leave a folder that looks like a checkpoint.
        path = path_of(checkpoints, step)
        doomed = path.with_name(f".{path.name}{DELETED}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # what a busy file system keeps goes next time
    return deleted
