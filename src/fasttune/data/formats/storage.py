"""Where a data file lies and how it is packed -> its bytes.

A path of this machine, or an address of the schemes in `security.addresses` (`s3://`, `gs://`, `hf://`); plain,
compressed as .gz .bz2 .xz .zst, or the only data file of a .zip. Archives are read in memory and never unpacked to the
disk; one that is cut, expands without measure or names places outside itself is a `DataError`.
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
# How much a packed file may hold unless `data.max_bytes` says otherwise. Texts shrink to a third or a fifth, tables of
# few different values to a fiftieth; a thousandth is what an archive made to fill memory has.
USUAL_EXPANSION = 100
ALWAYS_ALLOWED = 1 << 30
Header = bool | Literal["auto"]
BESIDE_DATA = ("README", "LICENSE", "LICENCE", "COPYING", "CITATION", "CHANGELOG")
INSIDE_MAC_ARCHIVES = "__MACOSX"
DAMAGES = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Reading:
    """How files are read, as `data` of a recipe has it.

    `encoding` of text files; None: UTF-8, or what a byte order mark says. `header`: whether the first row of CSV and
    TSV files names the columns; "auto": `delimited.has_header` decides. `max_bytes` a packed file may hold; None: the
    larger of 1 GiB and 100 times its size.
    `columns`: those that the recipe names, which no row of data is taken for.
    `head`: of a plain file only so many bytes, up to the end of a line; None: all of it.
    """

    encoding: str | None = None
    header: Header = "auto"
    max_bytes: int | None = None
    columns: tuple[str, ...] = ()
    head: int | None = None


def suffix_of(name: str) -> str:
    """The ending of a file's name, in small letters."""
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
        found, hint = f"an address of {scheme}", f"{error}"
        raise DataError(
            Problem(code="E136", where=spec, found=found, expected="a file system that is installed", hint=hint)
        ) from None
    except ValueError as error:
        expected = "a file, a folder, the id of a dataset on the hub, or an address such as s3://bucket/file.csv"
        raise DataError(Problem(code="E101", where=spec, found=str(error), expected=expected)) from None


def expand_address(spec: str) -> list[str]:
    """An address, which may be a glob -> the addresses of existing files, in a fixed order."""
    system, path = _filesystem(spec)
    try:
        found = [name for name in system.glob(path) if system.isfile(name)]
    except Exception as error:  # each file system has errors of its own
        raise DataError(_unreachable(spec, error)) from None
    if not found:
        raise DataError(Problem(code="E101", where=spec, found="no such file", expected="at least one data file"))
    return sorted(system.unstrip_protocol(name) for name in found)


def _unreachable(spec: str, error: Exception) -> Problem:
    message = (str(error).strip().splitlines() or [""])[0][:200]
    found = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Problem(code="E101", where=spec, found=found, expected="an address that can be read")


def opened(name: str) -> Any:
    """The file as it lies there, packed or not, for reading; it can be searched."""
    if not is_address(name):
        return Path(name).expanduser().open("rb")
    system, path = _filesystem(name)
    try:
        return system.open(path, "rb")
    except Exception as error:
        raise DataError(_unreachable(name, error)) from None


def inner_name(name: str) -> str:
    """What the file is called without its packing: reviews.csv.gz -> reviews.csv; of a .zip its only data file."""
    suffix = suffix_of(name)
    if suffix in COMPRESSED:
        return name[: -len(suffix)]
    if suffix == ZIP:
        with opened(name) as file, _zip(file, name) as archive:
            return f"{name}/{_member(archive, name).filename}"
    return name


def read_bytes(name: str, reading: Reading) -> bytes:
    """The content, unpacked."""
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
    """How many bytes a file of this size may hold. `max_bytes`: what the recipe says."""
    return max_bytes or max(ALWAYS_ALLOWED, USUAL_EXPANSION * packed_size)


def unpacked_too_much(where: str, limit: int) -> Problem:
    return Problem(
        code="E107",
        where=where,
        found=f"a packed file that holds more than {limit:,} bytes",
        expected="what a data file packs, at most 1 GiB or 100 times its size",
        hint=f"data.max_bytes={limit * 10} where you trust it",
    )


def _unpacked(file: Any, name: str, limit: int) -> bytes:
    """All of it, read piece by piece: what a header says of the size may be wrong."""
    content = bytearray()
    # read1 gives what there is; read would lose what stands before a cut
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
    found = f"an archive that is cut or damaged after {num_rows:,} lines ({message[:200]})"
    return Problem(code="E106", where=name, found=found, expected="a whole archive", hint="pack or download it again")


def _zstandard(file: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file), "zstd")


def _zip(file: BinaryIO, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except DAMAGES as error:
        raise DataError(_damaged(name, str(error))) from None


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The only data file of an archive whose members all stay inside it."""
    members = archive.infolist()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or is_link:
            found = f"{'a link' if is_link else 'a path out of the archive'}: {shown(member.filename)}"
            expected, hint = "data files inside the archive only", "unpack it where it can do no harm, and look at it"
            raise DataError(Problem(code="E108", where=name, found=found, expected=expected, hint=hint))
    files = [
        member
        for member in members
        if not member.is_dir() and INSIDE_MAC_ARCHIVES not in member.filename and not _is_beside(member.filename)
    ]
    if len(files) != 1:
        listed = ", ".join(shown(member.filename) for member in files[:5])
        found = f"an archive of {len(files):,} files" + (f": {listed}" if files else "")
        hint = "unpack it, and pass the file or folder"
        raise DataError(Problem(code="E102", where=name, found=found, expected="one data file in it", hint=hint))
    return files[0]


def _is_beside(name: str) -> bool:
    """A hidden file, or one that says something about the data."""
    return PurePosixPath(name).name.upper().startswith((".", *BESIDE_DATA))
