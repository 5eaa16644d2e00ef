"""Keep large tables in unnamed memory-mapped files, so that the kernel can drop their pages and read them again.

The texts of a run are read end to end a few times before the first step, and never after it.
"""

from __future__ import annotations

import mmap
import tempfile
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from fasttune.security.cache import cache_folder

if TYPE_CHECKING:
    import pyarrow as pa

LARGE = 2**26  # bytes; a smaller table stays in memory

_MAPS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def mapped(table: pa.Table) -> pa.Table:
    """Return the same table, memory-mapped if it is large and can be written to a file."""
    import pyarrow as pa

    if table.nbytes < LARGE:
        return table
    folder = cache_folder("rows")
    # The disk may be full or read-only, or the file unable to store a column; mapping is only an optimisation.
    with suppress(OSError, pa.ArrowException):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _MAPS.add(pages)
        return pa.ipc.open_file(pa.py_buffer(pages)).read_all()
    return table


def release_pages() -> None:
    """Release the memory pages of all mapped tables; if they are read again, they come from the file."""
    for pages in _MAPS if hasattr(mmap, "MADV_DONTNEED") else ():
        pages.madvise(mmap.MADV_DONTNEED)
