"""Texts of users as they may be printed. Data is never parsed as markup."""

from __future__ import annotations

import unicodedata

from rich.console import Console


def printable(text: str) -> str:
    """Control characters as escapes: a text must not move the cursor, ring the bell or change colours."""
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cs") else character for character in text
    )


def stdout() -> Console:
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
