"""Store rows from a Python program as Parquet files in the cache, named by their content.

A recipe names files, never Python objects, so that a run can be repeated, evaluated and explained from its folder
alone. Rows from memory are therefore written where the recipe can name them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from fasttune.data.formats.files import without_dictionaries, write_parquet
from fasttune.data.formats.folders import SPLIT_WORDS
from fasttune.data.sources import from_dataset, from_frame, from_rows
from fasttune.errors import DataError, EnvironmentProblem, Problem
from fasttune.security.cache import cache_folder

KIND = "rows"


def is_rows(value: Any) -> bool:
    """Return whether `value` is a pandas or polars frame, an Arrow table, a Dataset(Dict) or a list of dicts."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return hasattr(value, "__arrow_c_stream__") or type(value).__module__.partition(".")[0] in ("pandas", "datasets")


def stored(value: Any) -> str:
    """Store rows and return the path of their file, or of a folder with one per split; DataError for other values."""
    if isinstance(value, dict):  # a DatasetDict
        # Other splits, such as `train_noisy` or `validation_matched`, are not used.
        written = {split: Path(stored(rows)) for split, rows in value.items() if split in SPLIT_WORDS}
        if "train" not in written:
            found, expected = (
                f"the splits {', '.join(value)}",
                f"train and optionally {', '.join(list(SPLIT_WORDS)[1:])}",
            )
            raise DataError(Problem(code="E131", where="a DatasetDict", found=found, expected=expected))
        digest = hashlib.sha256(repr(sorted((split, path.name) for split, path in written.items())).encode())
        folder = cache_folder(KIND) / digest.hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        for split, path in written.items():
            target = folder / f"{split}.parquet"
            if not target.exists():
                os.link(path, target)
        return str(folder)
    folder = cache_folder(KIND)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = f"cannot create this folder, which stores rows for the recipe: {error.strerror or error}"
        hint = "set XDG_CACHE_HOME to a writable folder"
        problem = Problem(code="E510", where=str(folder), found=found, hint=hint)
        raise EnvironmentProblem(problem) from None
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
    try:
        write_parquet(_dataset(value), temporary)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        path = folder / f"{digest.hexdigest()[:32]}.parquet"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return str(path)


def _dataset(value: Any) -> Any:
    import datasets
    import pyarrow as pa

    if isinstance(value, list):
        return from_rows(value).dataset
    if isinstance(value, datasets.Dataset):
        return from_dataset(value).dataset
    kind = f"a {type(value).__name__}"
    if type(value).__module__.startswith("pandas") and type(value).__name__ == "DataFrame":
        return from_frame(value).dataset
    try:
        return from_dataset(datasets.Dataset(without_dictionaries(pa.table(value))), kind).dataset
    except (TypeError, ValueError, pa.ArrowException):
        expected = "a pandas or polars frame, an Arrow table, a dataset or a list of dicts"
        raise DataError(Problem(code="E125", where="rows", found=kind, expected=expected)) from None
