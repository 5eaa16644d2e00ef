"""Cache token stores on disk, so that rows tokenised once are memory-mapped the next time.

A store is a folder of .npy files in the user's cache, named by a hash of everything it is computed from. Runs, seeds
and processes on one machine share its memory pages. It is written to a temporary folder and renamed, and used only if
its arrays match the hash stored with them; otherwise it is computed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.tokens.store import TokenStore, digest_of
from fasttune.security.cache import cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 3
FINGERPRINT = "fingerprint.json"
GROUPS = (
    "inputs",
    "targets",
    "token_targets",
    "features",
    "token_features",
)  # the store's dictionaries of arrays; files are named GROUP.NAME.npy
LARGEST_CACHE = 20 * 10**9  # bytes; the least recently used stores are deleted first


def key_of(values: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> str:
    """Return the sha256 of rows, tokenizer and `settings` (maximum length, task, labels)."""
    import tokenizers
    import transformers

    digest = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True, default=str).encode())
    has_types = "token_type_ids" in tokenizer.model_input_names
    sides = (tokenizer.truncation_side, tokenizer.padding_side)
    about = [type(tokenizer).__name__, sides, tokenizer.split_special_tokens, has_types]
    digest.update(repr((about, tokenizers.__version__, transformers.__version__)).encode())
    digest.update(_content_of(tokenizer))
    _add_values(digest, values)
    return digest.hexdigest()


def _content_of(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """Return a tokenizer's vocabulary and rules: its tokenizer.json or, for a Python tokenizer, all files it saves."""
    if tokenizer.is_fast:
        # Truncation and padding are left over from the last call; `settings` has those of this store.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        return tokenizer.backend_tokenizer.to_str().encode()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return repr([(path.name, path.read_bytes()) for path in files]).encode()


def sha256_of(values: Mapping[str, Sequence[Any]]) -> str:
    """Return the sha256 of rows as a task reads them: role -> one value per row."""
    digest = hashlib.sha256()
    _add_values(digest, values)
    return digest.hexdigest()


def _add_values(digest: hashlib._Hash, values: Mapping[str, Sequence[Any]]) -> None:
    for role, column in sorted(values.items()):
        digest.update(json.dumps([role, len(column)]).encode())
        for value in column:
            encoded = (value if isinstance(value, str) else json.dumps(value, sort_keys=True)).encode()
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)


def cached(key: str, make: Callable[[], TokenStore]) -> TokenStore:
    """Return the store from the cache, or make it and, if possible, add it to the cache."""
    folder = cache_folder("tokens") / key[:32]
    store = _read(folder)
    if store is None:
        store = make()
        with suppress(OSError):  # the disk is full or read-only; the cache only saves time
            _write(folder, store)
            store = _read(folder) or store  # the mapped copy does not occupy memory
    return store


def _arrays(store: TokenStore) -> dict[str, np.ndarray]:
    fields = {name: getattr(store, name) for name in ("starts", "rows", "num_tokens_cut", "sequences")}
    arrays = {name: array for name, array in fields.items() if array is not None}
    for group in GROUPS:
        arrays |= {f"{group}.{name}": array for name, array in getattr(store, group).items()}
    return arrays


def _write(folder: Path, store: TokenStore) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as staged:
        written = Path(staged) / "store"
        written.mkdir()
        for name, array in _arrays(store).items():
            np.save(written / f"{name}.npy", array, allow_pickle=False)
        (written / FINGERPRINT).write_text(json.dumps(fingerprint_of(store)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        written.replace(folder)
    _make_room(folder.parent, keep=folder)


def _read(folder: Path) -> TokenStore | None:
    """Return the store in a folder, or None if there is none or it is incomplete."""
    try:
        expected = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
        arrays: dict[str, Any] = {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")
        }
        groups: dict[str, Any] = {group: {} for group in GROUPS}
        for full in [name for name in arrays if "." in name]:
            group, _, name = full.partition(".")
            groups[group][name] = arrays.pop(full)
        store = TokenStore(**arrays, **groups)
        if fingerprint_of(store) != expected:
            return None
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    with suppress(OSError):  # read-only
        (folder / FINGERPRINT).touch()  # records the last use
    return store


def fingerprint_of(store: TokenStore) -> str:
    """Return the sha256 of all arrays; `TokenStore.fingerprint` leaves out what training does not see."""
    return digest_of(_arrays(store))


def _last_used(path: Path) -> float:
    """Return when a store was last used; one without a fingerprint is unfinished."""
    fingerprint = path / FINGERPRINT
    return (fingerprint if fingerprint.exists() else path).stat().st_mtime


def _make_room(folder: Path, keep: Path) -> None:
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*")) for path in folder.iterdir() if path.is_dir()}
    oldest_first = sorted(sizes, key=_last_used)
    total = sum(sizes.values())
    for path in oldest_first:
        if total > LARGEST_CACHE and path != keep:
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]
