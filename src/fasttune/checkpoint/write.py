"""Write one checkpoint so that a kill at any instant leaves it whole or invisible.

Files go into a hidden folder beside the target (never into $TMPDIR: a rename must not cross file systems), each is
flushed to the disk, the manifest with their sizes and hashes comes last, then one rename makes all of it visible.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "trainer_state.json"
PREFIX = "checkpoint-"
STAGED = ".staged"
REPLACED = ".replaced"
SELF = "sha256"  # the manifest's own hash, inside it


def path_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"{PREFIX}{step}"


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name, or None when it is not one."""
    number = path.name.removeprefix(PREFIX)
    return int(number) if path.name.startswith(PREFIX) and number.isdecimal() and path.is_dir() else None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(manifest: Mapping[str, Any]) -> str:
    """sha256 of a manifest without its own hash."""
    content = {name: value for name, value in manifest.items() if name != SELF}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Flush a file or, so that names survive a power cut too, a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(
    checkpoints: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Path:
    """Write checkpoint-STEP and return its path.

    `tensors`: file stem -> name -> tensor. `state`: kept as JSON. `about`: what the manifest says of the run (its id,
    fingerprints, versions). An existing checkpoint of this step is replaced. OSError is the caller's to name.
    """
    target = path_of(checkpoints, step)
    staged = checkpoints / f".{target.name}{STAGED}"
    checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for stem, named in tensors.items():
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
    replaced = checkpoints / f".{target.name}{REPLACED}"
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
    staged.rename(target)
    sync(checkpoints)
    shutil.rmtree(replaced, ignore_errors=True)
    return target
