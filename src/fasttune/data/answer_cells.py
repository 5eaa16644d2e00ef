"""The forms in which data sets write the answers of a question, read as texts with their starts.

The hub has {"text": [...], "answer_start": [...]}, SQuAD files [{"text": ..., "answer_start": ...}], and a CSV file
either of them as JSON or as Python prints it, or one text with its start in a separate column.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from itertools import pairwise
from typing import Any

Pair = tuple[str, int | None]  # a text and its start, if there is one
BEGINNING_OF_LITERAL = re.compile(r"""\s*[\[{]\s*['"{]""")
FLAGS = {"true": True, "1": True, "false": False, "0": False}


def pairs_of(cell: Any, start: Any, context: str) -> list[Pair]:
    """The answers of a cell; KeyError, TypeError or ValueError for any other form.

    `start`: the cell of the column of starts. No text, or an empty one, means that there is no answer.
    """
    if isinstance(cell, str):
        if cell.strip() == "[]" and cell in context and start in (None, ""):
            raise ValueError  # no answer, or these two characters
        cell, start = _written_out(cell, context), _written_out(start, "")
    if cell is None or cell == "":
        return []
    if isinstance(cell, dict):
        cell, start = cell["text"], cell.get("answer_start")
    if cell is None or isinstance(cell, str):
        cell, start = [cell], start if isinstance(start, list) else [start]
    if any(isinstance(answer, dict) for answer in cell):
        pairs = [(answer["text"], answer.get("answer_start")) for answer in cell]
    else:
        pairs = list(zip(cell, [None] * len(cell) if start in (None, "") else start, strict=True))
    if any(not isinstance(text, str | None) for text, _ in pairs):
        raise TypeError
    return [(text, offset_of(begin)) for text, begin in pairs if text]


def offset_of(value: Any) -> int | None:
    """A start as a number: 8, "8", or 8.0 as pandas writes whole numbers beside missing ones; None if it is missing."""
    if value in (None, "") or value != value:  # NaN is how pandas writes a missing number
        return None
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError
    return int(float(value))


def flag_of(value: Any) -> bool | None:
    """Whether `is_impossible` is set; None if it is missing. ValueError for any other value."""
    if value in (None, ""):
        return None
    try:
        return FLAGS[str(value).strip().lower()]
    except KeyError:
        raise ValueError from None


def _written_out(cell: Any, context: str) -> Any:
    """The value that a cell holds as JSON or as Python prints it; the cell itself if it is a plain text.

    A cell that occurs in the context is a plain text, even if it could also be read as a list.
    """
    if not isinstance(cell, str) or cell.lstrip()[:1] not in ("{", "[") or cell in context:
        return cell
    try:
        value = json.loads(cell)
    except ValueError:
        value = _python_value(cell)
    parts = value if isinstance(value, list) else [value]
    is_form = all(isinstance(part, str | int) or (isinstance(part, dict) and "text" in part) for part in parts)
    if value is not cell and is_form:
        return value
    if BEGINNING_OF_LITERAL.match(cell):
        raise ValueError  # cut off, printed by NumPy without commas, or another form
    return cell


def _python_value(cell: str) -> Any:
    """The value of a Python literal, also with the arrays that pandas leaves in a cell: array(['Paris'], dtype=object).

    The cell itself if it is none.
    """
    try:
        # A NumPy array prints its texts without commas, and Python would join them to one.
        tokens = tokenize.generate_tokens(io.StringIO(cell).readline)
        kinds = [token.type for token in tokens if token.type != tokenize.NL]
        if (tokenize.STRING, tokenize.STRING) in pairwise(kinds):
            return cell
        return ast.literal_eval(_WithoutCalls().visit(ast.parse(cell.strip(), mode="eval")))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return cell


class _WithoutCalls(ast.NodeTransformer):
    """Replaces array([...], dtype=...) and int32(8) by their first argument; nothing is called."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return self.visit(node.args[0]) if node.args else node
