"""Read the bytes of a data file, wherever it is stored and however it is compressed.

A file is a local path or an address with one of the schemes in `security.addresses` (`s3://`, `gs://`, `hf://`). It is
plain, compressed as .gz, .bz2, .xz or .zst, or the only data file in a .zip. Archives are read in memory and never
unpacked to disk. An archive that is truncated, expands beyond a limit or has paths outside itself is a `DataError`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from fasttune.errors import DataError, Problem, require_safe, shown
from fasttune.security import addresses

COMPRESSED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda file: _zstandard(file),
}
ZIP = ".zip"
READ_AT_ONCE = 1 << 20
# The limit for a compressed file unless `data.max_bytes` sets one. Text shrinks to a third or a fifth, and tables with
# few different values to a fiftieth; archives made to fill memory shrink to a thousandth.
USUAL_EXPANSION = 100
ALWAYS_ALLOWED = 1 << 30
Header = bool | Literal["auto"]
BESIDE_DATA = ("README", "LICENSE", "LICENCE", "COPYING", "CITATION", "CHANGELOG")
INSIDE_MAC_ARCHIVES = "__MACOSX"
DAMAGES = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class ReadOptions:
    """How to read files, from `data` in the recipe.

    - `encoding`: of text files; None means UTF-8, or the encoding of the byte order mark.
    - `header`: whether the first row of CSV and TSV files has the column names; "auto": `delimited.has_header` decides.
    - `max_bytes`: the limit for an unpacked file; None means the larger of 1 GiB and 100 times the packed size.
    - `columns`: the columns that the recipe names; a first row with any of them is a header.
    - `sheet`: the sheet of a spreadsheet; None means the only one with cells.
    - `head`: read only this many bytes of a plain file, up to the last complete line; None means all of it.
    """

    encoding: str | None = None
    header: Header = "auto"
    max_bytes: int | None = None
    columns: tuple[str, ...] = ()
    sheet: str | None = None
    head: int | None = None


def suffix_of(name: str) -> str:
    """Return the extension of a file name, in lower case."""
    return PurePosixPath(name).suffix.lower()


def is_address(spec: str) -> bool:
    return "://" in spec


def _filesystem(spec: str) -> tuple[Any, str]:
    wrong = addresses.refusal(spec)
    if wrong is not None:
        raise DataError(Problem(code="E140", where=spec, found=wrong[0], expected=wrong[1]))
    require_safe("fsspec")
    import fsspec

    try:
        return fsspec.core.url_to_fs(spec)
    except ImportError as error:
        scheme = spec.partition("://")[0]
        found = f"no package for {scheme}:// addresses is installed"
        raise DataError(Problem(code="E136", where=spec, found=found, hint=str(error))) from None
    except ValueError as error:
        hint = "pass a file, a folder, the id of a dataset on the hub, or an address such as s3://bucket/file.csv"
        raise DataError(Problem(code="E101", where=spec, found=str(error), hint=hint)) from None


def expand_address(spec: str) -> list[str]:
    """Expand an address, which may be a glob, to the sorted addresses of existing files."""
    system, path = _filesystem(spec)
    try:
        names = [name for name in system.glob(path) if system.isfile(name)]
    except Exception as error:  # each file system raises its own types
        raise DataError(_unreachable(spec, error)) from None
    if not names:
        raise DataError(Problem(code="E101", where=spec, found="no such file"))
    return sorted(system.unstrip_protocol(name) for name in names)


def _unreachable(spec: str, error: Exception) -> Problem:
    message = (str(error).strip().splitlines() or [""])[0][:200]
    reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Problem(code="E101", where=spec, found=f"cannot be read ({reason})")


def opened(name: str) -> Any:
    """Open the stored file, packed or not, for reading; the result is seekable."""
    if not is_address(name):
        return Path(name).expanduser().open("rb")
    system, path = _filesystem(name)
    try:
        return system.open(path, "rb")
    except Exception as error:
        raise DataError(_unreachable(name, error)) from None


def inner_name(name: str) -> str:
    """Return the name of the file inside: reviews.csv.gz -> reviews.csv; for a .zip, its only data file."""
    suffix = suffix_of(name)
    if suffix in COMPRESSED:
        return name[: -len(suffix)]
    if suffix == ZIP:
        with opened(name) as file, _zip(file, name) as archive:
            return f"{name}/{_member(archive, name).filename}"
    return name


def read_bytes(name: str, reading: ReadOptions) -> bytes:
    """Return the content of a file, unpacked."""
    suffix = suffix_of(name)
    with opened(name) as file:
        if suffix == ZIP:
            with _zip(file, name) as archive:
                member = _member(archive, name)
                try:
                    return _unpacked(archive.open(member), name, limit_of(member.compress_size, reading.max_bytes))
                except RuntimeError as error:  # an encrypted member
                    raise DataError(_damaged(name, str(error))) from None
        if suffix in COMPRESSED:
            size = file.seek(0, 2)
            file.seek(0)
            if not size:
                return b""
            return _unpacked(COMPRESSED[suffix](file), name, limit_of(size, reading.max_bytes))
        if reading.head is None:
            return file.read()
        content = file.read(reading.head)
        return content if len(content) < reading.head else content[: content.rfind(b"\n") + 1]


def limit_of(packed_size: int, max_bytes: int | None) -> int:
    """Return how many bytes a file of this size may unpack to. `max_bytes`: the recipe's limit, if any."""
    return max_bytes or max(ALWAYS_ALLOWED, USUAL_EXPANSION * packed_size)


def unpacked_too_much(where: str, limit: int) -> Problem:
    return Problem(
        code="E107",
        where=where,
        found=f"the file unpacks to more than {limit:,} bytes (default limit: 1 GiB or 100 times its size)",
        hint=f"data.max_bytes={limit * 10} if you trust it",
    )


def _unpacked(file: Any, name: str, limit: int) -> bytes:
    """Read all of it in pieces, because the size in its header may be wrong."""
    content = bytearray()
    # read1 returns what is available; read would lose everything before a truncation
    read = getattr(file, "read1", file.read)
    try:
        while piece := read(READ_AT_ONCE):
            content += piece
            if len(content) > limit:
                raise DataError(unpacked_too_much(name, limit))
    except DAMAGES as error:
        raise DataError(_damaged(name, str(error), bytes(content).count(b"\n"))) from None
    return bytes(content)


def _damaged(name: str, message: str, num_rows: int = 0) -> Problem:
    after = f" after {num_rows:,} lines" if num_rows else ""
    found = f"the archive is truncated or damaged{after} ({message[:200]})"
    return Problem(code="E106", where=name, found=found, hint="create or download it again")


def _zstandard(file: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file), "zstd")


def _zip(file: BinaryIO, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except DAMAGES as error:
        raise DataError(_damaged(name, str(error))) from None


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return the only data file of an archive; DataError if there are several, or a member lies outside."""
    members = archive.infolist()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or is_link:
            kind = "a link" if is_link else "a path outside itself"
            found = f"the archive contains {kind}: {shown(member.filename)}"
            hint = "inspect it before you unpack it: such an archive can overwrite other files"
            raise DataError(Problem(code="E108", where=name, found=found, hint=hint))
    files = [
        member
        for member in members
        if not member.is_dir() and INSIDE_MAC_ARCHIVES not in member.filename and not _is_beside(member.filename)
    ]
    if len(files) != 1:
        listed = ", ".join(shown(member.filename) for member in files[:5])
        found = f"an archive with {len(files):,} files: {listed}" if files else "an archive without files"
        hint = "unpack it and pass the file or folder"
        raise DataError(Problem(code="E102", where=name, found=found, expected="exactly one data file", hint=hint))
    return files[0]


def _is_beside(name: str) -> bool:
    """Return whether the file is hidden or documents the data."""
    return PurePosixPath(name).name.upper().startswith((".", *BESIDE_DATA))
