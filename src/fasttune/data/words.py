"""Texts as words, for a tag each: what a word is, and which tokens of which window stand for it.

A word is what the data call a token: a word, a punctuation mark or, where words are not written apart, a character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fasttune.data.text_file import Problems
from fasttune.data.token_store import TokenStore
from fasttune.errors import Problem, shown

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

NO_WORD = -1
ROWS_AT_ONCE = 100  # bounds the memory that the tokenizer's own results take
UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f\U00020000-\U0003134f"
# A character of a script without spaces, a run of letters and digits, or any other single mark.
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]|_+")
IS_UNSPACED = re.compile(rf"[{UNSPACED}]")

Place = Callable[[int], str]


class Sentence(NamedTuple):
    """A text, and the characters [start, end) of each of its words."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.spans]


def words_of(text: str) -> Sentence:
    """A plain text, cut where people who tag texts cut it: at spaces, round punctuation, round Chinese characters."""
    return Sentence(text, tuple((found.start(), found.end()) for found in WORD.finditer(text)))


def joined(words: Sequence[str]) -> Sentence:
    """Words as a text: a blank between two of them, unless both are written without."""
    text, spans = "", []
    for word in words:
        if text and not (IS_UNSPACED.match(text[-1]) and IS_UNSPACED.match(word[:1])):
            text += " "
        spans.append((len(text), len(text) + len(word)))
        text += word
    return Sentence(text, tuple(spans))


def read_sentences(
    cells: Sequence[Any], tags: Sequence[tuple[str, ...]] | None, where: str, place: Place
) -> list[Sentence]:
    """Rows of words: lists of them, or texts; DataError for rows without words or with another number of tags.

    With tags a text is cut at its blanks or, where that fits their number, into characters; without, by `words_of`.
    """
    problems = Problems(where)
    found = []
    for row, cell in enumerate(cells):
        number = None if tags is None else len(tags[row])
        if isinstance(cell, str):
            sentence = _cut(cell, number)
        elif isinstance(cell, list) and all(isinstance(word, str) for word in cell):
            sentence = joined(cell)
        else:
            expected = "a list of words, or a text"
            problems.add(Problem(code="E245", where=f"{where} {place(row)}", found=shown(cell), expected=expected))
            continue
        found.append(sentence)
        words = len(sentence.spans)
        if not sentence.text.strip():
            problems.add(Problem(code="E245", where=f"{where} {place(row)}", found="no words", expected="one or more"))
        elif number is not None and number != words:
            problems.add(
                Problem(
                    code="E246",
                    where=f"{where} {place(row)}",
                    found=f"{words:,} words and {number:,} tags",
                    expected="a tag for each word",
                )
            )
    problems.raise_if_any()
    return found


def _cut(text: str, number: int | None) -> Sentence:
    if number is None:
        return words_of(text)
    at_blanks = tuple((found.start(), found.end()) for found in re.finditer(r"\S+", text))
    if len(at_blanks) != number and len(text) == number:
        return Sentence(text, tuple((start, start + 1) for start in range(number)))
    return Sentence(text, at_blanks)


def word_windows(sentences: Sequence[Sentence], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenStore:
    """One example for each window of at most `max_length` tokens; neighbouring windows share a quarter of that.

    Token feature `word` (T,): the place in its row of the word that this token stands for, NO_WORD for the others. Each
    word is stood for by its first token in just one window: the one where it is farther from the edge.
    """
    has_types = "token_type_ids" in tokenizer.model_input_names
    share = max_length // 4
    ids, types, words, lengths, rows = [], [], [], [], []
    for first in range(0, len(sentences), ROWS_AT_ONCE):
        pieces = [_pieces(sentence) for sentence in sentences[first : first + ROWS_AT_ONCE]]
        batch = tokenizer(
            pieces,
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
            stride=share,
            return_overflowing_tokens=True,
            padding=False,
        )
        own = batch["overflow_to_sample_mapping"]
        begin = 0
        for window, (row, encoding) in enumerate(zip(own, batch.encodings, strict=True)):
            is_last = window + 1 == len(own) or own[window + 1] != row
            if window and own[window - 1] != row:
                begin = 0
            last = len(encoding) if is_last else len(encoding) - share // 2
            found = _stands_for(encoding, pieces[row], begin, last)
            begin = max(begin, int(found.max(initial=NO_WORD)) + 1)
            words.append(found)
            ids.append(np.array(encoding.ids, dtype=np.int32))
            types.append(np.array(encoding.type_ids, dtype=np.int8))
            lengths.append(len(encoding))
            rows.append(first + row)
    inputs = {"input_ids": np.concatenate(ids)}
    if has_types and any(part.any() for part in types):
        inputs["token_type_ids"] = np.concatenate(types)
    return TokenStore(
        inputs,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.array(rows, dtype=np.int64),
        num_tokens_cut=np.zeros(len(lengths), dtype=np.int64),
        token_features={"word": np.concatenate(words)},
    )


def _pieces(sentence: Sentence) -> list[str]:
    """The words, each with a blank before it where one stands in the text: some tokenizers make other tokens then."""
    before = [start > 0 and sentence.text[start - 1].isspace() for start, _ in sentence.spans]
    return [f" {word}" if blank else word for word, blank in zip(sentence.words, before, strict=True)]


def _stands_for(encoding: Encoding, pieces: Sequence[str], begin: int, last: int) -> np.ndarray:
    """(tokens,) int32: the word, from `begin` on, of which this token is the first; none from token `last` on."""
    found = np.full(len(encoding), NO_WORD, dtype=np.int32)
    next_word = begin
    for token, (word, (start, _)) in enumerate(zip(encoding.word_ids[:last], encoding.offsets, strict=False)):
        # A window may begin inside a word; offsets count from the start of the piece, blank included.
        if word is not None and word >= next_word and start <= pieces[word].startswith(" "):
            found[token] = word
            next_word = word + 1
    return found
