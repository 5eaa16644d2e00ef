"""Find e-mail addresses and telephone numbers in texts. Other personal data, such as names, is not detected."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Starts at a word boundary, with the length limits of RFC 5321, so that a search is linear in the length of the text.
E_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,}")
# Forms that hardly anything else has: international (E.164: a plus and 8 to 15 digits), North American, national with a
# leading zero and a mark after the area code, and Chinese mobile numbers.
TELEPHONE = re.compile(
    r"(?<![\w.,+-])("
    r"\+\d([ ./()-]{0,2}\d){7,14}"
    r"|\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}"
    r"|\(?0\d{1,4}\)?[ /-]\d{2,4}([ -]?\d{2,4}){1,3}"
    r"|1[3-9]\d{9}"
    r")(?![\w-])"
)
MIN_DIGITS = 9  # a date has eight


def rows_with(texts: Iterable[str]) -> dict[str, list[int]]:
    """The rows that contain each kind of personal data, by kind."""
    found: dict[str, list[int]] = {"e-mail addresses": [], "telephone numbers": []}
    for row, text in enumerate(texts):
        if "@" in text and E_MAIL.search(text):
            found["e-mail addresses"].append(row)
        if any(_is_telephone(match.group()) for match in TELEPHONE.finditer(text)):
            found["telephone numbers"].append(row)
    return found


def _is_telephone(text: str) -> bool:
    return text.startswith("+") or sum(map(str.isdigit, text)) >= MIN_DIGITS
