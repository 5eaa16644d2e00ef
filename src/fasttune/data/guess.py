"""Whether a column looks like texts or like labels, judged by its cells, if its name does not tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from fasttune.data.labels import MIN_CLASS_LIMIT, is_number

# Days, months and years: 2026-05-01, 01.05.2026, 5/1/26, 2026.
DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ].*)?|(19|20)\d\d(-\d\d)?")
Look = Literal["text", "label"]
ROWS_LOOKED_AT = 1000
WORDS_OF_TEXT = 3  # on average; names and categories have fewer
CHARACTERS_OF_TEXT = 8  # on average, in scripts without spaces
TEXTS_DIFFER = 0.5  # of the cells of a text column are different
CHARACTERS_OF_LABEL = 40
ROWS_OF_LABEL = 3  # on average


def is_unspaced(character: str) -> bool:
    """Whether a character is of a script without spaces between words, such as Chinese or Japanese."""
    return character > "\u2e7f"


def look_of(cells: Sequence[Any]) -> tuple[Look | None, str]:
    """What the cells look like, and the reason in words; None if they look like neither."""
    texts = [str(cell).strip() for cell in cells if cell is not None]
    texts = [text for text in texts if text]
    if not texts:
        return None, ""
    different = set(texts)
    numeric = sum(map(is_number, texts)) / len(texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    characters = sum(map(len, texts)) / len(texts)
    without_spaces = sum(any(map(is_unspaced, text)) for text in texts) / len(texts)
    reads = words >= WORDS_OF_TEXT or (without_spaces > 0.5 and characters >= CHARACTERS_OF_TEXT)
    is_text = all(isinstance(cell, str) for cell in cells if cell is not None)
    if is_text and numeric < 0.5 and reads and len(different) >= TEXTS_DIFFER * len(texts):
        return "text", f"{characters:.0f} characters on average, {len(different):,} of {len(texts):,} values distinct"
    measured = numeric == 1 and any(float(text) % 1 for text in different)
    if all(map(DATE.fullmatch, different)):
        return None, ""
    few = 2 <= len(different) <= max(MIN_CLASS_LIMIT, len(texts) / ROWS_OF_LABEL)
    if few and not measured and characters <= CHARACTERS_OF_LABEL and len(texts) > len(different):
        return "label", f"{len(different):,} distinct values in {len(texts):,} rows"
    return None, ""
