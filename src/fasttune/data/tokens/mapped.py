"""Tables in files without names: the kernel takes their pages out of memory where it needs room, and reads them again.

The texts of a run are read from end to end a few times before the first step, and never after it.
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
    """The same table, in a file if it is large and there is room for one."""
    import pyarrow as pa

    if table.nbytes < LARGE:
        return table
    folder = cache_folder("rows")
    # A disk that is full or read-only, or columns that such a file cannot hold: a run needs none of it.
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
    """The pages of all tables: what is read once more comes from the file."""
    for pages in _MAPS if hasattr(mmap, "MADV_DONTNEED") else ():
        pages.madvise(mmap.MADV_DONTNEED)
