"""The cache folder: compiled kernels and tokenized data, which can be deleted without losing more than time.

It also holds the rows that Python programs passed in (`rows`), for the runs that refer to them.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from fasttune.security.paths import is_ours, make_private, temporary_folder

SCORED = "scored"  # holds a folder per set of test rows, with an empty file per run that scored them
MADE_HERE = "runs"  # holds an empty file per run started on this machine, named by its id


def cache_folder(kind: str) -> Path:
    """The user's cache folder for `kind` (native | tokens | rows); respects an absolute XDG_CACHE_HOME.

    Its parent folder is created, accessible to this user only. If it belongs to another user, or there is no home
    folder, a temporary folder of this process is used instead: files that others can write could be executed (kernels)
    or trained on (tokens).
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (configured if configured.is_absolute() else Path.home() / ".cache") / "fasttune"
    except RuntimeError:  # a user without a home, as in some containers
        return temporary_folder() / kind
    if not make_private(folder) and folder.exists() and not is_ours(folder):
        folder = temporary_folder()
    return folder / kind


def mark_as_made_here(run_id: str) -> None:
    """Remember that this machine started a run, so that `evaluate` may open the addresses in its recipe."""
    mark = cache_folder(MADE_HERE) / run_id
    with suppress(OSError):  # only a cache: without the mark `evaluate` asks first
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def was_made_here(run_id: str) -> bool:
    """Whether `mark_as_made_here` was called with this id."""
    folder = cache_folder(MADE_HERE)
    # Compared with names, never joined to a path: the id of a stranger's run may be "." or "..".
    return folder.is_dir() and run_id in {path.name for path in folder.iterdir()}


def note_scoring(rows_sha256: str, run_id: str) -> int:
    """Remember that a run scored these test rows; returns how many other runs on this machine did so before."""
    folder = cache_folder(SCORED) / rows_sha256
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = hashlib.sha256(run_id.encode()).hexdigest()  # an id from a stranger's run is never part of a path
        others = sum(path.name != own for path in folder.iterdir())
        (folder / own).touch()
    except OSError:  # only a cache
        return 0
    return others
