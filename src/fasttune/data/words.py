"""Texts as words, for a tag each: what a word is, and which tokens of which window stand for it.

A word is what the data call a token: a word, a punctuation mark or, where words are not written apart, a character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fasttune.data.long_text import special_tokens
from fasttune.data.text_file import Place, Problems
from fasttune.data.token_store import TokenStore
from fasttune.errors import Problem, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_WORD = -1
ROWS_AT_ONCE = 100  # bounds the memory that the tokenizer's own results take
# Ideographs, kana, full-width forms and CJK punctuation: written without blanks.
UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003134f]")


class Sentence(NamedTuple):
    """A text, and the characters [start, end) of each of its words."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.spans]


def words_of(text: str) -> Sentence:
    """A plain text, cut where people who tag texts cut it: at blanks, round punctuation, round Chinese characters.

    Accents and vowel signs of their own code points, joiners and invisible characters belong to what stands before.
    """
    spans: list[tuple[int, int]] = []
    is_open = False  # whether a run of letters and digits goes on
    for place, character in enumerate(text):
        if character.isspace():
            continue
        belongs, is_of_run = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"), _is_of_run(character)
        touches = spans and spans[-1][1] == place
        if touches and (belongs or (is_open and is_of_run)):
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
        is_open = is_of_run or (belongs and is_open)
    return Sentence(text, tuple(spans))


def _is_of_run(character: str) -> bool:
    return (character.isalnum() or character == "_") and not UNSPACED.match(character)


def joined(words: Sequence[str]) -> Sentence:
    """Words as a text: a blank between two of them, unless both are written without."""
    text, spans = "", []
    for word in words:
        if text and not (UNSPACED.match(text[-1]) and UNSPACED.match(word[:1])):
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
            problems.add(Problem(code="E260", where=f"{where} {place(row)}", found=shown(cell), expected=expected))
            continue
        found.append(sentence)
        words = len(sentence.spans)
        if not sentence.text.strip():
            problems.add(Problem(code="E260", where=f"{where} {place(row)}", found="no words", expected="one or more"))
        elif number is not None and number != words:
            problems.add(
                Problem(
                    code="E261",
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
    before, behind = special_tokens(tokenizer)
    room = max_length - len(before) - len(behind)
    share = min(max_length // 4, room - 1)
    parts: dict[str, list[np.ndarray]] = {"input_ids": [], "word": []}
    rows = []
    for first in range(0, len(sentences), ROWS_AT_ONCE):
        pieces = [_pieces(sentence) for sentence in sentences[first : first + ROWS_AT_ONCE]]
        batch = tokenizer(
            pieces, is_split_into_words=True, add_special_tokens=False, truncation=False, padding=False, verbose=False
        )
        for row, encoding in enumerate(batch.encodings, start=first):
            ids, words = np.array(encoding.ids, dtype=np.int32), _first_tokens(encoding.word_ids)
            begin = owned = 0  # the window's first token, and the first that no window before it stands for
            while True:
                stop = min(begin + room, len(ids))
                last = stop if stop == len(ids) else stop - share // 2
                own = np.full(stop - begin, NO_WORD, dtype=np.int32)
                own[owned - begin : last - begin] = words[owned:last]
                parts["input_ids"].append(np.array([*before, *ids[begin:stop], *behind], dtype=np.int32))
                parts["word"].append(np.pad(own, (len(before), len(behind)), constant_values=NO_WORD))
                rows.append(row)
                if stop == len(ids):
                    break
                begin, owned = begin + room - share, last
    lengths = [len(part) for part in parts["input_ids"]]
    return TokenStore(
        {"input_ids": np.concatenate(parts["input_ids"])},
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.array(rows, dtype=np.int64),
        num_tokens_cut=np.zeros(len(lengths), dtype=np.int64),
        token_features={"word": np.concatenate(parts["word"])},
    )


def _pieces(sentence: Sentence) -> list[str]:
    """The words, each with a blank before it where one stands in the text: some tokenizers make other tokens then."""
    before = [start > 0 and sentence.text[start - 1].isspace() for start, _ in sentence.spans]
    return [f" {word}" if blank else word for word, blank in zip(sentence.words, before, strict=True)]


def _first_tokens(word_ids: Sequence[int | None]) -> np.ndarray:
    """(tokens,) int32: the word where a token is the first one of it, NO_WORD elsewhere."""
    found = np.array([NO_WORD if word is None else word for word in word_ids], dtype=np.int32)
    goes_on = found[1:] == found[:-1]
    found[1:][goes_on] = NO_WORD
    return found
