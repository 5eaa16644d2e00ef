"""Safe paths: names stay inside their folder, files belong to this user, links are not followed."""

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
    """`folder / name`; ValueError for a name that leads, or could lead, outside the folder.

    `name` is relative and separated by `/`, as keys of object stores and names in manifests are.
    """
    components = name.split("/")
    if PurePosixPath(name).is_absolute() or any(component in ("", ".", "..") for component in components):
        raise ValueError(f"the name {name!r} leads out of its folder")
    if any(character in "\\:\0" or not character.isprintable() for character in name):
        raise ValueError(f"the name {name!r} contains characters that are not allowed")
    target = folder.joinpath(*components)
    for parent in (target, *target.parents):
        if parent == folder:
            break
        if parent.is_symlink():
            raise ValueError(f"{parent} is a link")
    return target


def first_link(folder: Path) -> Path | None:
    """A symbolic link in the folder or its subfolders, or None. Links are not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                return path
    return None


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside `path`, with a random name, and rename it to `path` when the block ends.

    If the block or the disk fails, `path` keeps its content. A link at `path` is replaced, not followed.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with new_path(path) as staged, os.fdopen(os.open(staged, flags, 0o666), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Like `new_file`, but yield a path that does not exist yet, for libraries that need one."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}{STAGED}")
    try:
        yield staged
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether a regular file or folder belongs to this user, and no one else can write to it. False for links."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return False
    if not hasattr(os, "geteuid"):  # Windows: folders in the profile belong to the user
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & OTHERS_MAY_WRITE


def make_private(folder: Path) -> bool:
    """Create the folder for this user only, or close this user's folder to others. Return whether that worked."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and hasattr(os, "geteuid") and status.st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError:
        return False
    return is_ours(folder)


@functools.cache
def temporary_folder() -> Path:
    """A temporary folder of this process, deleted when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="fasttune-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
