"""Examples as flat arrays: all tokens end to end, and where each example begins.

One array instead of N lists makes collation index arithmetic and keeps a split's memory at a few bytes a token.
Letters: N examples, T tokens of all of them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # a token target that does not count, as in torch and transformers
TOKENIZER_BATCH = 1000  # texts; bounds the memory that the tokenizer's own results take


@dataclass(frozen=True)
class TokenStore:
    """N tokenised examples.

    `inputs`: what the model is given of each token, (T,) arrays: `input_ids` int32 and, where the model tells the
    segments of a pair apart, `token_type_ids` int8; `starts` (N + 1,) int64, from 0 to T; `rows` (N,) int64, the row
    each example was made from; `num_tokens_cut` (N,) int64, tokens lost to truncation; `sequences` int64, from 0 to T,
    the starts of the sequences where some examples hold several, which are computed together; None: one each.
    `targets`: what is to be learned of each example, arrays whose first axis is N, such as `labels` (N,) int64;
    `token_targets`: of each token, (T,) int64, IGNORED where there is nothing to learn.
    `features` (first axis N) and `token_features` (first axis T): what is needed to make predictions of the model's
    results, such as `offsets` (T, 2), the characters of each token.
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
        """(N,) tokens of each example."""
        return np.diff(self.starts)

    @property
    def sequence_lengths(self) -> np.ndarray:
        """Tokens of each sequence."""
        return self.lengths if self.sequences is None else np.diff(self.sequences)

    @property
    def num_windows(self) -> np.ndarray:
        """Sequences of each row."""
        parts = np.ones(len(self)) if self.sequences is None else np.diff(np.searchsorted(self.sequences, self.starts))
        return np.bincount(self.rows, weights=parts).astype(np.int64)

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1])

    def share_of(self, token: int | None) -> float:
        """The share of this token among all; 0 for a token that the tokenizer does not have."""
        return 0.0 if token is None or not self.num_tokens else float(np.mean(self.inputs["input_ids"] == token))

    @property
    def is_labelled(self) -> bool:
        return bool(self.targets or self.token_targets)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything training sees; equal exactly when tokens, order and targets are."""
        layout = {"starts": self.starts} | ({} if self.sequences is None else {"sequences": self.sequences})
        return digest_of({**self.inputs, **layout, **self.targets, **self.token_targets})


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of names, types, shapes and values."""
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
    """One example for each text, or text and pair, special tokens included, cut to `max_length` tokens.

    Of a pair the longer text is cut first, as transformers' `truncation=True` does.
    """
    has_types = "token_type_ids" in tokenizer.model_input_names
    ids, types, lengths, num_cut = array("i"), array("b"), array("q"), array("q")  # they grow in place
    for first in range(0, len(texts), TOKENIZER_BATCH):
        chosen = slice(first, first + TOKENIZER_BATCH)
        encodings = tokenizer(
            list(texts[chosen]),
            None if pairs is None else list(pairs[chosen]),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
        ).encodings
        ids.frombytes(flat(encodings, "ids", np.int32).tobytes())
        if has_types:
            types.frombytes(flat(encodings, "type_ids", np.int8).tobytes())
        lengths.extend(map(len, encodings))
        long = [first + index for index, encoding in enumerate(encodings) if encoding.overflowing]
        whole = _whole_lengths(tokenizer, [(texts[row], None if pairs is None else pairs[row]) for row in long])
        cut = {row: length - lengths[row] for row, length in zip(long, whole, strict=True)}
        num_cut.extend(cut.get(first + index, 0) for index in range(len(encodings)))
    inputs = {"input_ids": np.asarray(ids)}
    if np.any(types):  # else all is of the first segment, which is what a model takes for granted
        inputs["token_type_ids"] = np.asarray(types)
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return TokenStore(inputs, starts, np.arange(len(lengths)), np.asarray(num_cut))


def flat(encodings: Sequence[Any], name: str, dtype: type[np.generic]) -> np.ndarray:
    """One attribute of all tokens of these `tokenizers.Encoding`s, end to end."""
    return np.concatenate([np.array(getattr(encoding, name), dtype=dtype) for encoding in encodings])


def _whole_lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str | None]]) -> list[int]:
    """Tokens of each text, special ones included, if nothing were cut."""
    if not texts:
        return []
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    return [len(backend.encode(text, pair)) for text, pair in texts]
