"""What a column looks like by its cells, where its name does not tell: texts to read, or labels to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fasttune.data.labels import ALWAYS_FINE, is_number

Look = Literal["text", "label"]
ROWS_LOOKED_AT = 1000
WORDS_OF_TEXT = 3  # on average; names and categories have fewer
CHARACTERS_OF_TEXT = 8  # on average, of writing without blanks
TEXTS_DIFFER = 0.5  # of the cells of a text column are different
CHARACTERS_OF_LABEL = 40
ROWS_OF_LABEL = 3  # on average


def look_of(cells: Sequence[Any]) -> tuple[Look | None, str]:
    """What the cells look like, and why, in words."""
    texts = [str(cell).strip() for cell in cells if cell is not None]
    texts = [text for text in texts if text]
    if not texts:
        return None, ""
    different = set(texts)
    numeric = sum(map(is_number, texts)) / len(texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    characters = sum(map(len, texts)) / len(texts)
    unspaced = sum(any(character > "\u2e7f" for character in text) for text in texts) / len(texts)
    reads = words >= WORDS_OF_TEXT or (unspaced > 0.5 and characters >= CHARACTERS_OF_TEXT)
    is_text = all(isinstance(cell, str) for cell in cells if cell is not None)
    if is_text and numeric < 0.5 and reads and len(different) >= TEXTS_DIFFER * len(texts):
        return "text", f"{characters:.0f} characters on average, {len(different):,} of {len(texts):,} different"
    measured = numeric == 1 and any(float(text) % 1 for text in different)
    few = 2 <= len(different) <= max(ALWAYS_FINE, len(texts) / ROWS_OF_LABEL)
    if few and not measured and characters <= CHARACTERS_OF_LABEL and len(texts) > len(different):
        return "label", f"{len(different):,} different values in {len(texts):,} rows"
    return None, ""
