"""Token stores on disk, by content: what was tokenised once is mapped into memory the next time.

A store is a folder of .npy files under the user's cache, named after a hash of everything that goes into it. Runs,
seeds and processes of one machine share the pages. It is staged and renamed, and read back only if its arrays hash to
what was written; anything else is made again.
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
)  # the store's dictionaries of arrays; a file is named GROUP.NAME.npy
LARGEST_CACHE = 20 * 10**9  # bytes; the stores that were used longest ago go first


def key_of(values: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> str:
    """sha256 of rows, tokenizer and `settings` (maximum length, the task and what it knows of labels)."""
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
    """Vocabulary and rules of a tokenizer: its tokenizer.json, or of one in Python all the files it saves."""
    if tokenizer.is_fast:
        # Truncation and padding are those of the last call; what they are for this store stands in the settings.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        return tokenizer.backend_tokenizer.to_str().encode()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return repr([(path.name, path.read_bytes()) for path in files]).encode()


def sha256_of(values: Mapping[str, Sequence[Any]]) -> str:
    """Of rows as a task reads them: role -> one value a row."""
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
    """The store that `make` makes, from the cache where it is there and whole, or made and kept if it can be."""
    folder = cache_folder("tokens") / key[:32]
    store = _read(folder)
    if store is None:
        store = make()
        with suppress(OSError):  # full or read-only: the cache saves time, and a run needs none of it
            _write(folder, store)
            store = _read(folder) or store  # mapped, it need not be held in memory
    return store


def _arrays(store: TokenStore) -> dict[str, np.ndarray]:
    own = {name: getattr(store, name) for name in ("starts", "rows", "num_tokens_cut", "sequences")}
    own = {name: array for name, array in own.items() if array is not None}
    groups = {group: getattr(store, group) for group in GROUPS}
    return own | {f"{group}.{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def _write(folder: Path, store: TokenStore) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as staged:
        place = Path(staged) / "store"
        place.mkdir()
        for name, array in _arrays(store).items():
            np.save(place / f"{name}.npy", array, allow_pickle=False)
        (place / FINGERPRINT).write_text(json.dumps(fingerprint_of(store)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        place.replace(folder)
    _make_room(folder.parent, keep=folder)


def _read(folder: Path) -> TokenStore | None:
    """None where there is no store, or one that is not whole."""
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
        (folder / FINGERPRINT).touch()  # when it was used last
    return store


def fingerprint_of(store: TokenStore) -> str:
    """sha256 of all arrays; the store's own leaves out what training does not see."""
    return digest_of(_arrays(store))


def _last_used(path: Path) -> float:
    """What has no fingerprint is being written, or was when it was killed."""
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
