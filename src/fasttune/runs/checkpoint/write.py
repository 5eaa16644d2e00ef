"""Write one checkpoint so that a kill at any instant leaves it whole or invisible.

Files go into a hidden folder beside the target (never into $TMPDIR: a rename must not cross file systems), each is
flushed to the disk, the manifest with their sizes and hashes comes last, then one rename makes all of it visible.
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
REPLACED = ".replaced"  # the older one of this step, until the newer one has its place
DELETED = ".deleted"
SELF = "sha256"  # the manifest's own hash, inside it
MEANINGS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EIO: "the disk reports an error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no right to write there",
    errno.EPERM: "no right to write there",
    errno.EXDEV: "the file system cannot rename a folder",
    errno.EEXIST: "there is a file where a folder should be",
    errno.ENOTDIR: "there is a file where a folder should be",
}


def path_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"{PREFIX}{step}"


def step_named(name: str) -> int | None:
    """The step in a checkpoint's name, or None when it is not one."""
    number = name.removeprefix(PREFIX)
    return int(number) if name.startswith(PREFIX) and number.isdecimal() else None


def step_of(path: Path) -> int | None:
    """The same of a folder that is there."""
    return step_named(path.name) if path.is_dir() else None


def hash_of(manifest: Mapping[str, Any]) -> str:
    """sha256 of a manifest without its own hash."""
    content = {name: value for name, value in manifest.items() if name != SELF}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Flush a file or, so that names survive a power cut too, a folder to the disk."""
    if ON_WINDOWS and path.is_dir():
        return  # Windows opens no folders; NTFS keeps a journal of names
    descriptor = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)  # it flushes what may be written only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_words(error: OSError) -> str:
    """What an operating system's error means here, with its name and the file."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    place = f" at {error.filename2 or error.filename}" if error.filename else ""
    return f"{MEANINGS.get(error.errno or 0, error.strerror or str(error))} ({name}{place})"


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """safetensors has an exception of its own, which holds the number of the system's error in its text."""
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

    `tensors`: file stem -> name -> tensor. `state`: kept as JSON. `about`: what the manifest says of the run (its id,
    fingerprints, versions). An existing checkpoint of this step is replaced. OSError is the caller's to name; what was
    there before is there still.
    """
    target = path_of(checkpoints, step)
    staged = checkpoints / f".{target.name}{STAGED}"
    if not checkpoints.is_dir():
        checkpoints.mkdir(parents=True)
        sync(checkpoints.parent)
    put_back(checkpoints)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _stage(staged, step, tensors, state, about)
        replaced = checkpoints / f".{target.name}{REPLACED}"
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
        staged.rename(target)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)  # it may fill the disk
        put_back(checkpoints)
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


def put_back(checkpoints: Path) -> None:
    """A write that was cut short between its two renames left the older checkpoint of the step beside its place."""
    for replaced in checkpoints.glob(f".{PREFIX}*{REPLACED}"):
        target = checkpoints / replaced.name[1:].removesuffix(REPLACED)
        if not target.exists():
            with suppress(FileNotFoundError):  # another process of the run did it
                replaced.rename(target)
