"""Words of texts, and the token and window that represent each."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny import WORDS, tiny_tokenizer

from fasttune.data.tokens.words import (
    CHARACTERS,
    NO_WORD,
    PUNCTUATION,
    WHITESPACE,
    find_boundaries,
    joined,
    read_sentences,
    word_windows,
    words_of,
)
from fasttune.errors import DataError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann came to Paris.", ["Ann", "came", "to", "Paris", "."]),
        ("don't (stop)", ["don", "'", "t", "(", "stop", ")"]),
        ("  3.5 km ", ["3", ".", "5", "km"]),
        ("我爱北京, OK", ["我", "爱", "北", "京", ",", "OK"]),
        ("東京タワー2号", ["東", "京", "タ", "ワ", "ー", "2", "号"]),
        ("naïve_name", ["naïve_name"]),
        ("Übergröße", ["Übergröße"]),
        ("nai\u0308ve cafe\u0301s", ["nai\u0308ve", "cafe\u0301s"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("soft\u00adhyphen", ["soft\u00adhyphen"]),
        ("か\u3099く", ["か\u3099", "く"]),
        ("😀👍🏽!", ["😀", "👍", "🏽", "!"]),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    sentence = words_of(text)
    assert sentence.words == words and sentence.text == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Ann", "came", "."], "Ann came ."),
        (["我", "爱", "北京", "OK", "了"], "我爱北京 OK 了"),
        (["U.S."], "U.S."),
    ],
)
def test_joined_words_keep_their_places(words: list[str], text: str) -> None:
    sentence = joined(words)
    assert sentence.text == text and sentence.words == words


def read(cell: object, *tags: str):
    return read_all([cell], [tags] if tags else None)[0]


def read_all(cells: list[object], tags: list[tuple[str, ...]] | None = None):
    return read_sentences(cells, tags, find_boundaries(cells, tags), "rows.jsonl", lambda row: f"row {row + 1}")


def test_texts_are_split_to_fit_their_tags() -> None:
    assert read("Ann came .", "B-PER", "O", "O").words == ["Ann", "came", "."]
    assert read("我爱她", "O", "O", "B-PER").words == ["我", "爱", "她"]
    assert read("U.S. wins", "B-LOC", "O").words == ["U.S.", "wins"]
    assert read("U.S. wins").words == ["U", ".", "S", ".", "wins"]
    assert read(["U.S.", "wins"]).words == ["U.S.", "wins"]


@pytest.mark.parametrize(
    ("cells", "tags", "boundaries"),
    [
        (["U.S. wins", "Ann came ."], [("B-LOC", "O"), ("B-PER", "O", "O")], WHITESPACE),
        (["我 爱她", "她"], [("O", "O", "O", "B-PER"), ("B-PER",)], CHARACTERS),
        (["U.S. wins"], None, PUNCTUATION),
        ([["U.S.", "wins", "."], ["Ann"]], None, PUNCTUATION),
        ([["Ann", "came,", "too."], ["Ann"]], None, WHITESPACE),
        ([["Ann", "came"]], None, PUNCTUATION),
    ],
)
def test_texts_to_predict_are_split_as_these_rows_are(
    cells: list[object], tags: list[tuple[str, ...]] | None, boundaries: str
) -> None:
    assert find_boundaries(cells, tags) == boundaries


def test_all_texts_of_a_file_are_split_alike() -> None:
    """Row 3 would fit if it alone were split into characters; then its words would not be those that are predicted."""
    cells, tags = ["Ann came", "Bo left", "a b"], [("O", "O"), ("O", "O"), ("O", "O", "O")]
    with pytest.raises(DataError) as caught:
        read_all(list(cells), tags)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where, problem.found) == ("E261", "rows.jsonl row 3", "2 words and 3 tags")
    assert problem.hint == "preprocessing.word_boundaries=characters"


@pytest.mark.parametrize(
    ("cell", "tags", "code", "found"),
    [
        (["Ann", "came"], ("O",), "E261", "2 words and 1 tag"),
        ("Ann came", ("O", "O", "O"), "E261", "2 words and 3 tags"),
        ([], ("O",), "E260", "the row has no words"),
        (" ", (), "E260", "the row has no words"),
        (7, (), "E260", "7"),
        (["Ann", 7], (), "E260", "['Ann', 7]"),
        (None, (), "E260", "None"),
    ],
)
def test_rows_that_do_not_fit(cell: object, tags: tuple[str, ...], code: str, found: str) -> None:
    with pytest.raises(DataError) as caught:
        read(cell, *tags)
    (problem,) = caught.value.problems
    assert (problem.code, problem.found, problem.where) == (code, found, "rows.jsonl row 1")


@cache
def byte_level() -> transformers.PreTrainedTokenizerBase:
    """A tokenizer as RoBERTa has it: a word with a blank before it is another token than without."""
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(["good food bad room staff was the not very never again"] * 3, 300, show_progress=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>", unk_token="<unk>"
    )


@cache
def word_piece() -> transformers.PreTrainedTokenizerBase:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ed", "un"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=64)


WORD = st.sampled_from(
    [*WORDS, "foods", "rooms", "slowed", "foodsed", "unknowable", "\u200b", "\u200bfood", " good", "\u00adbad"]
)


@given(st.lists(st.lists(WORD, min_size=1, max_size=30), min_size=1, max_size=3), st.integers(8, 24), st.booleans())
def test_every_word_has_one_token_in_one_window(rows: list[list[str]], max_length: int, bytes_too: bool) -> None:
    tokenizer = byte_level() if bytes_too else word_piece()
    store = word_windows([joined(row) for row in rows], tokenizer, max_length)
    assert store.lengths.max() <= max_length
    words = store.token_features["word"]
    for row, expected in enumerate(rows):
        windows = np.flatnonzero(store.rows == row)
        assert windows.tolist() == list(range(windows[0], windows[-1] + 1))
        bounds = [slice(store.starts[window], store.starts[window + 1]) for window in windows]
        found = [int(word) for bound in bounds for word in words[bound] if word != NO_WORD]
        empty = [place for place, word in enumerate(expected) if word == "\u200b" and not bytes_too]
        assert found == [place for place in range(len(expected)) if place not in empty]
        for bound in bounds:
            for token in np.flatnonzero(words[bound] != NO_WORD):
                word = expected[words[bound][token]]
                ids = store.inputs["input_ids"][bound]
                piece = tokenizer.convert_ids_to_tokens([int(ids[token])])[0].lstrip("Ġ")
                assert piece == "[UNK]" or word.strip("\u200b\u00ad ").startswith(piece) or not piece.isascii()


def test_words_that_two_windows_hold_stand_where_they_are_farther_from_the_edge() -> None:
    store = word_windows([joined(["good"] * 30)], tiny_tokenizer(), 18)  # 16 words a window, 4 of them shared
    words = [
        store.token_features["word"][begin:end] for begin, end in zip(store.starts, store.starts[1:], strict=False)
    ]
    assert [part[part != NO_WORD].tolist() for part in words] == [
        list(range(14)),
        list(range(14, 26)),
        list(range(26, 30)),
    ]


def test_blanks_before_words_reach_the_tokenizer() -> None:
    tokenizer = byte_level()
    store = word_windows([joined(["good", "food"])], tokenizer, 20)
    assert tokenizer.convert_ids_to_tokens(store.inputs["input_ids"].tolist()) == ["good", "Ġfood"]


def test_a_tokenizer_that_cuts_on_the_left_loses_no_word() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = "left"
    words = word_windows([joined(["good"] * 30)], tokenizer, 18).token_features["word"]
    assert sorted(words[words != NO_WORD].tolist()) == list(range(30))
