"""Tokenise texts longer than a model reads without losing their end: as head and tail, or as windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fasttune.data.tokens.store import TOKENIZER_BATCH, TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD_TAIL, WINDOWS = "head_tail", "windows"
# The share of the head in a text kept as head and tail: Sun et al. 2019 (How to fine-tune BERT for text classification)
# found the first 128 and last 382 of 510 tokens best on IMDB.
HEAD_SHARE = 128 / 510


def tokenize_long(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, how: str) -> TokenStore:
    """Return one example per text; each sequence has at most `max_length` tokens, special tokens included.

    HEAD_TAIL: one sequence, without the middle of a long text, whose tokens are counted as cut. WINDOWS: consecutive
    sequences that cover the whole text; the last one may be shorter.
    """
    before, behind = special_tokens(tokenizer)
    room = max_length - len(before) - len(behind)
    parts: list[np.ndarray] = []
    examples, sequences, num_cut = [0], [0], []
    for first in range(0, len(texts), TOKENIZER_BATCH):
        chosen = list(texts[first : first + TOKENIZER_BATCH])
        for ids in tokenizer(chosen, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]:
            head, tail = int(room * HEAD_SHARE), room - int(room * HEAD_SHARE)
            if how == HEAD_TAIL:
                pieces = [ids if len(ids) <= room else ids[:head] + ids[len(ids) - tail :]]
            else:
                pieces = [ids[begin : begin + room] for begin in range(0, max(len(ids), 1), room)]
            for piece in pieces:
                parts.append(np.array([*before, *piece, *behind], dtype=np.int32))
                sequences.append(sequences[-1] + len(parts[-1]))
            examples.append(sequences[-1])
            num_cut.append(len(ids) - sum(map(len, pieces)))
    return TokenStore(
        {"input_ids": np.concatenate(parts)},
        starts=np.array(examples, dtype=np.int64),
        rows=np.arange(len(num_cut)),
        num_tokens_cut=np.array(num_cut, dtype=np.int64),
        sequences=np.array(sequences, dtype=np.int64) if len(sequences) > len(examples) else None,
    )


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a single text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    begin = next(index for index in range(len(whole)) if whole[index : index + len(bare)] == bare)
    return whole[:begin], whole[begin + len(bare) :]
