"""Where fasttune keeps what it can make again: compiled kernels and tokenised data. Deleting these loses only time.

Rows that Python programs gave (`rows`) are kept here, too, for the runs that name them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The user's cache folder for `kind` (native | tokens | rows); respects XDG_CACHE_HOME. It need not exist."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as in some containers
        caches = Path(tempfile.gettempdir()) / f"cache-{os.getuid() if hasattr(os, 'getuid') else os.getlogin()}"
    return caches / "fasttune" / kind
