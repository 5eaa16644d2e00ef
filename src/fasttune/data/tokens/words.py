"""Split texts into words for tagging, and find the token that represents each word.

A "word" is what datasets call a token: a word, a punctuation mark or, in scripts without spaces, a character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fasttune.data.formats.text_file import Place
from fasttune.data.problems import Problems, counted
from fasttune.data.tokens.long_text import special_tokens
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import Problem, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_WORD = -1
# How to split a text into words; `preprocessing.word_boundaries` has the same values and "auto".
WHITESPACE, PUNCTUATION, CHARACTERS = "whitespace", "punctuation", "characters"
ROWS_AT_ONCE = 100  # bounds the memory of the tokenizer's results
# Ideographs, kana, full-width forms and CJK punctuation, which are written without spaces.
UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003134f]")


class Sentence(NamedTuple):
    """A text, and the characters [start, end) of each of its words."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.spans]


def words_of(text: str, boundaries: str = PUNCTUATION) -> Sentence:
    """Split a text into words.

    WHITESPACE splits at whitespace only. CHARACTERS makes every character a word, spaces included, because a file with
    one tag per character has tags for spaces too. PUNCTUATION splits like annotators do: at whitespace, around each
    punctuation mark and around each Chinese character. Combining accents and vowel signs, joiners and invisible
    characters belong to the word before them.
    """
    if boundaries == WHITESPACE:
        return Sentence(text, tuple(match.span() for match in re.finditer(r"\S+", text)))
    if boundaries == CHARACTERS:
        return Sentence(text, tuple((start, start + 1) for start in range(len(text))))
    spans: list[tuple[int, int]] = []
    is_open = False  # whether a run of letters and digits continues
    for position, character in enumerate(text):
        if character.isspace():
            continue
        is_combining = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
        is_of_run = _is_of_run(character)
        touches = spans and spans[-1][1] == position
        if touches and (is_combining or (is_open and is_of_run)):
            spans[-1] = (spans[-1][0], position + 1)
        else:
            spans.append((position, position + 1))
        is_open = is_of_run or (is_combining and is_open)
    return Sentence(text, tuple(spans))


def _is_of_run(character: str) -> bool:
    return (character.isalnum() or character == "_") and not UNSPACED.match(character)


def joined(words: Sequence[str]) -> Sentence:
    """Join words into a text, with a space between two words unless both are in a script without spaces."""
    text, spans = "", []
    for word in words:
        if text and not (UNSPACED.match(text[-1]) and UNSPACED.match(word[:1])):
            text += " "
        spans.append((len(text), len(text) + len(word)))
        text += word
    return Sentence(text, tuple(spans))


def find_boundaries(cells: Sequence[Any], tags: Sequence[tuple[str, ...]] | None) -> str:
    """Detect how the words of these rows were split, so that texts to predict are split the same way.

    For texts with tags: at whitespace or into characters, whichever gives one word per tag in more rows. For lists of
    words: PUNCTUATION, unless punctuation is always attached to a word ("Paris."), as `str.split` leaves it.
    """
    texts = [row for row, cell in enumerate(cells) if isinstance(cell, str)]
    if texts and tags is not None:
        at_whitespace = sum(len(cells[row].split()) == len(tags[row]) for row in texts)
        in_characters = sum(len(cells[row]) == len(tags[row]) for row in texts)
        return CHARACTERS if in_characters > at_whitespace else WHITESPACE
    words = {word for cell in cells if isinstance(cell, list) for word in cell if isinstance(word, str)}
    marks = [word for word in words if any(map(_is_punctuation, word))]
    return WHITESPACE if marks and not any(all(map(_is_punctuation, word)) for word in marks) else PUNCTUATION


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def read_sentences(
    cells: Sequence[Any], tags: Sequence[tuple[str, ...]] | None, boundaries: str, where: str, place: Place
) -> list[Sentence]:
    """Read rows that are lists of words, or texts, which are split at `boundaries`.

    DataError lists the rows without words and the rows whose numbers of words and tags differ.
    """
    problems = Problems(where)
    sentences = []
    for row, cell in enumerate(cells):
        number = None if tags is None else len(tags[row])
        if isinstance(cell, str):
            sentence = words_of(cell, boundaries)
        elif isinstance(cell, list) and all(isinstance(word, str) for word in cell):
            sentence = joined(cell)
        else:
            expected = "a list of words, or a text"
            problems.add(Problem(code="E260", where=f"{where} {place(row)}", found=shown(cell), expected=expected))
            continue
        sentences.append(sentence)
        words = len(sentence.spans)
        if not sentence.text.strip():
            problems.add(Problem(code="E260", where=f"{where} {place(row)}", found="the row has no words"))
        elif number is not None and number != words:
            problems.add(
                Problem(
                    code="E261",
                    where=f"{where} {place(row)}",
                    found=f"{counted(words, 'word')} and {counted(number, 'tag')}",
                    expected="one tag per word",
                    hint=_fitting_boundaries(cell, number, boundaries),
                )
            )
    problems.raise_if_any()
    return sentences


def _fitting_boundaries(cell: Any, number: int, tried: str) -> str:
    """Return the setting that would split a text into one word per tag, or an empty string."""
    others = (WHITESPACE, CHARACTERS, PUNCTUATION) if isinstance(cell, str) else ()
    for boundaries in others:
        if boundaries != tried and len(words_of(cell, boundaries).spans) == number:
            return f"preprocessing.word_boundaries={boundaries}"
    return ""


def word_windows(sentences: Sequence[Sentence], tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenStore:
    """Return one example per window of at most `max_length` tokens; neighbouring windows share a quarter of that.

    Token feature `word` (T,): the index within its row of the word that the token represents, or NO_WORD. Only the
    first token of a word represents it, and in only one window: the one where it is farther from the edge.
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
            begin = unclaimed = 0  # the window's first token, and the first that no earlier window represents
            while True:
                stop = min(begin + room, len(ids))
                last = stop if stop == len(ids) else stop - share // 2
                window_words = np.full(stop - begin, NO_WORD, dtype=np.int32)
                window_words[unclaimed - begin : last - begin] = words[unclaimed:last]
                parts["input_ids"].append(np.array([*before, *ids[begin:stop], *behind], dtype=np.int32))
                parts["word"].append(np.pad(window_words, (len(before), len(behind)), constant_values=NO_WORD))
                rows.append(row)
                if stop == len(ids):
                    break
                begin, unclaimed = begin + room - share, last
    lengths = [len(part) for part in parts["input_ids"]]
    return TokenStore(
        {"input_ids": np.concatenate(parts["input_ids"])},
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.array(rows, dtype=np.int64),
        num_tokens_cut=np.zeros(len(lengths), dtype=np.int64),
        token_features={"word": np.concatenate(parts["word"])},
    )


def _pieces(sentence: Sentence) -> list[str]:
    """Return the words, each with the space before it in the text, because some tokenizers then make other tokens."""
    before = [start > 0 and sentence.text[start - 1].isspace() for start, _ in sentence.spans]
    return [f" {word}" if blank else word for word, blank in zip(sentence.words, before, strict=True)]


def _first_tokens(word_ids: Sequence[int | None]) -> np.ndarray:
    """Return (tokens,) int32: the word that a token is the first one of, NO_WORD for other tokens."""
    words = np.array([NO_WORD if word is None else word for word in word_ids], dtype=np.int32)
    continues = words[1:] == words[:-1]
    words[1:][continues] = NO_WORD
    return words
