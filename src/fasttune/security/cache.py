"""Where fasttune keeps what it can make again: compiled kernels and tokenised data. Deleting these loses only time.

Rows that Python programs gave (`rows`) are kept here, too, for the runs that name them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fasttune.security.paths import is_ours, make_private, temporary_folder

MADE_HERE = "runs"  # an empty file for each run that was started on this machine, named by its id


def cache_folder(kind: str) -> Path:
    """The user's cache folder for `kind` (native | tokens | rows); respects an absolute XDG_CACHE_HOME.

    The folder above it is made, for this user alone. Where it is somebody else's, or there is no home, it is one of
    this process alone instead: what others can write there would be run (kernels) or trained on (tokens).
    """
    asked = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (asked if asked.is_absolute() else Path.home() / ".cache") / "fasttune"
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
