"""Delete old checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

from fasttune.runs.checkpoint.find import all_steps
from fasttune.runs.checkpoint.verify import FOREIGN, fault
from fasttune.runs.checkpoint.write import DELETED, PREFIX, REPLACED, STAGED, path_of, restore_replaced


def prune(checkpoints: Path, keep_newest: int | None, keep_steps: set[int], run_id: str) -> list[int]:
    """Delete all checkpoints but the newest `keep_newest` intact ones (None: keep all) and those of `keep_steps`.

    Leftovers of a killed write or deletion are removed too. Returns the deleted steps. Nothing is deleted unless the
    newest checkpoint of this run was read back and found intact.
    """
    restore_replaced(checkpoints)
    for leftover in checkpoints.glob(f".{PREFIX}*"):
        if leftover.name.endswith((STAGED, REPLACED, DELETED)):
            shutil.rmtree(leftover, ignore_errors=True)
    steps = all_steps(checkpoints)
    if keep_newest is None or len(steps) <= keep_newest:
        return []
    intact: list[int] = []
    candidates: list[int] = []
    for step in reversed(steps):
        if len(intact) == keep_newest:
            candidates.append(step)
            continue
        problem = fault(path_of(checkpoints, step), run_id)
        if problem is None:
            intact.append(step)
        elif problem != FOREIGN:
            if not intact:
                return []
            candidates.append(step)
    if len(intact) < keep_newest:
        return []
    deleted = sorted(step for step in candidates if step < intact[-1] and step not in keep_steps)
    for step in deleted:
        # Rename first: a kill in the middle of the deletion must not leave a folder that looks like a checkpoint.
        path = path_of(checkpoints, step)
        doomed = path.with_name(f".{path.name}{DELETED}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # a busy file system may keep files; the next call removes them
    return deleted
