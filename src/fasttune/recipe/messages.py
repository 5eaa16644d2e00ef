"""From what a user wrote to problems in plain words: unknown names, values out of range, secrets.

`collect` spreads nested values out to one setting per field and finds the names that do not exist; `field_problem` says
what is wrong with one value. It decides nothing about what is allowed: that is the schema's.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fasttune.errors import Problem, nearest, shown
from fasttune.recipe import aliases
from fasttune.recipe.schema import FieldPath, Recipe, Section, fields, subsection
from fasttune.recipe.types import METRICS, NUMBER, TASK_NAMES
from fasttune.recipe.yaml_text import write_inline
from fasttune.security import secrets

FIELDS: dict[FieldPath, FieldInfo] = dict(fields())
TRAIN = ("data", "train")  # the one field that has no default
SECTIONS = {path[:depth] for path in FIELDS for depth in range(1, len(path))}
LONGEST_LINE = 100  # characters of a line to type; a longer one is not shown
SURE = 0.85  # likeness from which nothing better is looked for
NO_VALUE = object()


@dataclass(frozen=True)
class Origin:
    """Where a setting was written: in a file, in a Python mapping, or as an override."""

    text: str
    whole: bool = False  # the text is the place; otherwise the path follows it
    in_file: bool = False

    def where(self, path: FieldPath) -> str:
        return self.text if self.whole else self.text + dotted(path)

    def line(self, path: FieldPath, value: object = NO_VALUE) -> str:
        """The hint that tells what to type, in the grammar of the place."""
        name = ".".join(path)
        text = "" if value is NO_VALUE else write_inline(value)
        if not text or len(text) > LONGEST_LINE or secrets.holds_secret(value):
            return f"write {name}"
        if not self.in_file:
            return f"write {name}={text}"
        if not path[:-1]:
            return f"write {name}, in the file as {f'{name}: {text}'!r} at the left margin"
        return f"write {name}, in the file as {f'{path[-1]}: {text}'!r} below '{': '.join(path[:-1])}:'"


@dataclass(frozen=True)
class Setting:
    value: object
    origin: Origin


def dotted(path: Iterable[str]) -> str:
    """A path as it may stand in a message: a name can hold anything, so what is not plain is escaped and cut."""
    parts = [secrets.without_secrets(part) for part in path]
    return ".".join(part if re.fullmatch(r"[\w*-]{1,60}", part, re.ASCII) else shown(part) for part in parts)


def shown_value(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "nothing (null)", True: "true", False: "false"}[value]
    return shown(_without_secrets(value))


def _without_secrets(value: object) -> object:
    return secrets.without_secrets(repr(value)) if secrets.holds_secret(value) else value


def collect(
    values: Mapping[Any, Any], origin: Origin, settings: dict[FieldPath, Setting], problems: list[Problem]
) -> None:
    """Put every setting into `settings`, over what is there; add to `problems` the names that do not exist."""
    _collect(values, Recipe, (), origin, settings, problems)


def _collect(
    values: Mapping[Any, Any],
    section: type[Section],
    above: FieldPath,
    origin: Origin,
    settings: dict[FieldPath, Setting],
    problems: list[Problem],
) -> None:
    both = bool(values.get("fp16")) and bool(values.get("bf16"))
    if both:
        problems.append(_two_precisions(above, origin))
    for name, value in values.items():
        key = str(name)
        path = (*above, key)
        field = section.model_fields.get(key)
        if field is None:
            if not (both and key in ("fp16", "bf16")):
                problems.append(_unknown(path, value, section, origin))
            continue
        below = subsection(field)
        if below is None:
            if secrets.holds_secret(value):
                problems.append(_secret(path, origin))
            settings[path] = Setting(value, origin)
        elif isinstance(value, Mapping):
            _collect(value, below, path, origin, settings, problems)
        elif value is not None:  # a section whose lines are all commented out is empty
            problems.append(_not_a_section(path, value, origin))


def _two_precisions(above: FieldPath, origin: Origin) -> Problem:
    hint = origin.line(("training", "precision"), "bf16")
    where = origin.where((*above, "fp16"))
    return Problem(code="E310", where=where, found="fp16 and bf16 together", expected="one precision", hint=hint)


def _secret(path: FieldPath, origin: Origin) -> Problem:
    where = origin.where(path)
    return Problem(
        code="E309", where=where, found="a secret", expected="no secret in a recipe", hint=secrets.SECRET_HINT
    )


def _not_a_section(path: FieldPath, value: object, origin: Origin) -> Problem:
    hint = ""
    meant = {"data": TRAIN, "evaluation": ("evaluation", "eval_strategy"), "output": ("output", "dir")}.get(path[-1])
    if meant and _accepts(meant, value):
        hint = origin.line(meant, value)
    return Problem(
        code="E303",
        where=origin.where(path),
        found=shown_value(value),
        expected=f"a section: names and values below '{path[-1]}:'",
        hint=hint,
    )


def _unknown(path: FieldPath, value: object, section: type[Section], origin: Origin) -> Problem:
    """A name that the schema does not have: a secret, a name in the wrong place, another tool's name, or a typo."""
    name = path[-1]
    if secrets.is_secret_name(name) or secrets.holds_secret(name):
        return _secret(path, origin)
    places = [known for known in (*FIELDS, *SECTIONS) if known[-1] == name or ".".join(known) == name]
    advice = aliases.NAMES.get(name)
    home = f"a field of {'.'.join(path[:-1])}" if path[:-1] else "a section, or one of format, task, model"
    code, found = "E300", "an unknown name"
    if places:
        found, home = "a name in the wrong place", " or ".join(".".join(place) for place in sorted(places))
        hint = _line_with(places[0], value, origin) if len(places) == 1 else f"write {home}"
    elif advice and not advice.write:
        found, home, hint = "a name of another tool", "no such line", f"leave it out: {advice.why}"
    elif advice:
        found, home = "a name of another tool", advice.write
        if advice.value and value in (False, "false", "False"):
            hint = "leave it out: that is so already"
        else:
            hint = _line_with(tuple(advice.write.split(".")), advice.value or value, origin)
            hint += f"; {advice.why}" if advice.why else ""
        code = "E310" if advice.why == aliases.NAMES["fp16"].why else code
    else:
        hint = _nearest_hint(path, section)
    return Problem(code=code, where=origin.where(path), found=found, expected=home, hint=hint)


def _line_with(path: FieldPath, value: object, origin: Origin) -> str:
    """The line that holds the user's value, translated where we know how; only its name where it is not right."""
    if path not in FIELDS:
        return f"write {'.'.join(path)}, at the left margin of a file" if len(path) == 1 else f"write {'.'.join(path)}"
    key = (".".join(path), str(value).lower())
    known = aliases.VALUES.get(key, value)
    for candidate in (known, [known]):
        if _accepts(path, candidate):
            return origin.line(path, candidate)
    return origin.line(path)


def _accepts(path: FieldPath, value: object) -> bool:
    if value is None:
        return False
    try:
        Recipe.model_validate(nested({TRAIN: "starter"} | {path: value}))
    except ValidationError:
        return False
    return True


def nested(values: Mapping[FieldPath, object]) -> dict[str, Any]:
    """From path -> value to the sections of a recipe."""
    whole: dict[str, Any] = {"data": {}}  # so that what is missing is data.train, not data
    for path, value in values.items():
        section = whole
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = value
    return whole


def _nearest_hint(path: FieldPath, section: type[Section]) -> str:
    name, above = path[-1], path[:-1]
    here = list(section.model_fields)
    near = nearest(name, here)
    likeness = _likeness(name, near) if near else 0.0
    if near and likeness > SURE:
        return f"did you mean '{near}'?"
    elsewhere = {known[-1]: ".".join(known) for known in FIELDS} | {name: name for name in aliases.NAMES}
    far = nearest(name, elsewhere)
    # A name of this section is the better guess, unless another one is clearly more alike (a right name, misspelt,
    # in the wrong section).
    if far and _likeness(name, far) > likeness + 0.1:
        advice = aliases.NAMES.get(far)
        if advice and not advice.write:
            return f"did you mean '{far}'? leave it out: {advice.why}"
        return f"did you mean '{advice.write if advice else elsewhere[far]}'?"
    if near:
        return f"did you mean '{near}'?"
    return f"{'.'.join(above) or 'a recipe'} has {', '.join(here)}"


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.lower(), other).ratio()


def field_problem(path: FieldPath, setting: Setting | None, origin: Origin, kinds: set[str]) -> Problem:
    """What is wrong with one value. `kinds` are the names of pydantic's errors for it; its words are not shown."""
    extra = FIELDS[path].json_schema_extra
    assert isinstance(extra, dict)  # every field is made by `setting`
    code, allowed = str(extra["code"]), str(extra["allowed"])
    if setting is None:
        hint = origin.line(path, "reviews.csv")
        return Problem(code="E315", where=origin.where(path), found="nothing", expected=allowed, hint=hint)
    if kinds == {"number_form"}:
        code = "E301"
    return Problem(
        code=code,
        where=setting.origin.where(path),
        found=shown_value(setting.value),
        expected=allowed,
        hint=_value_hint(path, setting),
    )


def _value_hint(path: FieldPath, setting: Setting) -> str:
    value, name = setting.value, ".".join(path)
    known = aliases.VALUES.get((name, str(value).lower()))
    choices = _choices(path)
    if known is not None:
        return _line_with(path, known, setting.origin)
    if name == "evaluation.metrics":
        return _metrics_hint(path, setting)
    if choices:
        near = nearest(str(value), choices) if not isinstance(value, (bool, list, dict)) else None
        return f"did you mean {near!r}?" if near else ""
    if isinstance(value, str) and (number := NUMBER.match(value.strip())) and number[0] and number[0] != value.strip():
        # "10%" is a share; for everything else the number in front is what was meant, where it is allowed.
        meant = repr(float(number[0]) / 100) if value.strip() == f"{number[0]}%" else number[0]
        if _accepts(path, meant):
            return setting.origin.line(path, _as_number(meant))
    if name == "data.label_names" and isinstance(value, list):
        names = [item if isinstance(item, str) else write_inline(item) for item in value]
        if names != value and _accepts(path, names):
            return setting.origin.line(path, names)
    if isinstance(value, (int, float)) and _accepts(path, text := write_inline(value)) and not _accepts(path, value):
        return setting.origin.line(path, text)
    return ""


def _as_number(text: str) -> object:
    return int(text) if text.isdigit() else float(text)


def _metrics_hint(path: FieldPath, setting: Setting) -> str:
    value = setting.value
    if isinstance(value, str) and value in METRICS:
        return setting.origin.line(path, [value])
    items = value if isinstance(value, list) else [value]
    wrong = [item for item in items if isinstance(item, str) and item not in METRICS]
    if "loss" in wrong:
        return "leave 'loss' out: it is always computed"
    near = {item: aliases.VALUES.get(("evaluation.metrics", item.lower())) or nearest(item, METRICS) for item in wrong}
    return " ".join(f"did you mean {meant!r}?" for meant in near.values() if meant)


@functools.cache
def _choices(path: FieldPath) -> tuple[str, ...]:
    """The words that a field takes, wherever they stand in its type."""
    if path == ("task",):
        return tuple(TASK_NAMES)
    return tuple(_words(FIELDS[path].annotation))


def _words(kind: object) -> list[str]:
    if get_origin(kind) is Literal:
        return [word for word in get_args(kind) if isinstance(word, str)]
    return [word for part in get_args(kind) for word in _words(part)]


def takes_text(path: FieldPath) -> bool:
    """Whether a field holds the user's own words, so that a value that looks like a number is a word too."""
    return path in FIELDS and not _choices(path) and _accepts(path, "a")
