"""Whether a tokenizer knows the language of texts: into how many pieces it splits their words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"\w+|[^\w\s]")
WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003134f]")
TEXTS_LOOKED_AT, CHARACTERS_LOOKED_AT, MIN_WORDS = 300, 1000, 100
# English reviews, tweets and encyclopaedia articles have 1.05 to 1.06 pieces per word with an English WordPiece
# vocabulary of 30,000; French has 1.5, Spanish 1.7, German 1.9, Dutch 2.1, Russian 4.8.
MAX_PIECES = 1.4
MULTILINGUAL = 100_000  # entries: such vocabularies split words of some languages they know


def pieces_per_word(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> float | None:
    """The average number of tokens per word or punctuation mark in the first texts.

    None if there are too few words, if they are in a script without spaces, or if the vocabulary is multilingual.
    """
    if len(tokenizer) > MULTILINGUAL:
        return None
    some = [text[:CHARACTERS_LOOKED_AT] for text in islice(texts, TEXTS_LOOKED_AT)]
    num_words = sum(len(WORD.findall(text)) for text in some)
    unspaced = sum(len(WITHOUT_SPACES.findall(text)) for text in some)
    if num_words < MIN_WORDS or 10 * unspaced > num_words:
        return None
    encoded = tokenizer(some, add_special_tokens=False, truncation=False, padding=False, verbose=False)
    return sum(map(len, encoded["input_ids"])) / num_words


def split_into_pieces(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """A sentence if the tokenizer splits the words of these texts into pieces, else ""."""
    pieces = pieces_per_word(texts, tokenizer)
    if pieces is None or pieces <= MAX_PIECES:
        return ""
    return (
        f"the tokenizer splits a word into {pieces:.1f} tokens on average, 1.1 in its own language: the model may not "
        "know the language of these texts"
    )
