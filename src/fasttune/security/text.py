"""Strangers' text before it is shown: characters that act, hide or reorder become escapes.

Whatever is printed passes `write_line`, `security.terminal` or `json_text`; tests/test_architecture.py walks the code
for other ways to print.
"""

from __future__ import annotations

import html
import json
import re
import sys
import unicodedata
from typing import Any, TextIO

# Cc: control characters, which move the cursor or begin an escape sequence. Cf: bidirectional overrides, zero width
# characters and tags, which hide or reorder. Cs: lone surrogates. Zl, Zp: line and paragraph separators.
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
JOINERS = ("\u200c", "\u200d")  # part of the spelling of Persian and Indian languages, and of many emoji
MAY_HIDE = re.compile(r"[^\x20-\x7e]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")  # OWASP: what makes a spreadsheet compute a cell
MARKDOWN = re.compile(r"([\\`*_\[\]|#<>~])")


def printable(text: str, keep: str = "") -> str:
    """The text with hidden characters as escapes (`\\x1b`, `\\u202e`); those in `keep` stay."""
    return MAY_HIDE.sub(lambda found: _shown(found, keep), text)


def _shown(found: re.Match[str], keep: str) -> str:
    character = found.group()
    if character in keep or unicodedata.category(character) not in HIDDEN:
        return character
    if character in JOINERS and found.start() and unicodedata.category(found.string[found.start() - 1])[0] in "LMS":
        before = found.string[found.start() - 1]
        if not before.isascii():
            return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def write_line(text: str, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print on stdout or `file`; our own line breaks and tabs stay."""
    print(printable(text, keep="\n\t"), file=file or sys.stdout, end=end, flush=flush)


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON in which hidden characters are escapes: the same content to a program, harmless on a terminal."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    return MAY_HIDE.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    character = found.group()
    if character == "\n" or unicodedata.category(character) not in HIDDEN:
        return character  # json.dumps writes no line break but its own
    return json.dumps(character)[1:-1]


def markdown(text: str) -> str:
    """Text of names and rows as one line of Markdown in which nothing is markup, HTML or a cell of its own."""
    return MARKDOWN.sub(r"\\\1", html.escape(printable(" ".join(text.split())), quote=False))


def markdown_code(text: str) -> str:
    """Anything as a code span of one line: with a fence that is longer than any run of backticks in it."""
    line = printable(" ".join(text.split()))
    fence = "`" * (longest_run(line) + 1)
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def longest_run(text: str) -> int:
    """How many backticks follow each other at most."""
    return max(map(len, re.findall("`+", text)), default=0)


def spreadsheet_cell(text: str) -> str:
    """A cell that no spreadsheet computes: an apostrophe stands before what would begin a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
