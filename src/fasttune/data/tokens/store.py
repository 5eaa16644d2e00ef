"""Tokenised examples as flat arrays: all tokens end to end, and where each example begins.

With one array instead of N lists, collation is index arithmetic, and a split takes a few bytes per token.
Letters: N examples, T tokens in all of them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fasttune.data.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # a token target that the loss ignores, as in torch and transformers
TOKENIZER_BATCH = 1000  # texts; bounds the memory of the tokenizer's results


@dataclass(frozen=True)
class TokenStore:
    """N tokenised examples.

    - `inputs`: (T,) arrays with the model's input for each token: `input_ids` int32 and, if the model distinguishes the
      segments of a pair, `token_type_ids` int8.
    - `starts`: (N + 1,) int64, from 0 to T, where each example begins.
    - `rows`: (N,) int64, the row each example was made from.
    - `num_tokens_cut`: (N,) int64, the tokens lost to truncation.
    - `sequences`: int64, from 0 to T, where each sequence begins, if some examples have several, which are computed
      together; None if each has one.
    - `targets`: the targets of each example, arrays whose first axis is N, such as `labels` (N,) int64.
    - `token_targets`: the targets of each token, (T,) int64, IGNORED for tokens without one.
    - `features` (first axis N) and `token_features` (first axis T): what is needed to turn the model's results into
      predictions, such as `offsets` (T, 2), the characters of each token.
    """

    inputs: dict[str, np.ndarray]
    starts: np.ndarray
    rows: np.ndarray
    num_tokens_cut: np.ndarray
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    token_targets: dict[str, np.ndarray] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    token_features: dict[str, np.ndarray] = field(default_factory=dict)
    sequences: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) the number of tokens in each example."""
        return np.diff(self.starts)

    @property
    def sequence_lengths(self) -> np.ndarray:
        """The number of tokens in each sequence."""
        return self.lengths if self.sequences is None else np.diff(self.sequences)

    @property
    def num_windows(self) -> np.ndarray:
        """The number of sequences of each row."""
        parts = np.ones(len(self)) if self.sequences is None else np.diff(np.searchsorted(self.sequences, self.starts))
        return np.bincount(self.rows, weights=parts).astype(np.int64)

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1])

    def share_of(self, token: int | None) -> float:
        """Return the share of a token among all tokens; 0 for None, a token that the tokenizer does not have."""
        return 0.0 if token is None or not self.num_tokens else float(np.mean(self.inputs["input_ids"] == token))

    @property
    def is_labelled(self) -> bool:
        return bool(self.targets or self.token_targets)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything training sees; equal if and only if tokens, order and targets are."""
        layout = {"starts": self.starts} | ({} if self.sequences is None else {"sequences": self.sequences})
        return digest_of({**self.inputs, **layout, **self.targets, **self.token_targets})


def joined(stores: Sequence[TokenStore]) -> TokenStore:
    """The examples of several stores of the same task as one store, in order."""
    if len(stores) == 1:
        return stores[0]
    bounds = np.concatenate([[0], np.cumsum([store.num_tokens for store in stores])])
    first_rows = np.cumsum([0, *(int(store.rows.max(initial=-1)) + 1 for store in stores)])

    def end_to_end(name: str) -> dict[str, np.ndarray]:
        parts = [getattr(store, name) for store in stores]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def shifted(arrays: Sequence[np.ndarray]) -> np.ndarray:
        moved = [array[:-1] + bound for array, bound in zip(arrays, bounds[:-1], strict=True)]
        return np.concatenate([*moved, bounds[-1:]])

    # A store whose texts all have the first segment has no segments.
    inputs = {
        name: np.concatenate([store.inputs.get(name, np.zeros(store.num_tokens, np.int8)) for store in stores])
        for name in {name: None for store in stores for name in store.inputs}
    }
    have_sequences = any(store.sequences is not None for store in stores)
    sequences = [store.starts if store.sequences is None else store.sequences for store in stores]
    return TokenStore(
        inputs,
        shifted([store.starts for store in stores]),
        np.concatenate([store.rows + first for store, first in zip(stores, first_rows[:-1], strict=True)]),
        np.concatenate([store.num_tokens_cut for store in stores]),
        features=end_to_end("features"),
        token_features=end_to_end("token_features"),
        sequences=shifted(sequences) if have_sequences else None,
    )


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def tokenize(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    pairs: Sequence[str] | None = None,
) -> TokenStore:
    """Return one example per text or pair of texts, truncated to `max_length` tokens, special tokens included.

    In a pair the longer text is truncated first, as with `truncation=True` in transformers.
    """
    has_types = "token_type_ids" in tokenizer.model_input_names
    ids, types, lengths, num_cut = array("i"), array("b"), array("q"), array("q")  # arrays, which grow in place
    for first in range(0, len(texts), TOKENIZER_BATCH):
        chosen = slice(first, first + TOKENIZER_BATCH)
        chosen_pairs = None if pairs is None else list(pairs[chosen])
        tokenize_batch = _fast if tokenizer.is_fast else _slow
        tokens = tokenize_batch(tokenizer, list(texts[chosen]), chosen_pairs, max_length)
        ids.frombytes(tokens.ids.tobytes())
        if has_types:
            types.frombytes(tokens.types.tobytes())
        lengths.extend(tokens.lengths)
        num_cut.extend(tokens.num_cut)
    inputs = {"input_ids": np.asarray(ids)}
    if np.any(types):  # without them a model assumes the first segment for all tokens
        inputs["token_type_ids"] = np.asarray(types)
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return TokenStore(inputs, starts, np.arange(len(lengths)), np.asarray(num_cut))


class _Tokens(NamedTuple):
    """Some texts end to end: `ids` (T,) int32, `types` (T,) int8, and per text the `lengths` and `num_cut` tokens."""

    ids: np.ndarray
    types: np.ndarray
    lengths: list[int]
    num_cut: list[int]


def _fast(tokenizer: PreTrainedTokenizerBase, texts: list[str], pairs: list[str] | None, max_length: int) -> _Tokens:
    encodings = tokenizer(
        texts, pairs, truncation=True, max_length=max_length, padding=False, return_attention_mask=False
    ).encodings
    lengths, num_cut = list(map(len, encodings)), [0] * len(texts)
    long = [row for row, encoding in enumerate(encodings) if encoding.overflowing]
    if long:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        for row in long:
            whole = len(backend.encode(texts[row], None if pairs is None else pairs[row]))
            num_cut[row] = whole - lengths[row]
    return _Tokens(flat(encodings, "ids", np.int32), flat(encodings, "type_ids", np.int8), lengths, num_cut)


def _slow(tokenizer: PreTrainedTokenizerBase, texts: list[str], pairs: list[str] | None, max_length: int) -> _Tokens:
    """Tokenise with a Python tokenizer, which returns lists and does not report how much it truncated."""
    ids: list[int] = []
    types: list[int] = []
    lengths, num_cut = [], []
    for row, text in enumerate(texts):
        pair = None if pairs is None else pairs[row]
        whole = tokenizer(text, pair, return_token_type_ids=True, verbose=False)
        kept = whole
        if len(whole["input_ids"]) > max_length:
            with quiet_transformers():
                kept = tokenizer(text, pair, truncation=True, max_length=max_length, return_token_type_ids=True)
        ids += kept["input_ids"]
        types += kept["token_type_ids"]
        lengths.append(len(kept["input_ids"]))
        num_cut.append(len(whole["input_ids"]) - lengths[-1])
    return _Tokens(np.array(ids, np.int32), np.array(types, np.int8), lengths, num_cut)


def flat(encodings: Sequence[Any], name: str, dtype: type[np.generic]) -> np.ndarray:
    """Concatenate one attribute of all tokens in these `tokenizers.Encoding`s."""
    return np.concatenate([np.array(getattr(encoding, name), dtype=dtype) for encoding in encodings])
