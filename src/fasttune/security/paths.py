"""Where strangers' names may lead: names inside a folder, files that nobody else can have put there, no links."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

STAGED = ".staged"
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def inside(folder: Path, name: str) -> Path:
    """`folder / name`; ValueError for a name that leads, or could lead, anywhere else.

    `name` is relative, with `/` between its parts, as keys of object stores and manifests have it.
    """
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"the name {name!r} leads out of its folder")
    if any(character in "\\:\0" or not character.isprintable() for character in name):
        raise ValueError(f"the name {name!r} holds characters that no file of a run has")
    target = folder.joinpath(*parts)
    for parent in (target, *target.parents):
        if parent == folder:
            break
        if parent.is_symlink():
            raise ValueError(f"{parent} is a link")
    return target


def first_link(folder: Path) -> Path | None:
    """A symbolic link in the folder or its folders, or None; links are not followed."""
    for place, folders, files in os.walk(folder):
        found = next((path for name in (*folders, *files) if (path := Path(place, name)).is_symlink()), None)
        if found is not None:
            return found
    return None


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, under a name that nobody can guess, which takes its place when the block ends.

    `path` then holds all of it, or what it held before if the block or a disk fails. A link at `path` is replaced, not
    followed.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with new_path(path) as beside, os.fdopen(os.open(beside, flags, 0o666), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """As `new_file`, for what wants a path to write to: where nothing is yet, beside `path`."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{STAGED}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether a plain file or folder belongs to this user and nobody else may write to it; links never do."""
    try:
        found = path.lstat()
    except OSError:
        return False
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return False
    if not hasattr(os, "geteuid"):  # Windows: the profile's folders are the user's own
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & OTHERS_MAY_WRITE


def make_private(folder: Path) -> bool:
    """Make the folder, for this user alone, or close one of our own to others; whether it is ours now."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and hasattr(os, "geteuid") and found.st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError:
        return False
    return is_ours(folder)


@functools.cache
def temporary_folder() -> Path:
    """A folder of this process alone, which goes when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="fasttune-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)
