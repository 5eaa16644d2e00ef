"""Measurable properties of rows, such as their length or their share of digits, that a weak slice may depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fasttune.data.duplicates import WORDS
from fasttune.data.holdout import GROUP
from fasttune.data.rows import Rows
from fasttune.data.tokens.store import TokenStore

RARE = 2  # a word in fewer training rows is rare
MOST_GROUPS = 20
OF_GROUP = "group = "  # begins the name of a property that is 1 for the rows of one group
LAST_LATIN = "\u024f"
Properties = dict[str, np.ndarray]  # name -> (N,) float64


def is_group(name: str) -> bool:
    """Whether a property says only to which group of `data.columns.group` a row belongs."""
    return name.startswith(OF_GROUP)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; a Chinese or Japanese character is a word."""
    return WORDS.findall(text.casefold())


def document_frequencies(texts: Iterable[str]) -> Counter[str]:
    """In how many of the texts each word occurs."""
    return Counter(word for text in texts for word in {*words_of(text)})


def of_texts(texts: Sequence[str], known: Counter[str]) -> Properties:
    """Properties of N texts. `known`: the document frequencies of the training texts."""
    names = ("words", "digits", "capitals", "punctuation", "rare words", "letters beyond Latin")
    table = np.zeros((len(texts), len(names)))
    for row, text in enumerate(texts):
        words = words_of(text)
        letters = [character for character in text if character.isalpha()]
        num_marks = sum(not character.isalnum() and not character.isspace() for character in text)
        table[row] = (
            len(words),
            _share(sum(map(str.isdigit, text)), len(text)),
            _share(sum(map(str.isupper, letters)), len(letters)),
            _share(num_marks, len(text)),
            _share(sum(known[word] < RARE for word in words), len(words)),
            _share(sum(letter > LAST_LATIN for letter in letters), len(letters)),
        )
    return dict(zip(names, table.T, strict=True))


def of_rows(rows: Rows) -> Properties:
    """Properties of pairs and questions, and the value of the group column if it has few."""
    values = rows.values
    if GROUP in values:
        counts = Counter(map(str, values[GROUP]))
        if len(counts) <= MOST_GROUPS:
            groups = np.array(list(map(str, values[GROUP])))
            return {f"{OF_GROUP}{name}": (groups == name).astype(float) for name in counts} | _of_roles(rows)
    return _of_roles(rows)


def _of_roles(rows: Rows) -> Properties:
    values = rows.values
    if "text_pair" in values:
        pairs = [({*words_of(a)}, {*words_of(b)}) for a, b in zip(values["text"], values["text_pair"], strict=True)]
        shared = [_share(len(a & b), len(a | b)) for a, b in pairs]
        return {"words that both texts share": np.array(shared)}
    if "question" in values:
        return {"words of the question": np.array([float(len(words_of(text))) for text in values["question"]])}
    return {}


def of_tokens(store: TokenStore, num_rows: int, unknown: int | None) -> Properties:
    """Properties of the tokens of each row."""
    examples = store.rows
    found: Properties = {"tokens cut off": np.bincount(examples, weights=store.num_tokens_cut, minlength=num_rows)}
    if unknown is not None:
        is_unknown = np.concatenate([[0], np.cumsum(store.inputs["input_ids"] == unknown)])
        counts = np.diff(is_unknown[store.starts])
        lengths = np.bincount(examples, weights=store.lengths, minlength=num_rows)
        found["unknown tokens"] = np.bincount(examples, weights=counts, minlength=num_rows) / np.maximum(lengths, 1)
    return found


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def as_matrix(properties: Properties) -> tuple[list[str], np.ndarray]:
    """The names of the properties that vary, and (N, P) their values."""
    names = [name for name, values in properties.items() if np.ptp(values) > 0]
    columns: Any = [properties[name] for name in names]
    return names, np.stack(columns, axis=1) if names else np.zeros((0, 0))
