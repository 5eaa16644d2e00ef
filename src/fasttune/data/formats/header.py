"""Tell a header from title lines above it and from rows of data without one.

`names` are the cells of the first row, `rows` some of the rows below it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from fasttune.data.column_names import LABEL_NAMES, PAIR_NAMES, TEXT_NAMES, plain_name
from fasttune.data.guess import is_unspaced
from fasttune.data.labels import is_number
from fasttune.data.tokens.tags import OUTSIDE, form_of
from fasttune.errors import shown

MAX_TITLE_LINES = 10
WORDS_OF_TEXT, CHARACTERS_OF_TEXT = 4, 8  # more than names of columns have; characters of scripts without spaces

# A first row that contains any of these names is always taken for a header.
USUAL_NAMES = frozenset((*TEXT_NAMES, *PAIR_NAMES, *LABEL_NAMES)) | frozenset(
    re.findall(
        r"\w+",
        """answer answers body category class comment content context document headline hypothesis id idx index label
        labels message name premise quality query question rating review score sentence sentence1 sentence2 sentiment
        star stars summary tag tags target text text1 text2 title tweet""",
    )
)


def is_usual_name(name: str) -> bool:
    return plain_name(name) in USUAL_NAMES


def num_title_lines(records: Sequence[Sequence[str]]) -> int:
    """The number of records above the header that are a title, as spreadsheets have them.

    Above a header of common names, a title has an empty cell or fewer cells; above another one of at least three
    columns, it fills only one cell. `records`: the first ones of the file that are not empty.
    """
    width = Counter(map(len, records)).most_common(1)[0][0] if records else 0
    if width < 2 or len(records) < 3:
        return 0
    least = sum(map(is_usual_name, records[0]))  # a first line with a common name is the header, unless one has more
    filled = [sum(bool(cell.strip()) for cell in record) for record in records[: MAX_TITLE_LINES + 1]]
    for number, record in enumerate(records[: MAX_TITLE_LINES + 1]):
        if len(record) == filled[number] == width:
            if sum(map(is_usual_name, record)) > least:
                return number
            return number if not least and width > 2 and max(filled[:number], default=0) == 1 else 0
    return 0


def surely_data(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Why the first row can only be one of the rows; empty if it may be the header."""
    tags = [row[-1] for row in rows]
    if OUTSIDE in tags and form_of([*tags, names[-1]]) is not None:
        return "it ends with a tag"
    return _evidence(names, rows, 1) if _has_a_text(names) else ""


def _has_a_text(names: Sequence[str]) -> bool:
    """Whether a first row holds a text, which no column has as its name. A label alone may be a column's name."""
    return any(
        len(name.split()) >= WORDS_OF_TEXT or sum(map(is_unspaced, name)) >= CHARACTERS_OF_TEXT for name in names
    )


def looks_like_data(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return what a header would not contain but the first row does, or an empty string."""
    if _has_a_text(names):
        return _evidence(names, rows, 1) or "it holds a whole text"
    return "" if any(map(is_usual_name, names)) else _evidence(names, rows, 2)


def _evidence(names: Sequence[str], rows: Sequence[Sequence[str]], least: int) -> str:
    """A cell of the first row that occurs at least so often further down, or a number above numbers."""
    for position, name in enumerate(names):
        values = [row[position] for row in rows]
        if name.strip() and values.count(name) >= least:
            return f"{shown(name)} occurs again further down"
        if values and is_number(name) and all(map(is_number, values)):
            return f"{shown(name)} is a number, like the values below it"
    return ""
