"""Examples as flat arrays: all tokens end to end, and where each example begins.

One array instead of N lists makes collation index arithmetic and keeps a split's memory at four bytes a token.
Letters: N examples, T tokens of all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_BATCH = 1000  # texts; bounds the memory that the tokenizer's own results take


@dataclass(frozen=True)
class TokenStore:
    """N tokenised examples.

    `input_ids` (T,) int32; `starts` (N + 1,) int64, from 0 to T; `rows` (N,) int64, the row each example was made from;
    `targets`: arrays whose first axis is N, such as `labels` (N,) int64; `num_tokens_cut` (N,) int64, tokens lost to
    truncation.
    """

    input_ids: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    num_tokens_cut: np.ndarray
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each example."""
        return np.diff(self.starts)

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything training sees; equal exactly when tokens, order and targets are."""
        digest = hashlib.sha256()
        arrays = {"input_ids": self.input_ids, "starts": self.starts, **self.targets}
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def tokenize(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenStore:
    """One example for each text, special tokens included, cut to `max_length` tokens."""
    ids: list[np.ndarray] = []
    cut: list[int] = []
    for first in range(0, len(texts), TOKENIZER_BATCH):
        batch = tokenizer(
            texts[first : first + TOKENIZER_BATCH],
            truncation=True,
            max_length=max_length,
            padding=False,
            return_token_type_ids=False,
            return_attention_mask=False,
        )
        for encoding in batch.encodings:
            ids.append(np.array(encoding.ids, dtype=np.int32))
            cut.append(sum(len(part.ids) - sum(part.special_tokens_mask) for part in encoding.overflowing))
    starts = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(example) for example in ids], out=starts[1:])
    flat = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32)
    return TokenStore(flat, starts, np.arange(len(ids)), np.array(cut, dtype=np.int64))
