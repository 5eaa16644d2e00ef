"""Verify that a checkpoint is intact and belongs to this run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fasttune.runs.checkpoint.write import FORMAT, MANIFEST, SELF, STATE, hash_of, step_named
from fasttune.runs.folder import sha256

FOREIGN = "it belongs to another run"


def fault(path: Path, run_id: str | None) -> str | None:
    """What is wrong with the checkpoint at `path`, in words, or None if every byte is as it was written.

    A `run_id` of None accepts checkpoints of any run.
    """
    try:
        manifest = read_manifest(path)
    except FileNotFoundError:
        return "it has no manifest, so its write never finished"
    except (OSError, ValueError, RecursionError) as error:
        return f"its manifest cannot be read ({error})"
    if manifest.get(SELF) != hash_of(manifest):
        return "its manifest was changed or damaged"
    if manifest.get("format") != FORMAT:
        return f"it has format {manifest.get('format')!r}, but this release reads {FORMAT}"
    if run_id is not None and manifest.get("run_id") != run_id:
        return FOREIGN
    step = step_named(path.name)
    if step is not None and manifest.get("step") != step:
        return f"its manifest belongs to step {manifest.get('step')}"
    if STATE not in manifest["files"] or not any(name.endswith(".safetensors") for name in manifest["files"]):
        return "its manifest lacks the tensors or the state"
    for name, expected in manifest["files"].items():
        file = path / name
        if Path(name).name != name or not isinstance(expected, dict) or {"size", "sha256"} - expected.keys():
            return "its manifest cannot be read"
        if file.is_symlink() or not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size:,} bytes instead of {expected['size']:,}"
        if sha256(file) != expected["sha256"]:
            return f"{name} was changed or damaged (its sha256 differs)"
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint; ValueError if the file is not one."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError("it is not a manifest")
    return manifest
