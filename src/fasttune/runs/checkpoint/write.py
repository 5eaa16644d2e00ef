"""Write a checkpoint so that a kill at any instant leaves it complete or invisible.

Files go into a hidden folder beside the target, never into $TMPDIR, since a rename must not cross file systems. Each
file is flushed to the disk, the manifest with sizes and hashes comes last, and one rename makes all of it visible.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from fasttune.runs.folder import ON_WINDOWS, sha256

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "trainer_state.json"
PREFIX = "checkpoint-"
STAGED = ".staged"
REPLACED = ".replaced"  # the older checkpoint of the same step, until the newer one is in place
DELETED = ".deleted"
SELF = "sha256"  # the manifest's own hash, inside it
MEANINGS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EIO: "the disk reported an error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EXDEV: "the file system cannot rename a folder",
    errno.EEXIST: "a file is in the place of a folder",
    errno.ENOTDIR: "a file is in the place of a folder",
}


def path_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"{PREFIX}{step}"


def step_named(name: str) -> int | None:
    """The step in a checkpoint's name, or None for any other name."""
    number = name.removeprefix(PREFIX)
    return int(number) if name.startswith(PREFIX) and number.isdecimal() else None


def step_of(path: Path) -> int | None:
    """The step of an existing checkpoint folder, or None for any other path."""
    return step_named(path.name) if path.is_dir() else None


def hash_of(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest without its own hash."""
    content = {name: value for name, value in manifest.items() if name != SELF}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Flush a file to the disk, or a folder, so that file names survive a power cut too."""
    if ON_WINDOWS and path.is_dir():
        return  # Windows cannot open folders; NTFS journals names
    descriptor = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)  # Windows flushes only writable descriptors
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_words(error: OSError) -> str:
    """The meaning of an operating system's error, with its name and the file."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    location = f" at {error.filename2 or error.filename}" if error.filename else ""
    return f"{MEANINGS.get(error.errno or 0, error.strerror or str(error))} ({name}{location})"


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Turn safetensors' exception, which names the system's error number only in its text, into an OSError."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


def write(
    checkpoints: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Path:
    """Write checkpoint-STEP and return its path.

    `tensors`: file stem -> name -> tensor. `state` is stored as JSON. `about` goes into the manifest (run id,
    fingerprints, versions). An existing checkpoint of this step is replaced. An OSError leaves the previous state.
    """
    target = path_of(checkpoints, step)
    staged = checkpoints / f".{target.name}{STAGED}"
    if not checkpoints.is_dir():
        checkpoints.mkdir(parents=True)
        sync(checkpoints.parent)
    restore_replaced(checkpoints)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _stage(staged, step, tensors, state, about)
        replaced = checkpoints / f".{target.name}{REPLACED}"
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
        staged.rename(target)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)  # it may have filled the disk
        restore_replaced(checkpoints)
        raise
    sync(checkpoints)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def _stage(
    staged: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    staged.mkdir()
    for stem, named in tensors.items():
        with _as_os_error(staged / f"{stem}.safetensors"):
            save_file({name: tensor.contiguous() for name, tensor in named.items()}, staged / f"{stem}.safetensors")
    (staged / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    files = {}
    for path in sorted(staged.iterdir()):
        sync(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    manifest = {"format": FORMAT, "step": step, "files": files, **about}
    manifest[SELF] = hash_of(manifest)
    (staged / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(staged / MANIFEST)
    sync(staged)


def restore_replaced(checkpoints: Path) -> None:
    """Restore the older checkpoint of a step after a write that was killed between its two renames."""
    for replaced in checkpoints.glob(f".{PREFIX}*{REPLACED}"):
        target = checkpoints / replaced.name[1:].removesuffix(REPLACED)
        if not target.exists():
            with suppress(FileNotFoundError):  # another process of the run was faster
                replaced.rename(target)
