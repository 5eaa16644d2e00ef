"""Hints at personal data in texts: e-mail addresses and telephone numbers. Names and places are not looked for."""

from __future__ import annotations

import re
from collections.abc import Iterable

E_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[^\W\d_]{2,}")
# Forms that little else has: international (E.164: a plus and 8 to 15 digits), North American, national with a leading
# zero and a mark after the area, Chinese mobile numbers.
TELEPHONE = re.compile(
    r"(?<![\w.,+-])("
    r"\+\d([ ./()-]{0,2}\d){7,14}"
    r"|\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}"
    r"|\(?0\d{1,4}\)?[ /-]\d{2,4}([ -]?\d{2,4}){1,3}"
    r"|1[3-9]\d{9}"
    r")(?![\w-])"
)
KINDS = (("e-mail addresses", "@", E_MAIL), ("telephone numbers", "", TELEPHONE))


def rows_with(texts: Iterable[str]) -> dict[str, list[int]]:
    """Kind -> the rows that hold one."""
    found: dict[str, list[int]] = {kind: [] for kind, _, _ in KINDS}
    for row, text in enumerate(texts):
        for kind, mark, pattern in KINDS:
            if mark in text and pattern.search(text):
                found[kind].append(row)
    return found
