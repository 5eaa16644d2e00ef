"""The body of a request: parsed, checked against the task and bounded before the model sees it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fasttune.data.columns import is_text
from fasttune.serving.guard import Refused
from fasttune.tasks import Task

MOST_ITEMS = 32
MOST_CHARACTERS = 100_000  # of one item: tokenising a million takes a second
MOST_N_BEST = 20
FIELDS = ("inputs", "n_best")
ROLES = {"text": ("text",), "pair": ("text", "text_pair"), "question": ("question", "context")}


def kind_of(task: Task) -> str:
    """What an item is: text, pair, question, or sentence (a text or a list of words)."""
    roles = {column.role for column in task.columns if not column.is_target}
    if "question" in roles:
        return "question"
    if "tokens" in roles:
        return "sentence"
    return "pair" if getattr(task, "pairs", False) else "text"


def parsed(body: bytes, kind: str) -> tuple[list[Any], int]:
    """The inputs of a body, as `Task.rows_of` takes them, and how many answers a question should have.

    Refused with 422 if it is not JSON of this shape, with 413 if it is too large.
    """
    try:
        content = json.loads(body, parse_constant=_not_json, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise Refused(422, "json", f"the body is not JSON: {str(error)[:100]}") from None
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
        raise Refused(422, "inputs", 'send {"inputs": [...]}')
    unknown = [name for name in content if name not in FIELDS]
    if unknown:
        raise Refused(422, "field", f"unknown field {unknown[0][:50]!r}; fields: {', '.join(FIELDS)}")
    inputs, n_best = content["inputs"], content.get("n_best", 0)
    if "n_best" in content and kind != "question":
        raise Refused(422, "n_best", "n_best is for questions")
    if not isinstance(n_best, int) or isinstance(n_best, bool) or not 0 <= n_best <= MOST_N_BEST:
        raise Refused(422, "n_best", f"n_best must be a whole number from 0 to {MOST_N_BEST}")
    if not inputs:
        raise Refused(422, "inputs", "inputs is empty")
    if len(inputs) > MOST_ITEMS:
        raise Refused(413, "items", f"inputs may hold {MOST_ITEMS} items")
    return [_item(item, number, kind) for number, item in enumerate(inputs)], n_best


def _item(item: Any, number: int, kind: str) -> Any:
    where = f"inputs[{number}]"
    if kind == "sentence":
        words = item if isinstance(item, list) else [item]
        if not words or not all(map(is_text, words)) or not any(word.strip() for word in words):
            raise Refused(422, "item", f"{where} must be a text or a list of words")
        texts = words
    else:
        given = {"text": item} if isinstance(item, str) and kind == "text" else item
        roles = ROLES[kind]
        if not isinstance(given, dict) or set(given) != set(roles):
            raise Refused(422, "item", f"{where} must be {_shape(kind)}")
        texts = [given[role] for role in roles]
        for role, text in zip(roles, texts, strict=True):
            if not is_text(text) or not text.strip():
                raise Refused(422, "item", f"{where}.{role} must be a text that is not empty")
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise Refused(413, "characters", f"{where} may have {MOST_CHARACTERS:,} characters")
    if kind == "sentence":
        return item
    return tuple(texts) if len(texts) > 1 else texts[0]


def _shape(kind: str) -> str:
    return {
        "text": 'a text, or {"text": "..."}',
        "pair": '{"text": "...", "text_pair": "..."}',
        "question": '{"question": "...", "context": "..."}',
    }[kind]


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found
