"""Make untrusted text safe to show: characters that control, hide or reorder text become escapes.

All output goes through `write_line`, `security.terminal` or `json_text`; tests/test_architecture.py checks that the
code prints in no other way.
"""

from __future__ import annotations

import html
import json
import re
import sys
import unicodedata
from typing import Any, TextIO

# Cc: control characters, which move the cursor or start an escape sequence. Cf: bidirectional overrides, zero-width
# characters and tags, which hide or reorder text. Cs: lone surrogates. Zl, Zp: line and paragraph separators.
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
JOINERS = ("\u200c", "\u200d")  # needed to write Persian, Indian languages and many emoji
MAY_HIDE = re.compile(r"[^\x20-\x7e]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")  # OWASP: prefixes that make a spreadsheet evaluate a cell
MARKDOWN = re.compile(r"([\\`*_\[\]|#<>~])")


def printable(text: str, keep: str = "") -> str:
    """The text with hidden characters as escapes (`\\x1b`, `\\u202e`); those in `keep` stay."""
    return MAY_HIDE.sub(lambda match: _shown(match, keep), text)


def _shown(match: re.Match[str], keep: str) -> str:
    character = match.group()
    if character in keep or unicodedata.category(character) not in HIDDEN:
        return character
    if character in JOINERS and match.start():
        previous = match.string[match.start() - 1]
        if unicodedata.category(previous)[0] in "LMS" and not previous.isascii():
            return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def write_line(text: str, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print to stdout or `file`, with hidden characters escaped except line breaks and tabs."""
    print(printable(text, keep="\n\t"), file=file or sys.stdout, end=end, flush=flush)


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with hidden characters escaped: equal content for programs, harmless on a terminal."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    return MAY_HIDE.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    character = match.group()
    if character == "\n" or unicodedata.category(character) not in HIDDEN:
        return character  # json.dumps escapes the line breaks of the content
    return json.dumps(character)[1:-1]


def markdown(text: str) -> str:
    """Text as one line of Markdown, in which nothing acts as markup, HTML or a cell separator."""
    return MARKDOWN.sub(r"\\\1", html.escape(printable(" ".join(text.split())), quote=False))


def markdown_code(text: str) -> str:
    """Text as a one-line Markdown code span, with a fence longer than any run of backticks in it."""
    line = printable(" ".join(text.split()))
    fence = "`" * (longest_run(line) + 1)
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def longest_run(text: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def spreadsheet_cell(text: str) -> str:
    """A cell that no spreadsheet evaluates: text that would start a formula is prefixed with an apostrophe."""
    return f"'{text}" if text.startswith(FORMULA) else text
