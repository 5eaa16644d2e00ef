"""Turn mistakes in a recipe into problems in plain words: unknown names, values out of range, secrets.

`collect` flattens nested values to one setting per field and reports unknown names; `field_problem` describes one wrong
value. What is allowed is up to the schema.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fasttune.errors import Problem, nearest, shown
from fasttune.recipe import aliases
from fasttune.recipe.schema import FieldPath, Recipe, fields, subsection
from fasttune.recipe.section import Section
from fasttune.recipe.types import METRICS, NUMBER, TASK_NAMES
from fasttune.recipe.yaml_text import write_inline
from fasttune.security import secrets

FIELDS: dict[FieldPath, FieldInfo] = dict(fields())
TRAIN = ("data", "train")  # the one field that has no default
SECTIONS = {path[:depth] for path in FIELDS for depth in range(1, len(path))}
LONGEST_LINE = 100  # characters of a value in a hint; longer ones are not shown
SURE = 0.85  # from this similarity on, no better suggestion is searched for
NO_VALUE = object()


@dataclass(frozen=True)
class Origin:
    """Where a setting was written: in a file, in a Python mapping, or as an override."""

    text: str
    is_complete: bool = False  # whether `text` names the place; otherwise the path of the setting follows
    in_file: bool = False

    def where(self, path: FieldPath) -> str:
        return self.text if self.is_complete else self.text + dotted(path)

    def line(self, path: FieldPath, value: object = NO_VALUE) -> str:
        """The hint with the line to write, as YAML for a file and as an override otherwise."""
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
    """A path for a message. Users' names can hold anything, so names that are not plain are escaped and shortened."""
    names = [secrets.without_secrets(name) for name in path]
    return ".".join(name if re.fullmatch(r"[\w*-]{1,60}", name, re.ASCII) else shown(name) for name in names)


def shown_value(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shown(_without_secrets(value))


def _without_secrets(value: object) -> object:
    return secrets.without_secrets(repr(value)) if secrets.holds_secret(value) else value


def collect(
    values: Mapping[Any, Any], origin: Origin, settings: dict[FieldPath, Setting], problems: list[Problem]
) -> None:
    """Add every setting to `settings`, replacing earlier ones, and every unknown name to `problems`."""
    _collect(values, Recipe, (), origin, settings, problems)


def _collect(
    values: Mapping[Any, Any],
    section: type[Section],
    parents: FieldPath,
    origin: Origin,
    settings: dict[FieldPath, Setting],
    problems: list[Problem],
) -> None:
    has_both = bool(values.get("fp16")) and bool(values.get("bf16"))
    if has_both:
        problems.append(_two_precisions(parents, origin))
    for name, value in values.items():
        key = str(name)
        path = (*parents, key)
        field = section.model_fields.get(key)
        if field is None:
            if not (has_both and key in ("fp16", "bf16")):
                problems.append(_unknown(path, value, section, origin))
            continue
        child = subsection(field)
        if child is None:
            if secrets.holds_secret(value):
                problems.append(_secret(path, origin))
            settings[path] = Setting(value, origin)
        elif isinstance(value, Mapping):
            _collect(value, child, path, origin, settings, problems)
        elif value is not None:  # None: all lines of the section are commented out
            problems.append(_not_a_section(path, value, origin))


def _two_precisions(parents: FieldPath, origin: Origin) -> Problem:
    hint = origin.line(("training", "precision"), "bf16")
    where = origin.where((*parents, "fp16"))
    return Problem(code="E310", where=where, found="fp16 and bf16 are both set", hint=hint)


def _secret(path: FieldPath, origin: Origin) -> Problem:
    found = "a recipe must not contain secrets"
    return Problem(code="E309", where=origin.where(path), found=found, hint=secrets.SECRET_HINT)


def _not_a_section(path: FieldPath, value: object, origin: Origin) -> Problem:
    main_fields = {"data": TRAIN, "evaluation": ("evaluation", "eval_strategy"), "output": ("output", "dir")}
    main_field = main_fields.get(path[-1])
    hint = origin.line(main_field, value) if main_field and _accepts(main_field, value) else ""
    return Problem(
        code="E303",
        where=origin.where(path),
        found=shown_value(value),
        expected=f"a section: names and values indented below '{path[-1]}:'",
        hint=hint,
    )


def _unknown(path: FieldPath, value: object, section: type[Section], origin: Origin) -> Problem:
    """The problem of a name that the schema does not have: a secret, a misplaced or foreign name, or a typo."""
    name = path[-1]
    if secrets.is_secret_name(name) or secrets.holds_secret(name):
        return _secret(path, origin)
    targets = sorted(known for known in (*FIELDS, *SECTIONS) if known[-1] == name or ".".join(known) == name)
    advice = aliases.NAMES.get(name)
    code = "E300"
    if targets:
        found = f"this name belongs {_homes(targets)}"
        if len(targets) == 1:
            hint = _line_with(targets[0], value, origin)
        else:
            hint = "write " + " or ".join(".".join(target) for target in targets)
    elif advice and not advice.write:
        found = "fasttune has no such setting"
        hint = f"leave it out: {advice.why}"
    elif advice:
        found = f"fasttune calls this setting {advice.write}"
        if advice.value and value in (False, "false", "False"):
            hint = "leave it out: the default applies"
        else:
            hint = _line_with(tuple(advice.write.split(".")), advice.value or value, origin)
            hint += f"; {advice.why}" if advice.why else ""
        if advice.why == aliases.NAMES["fp16"].why:
            code = "E310"
    else:
        found = f"unknown name in section {'.'.join(path[:-1])}" if path[:-1] else "unknown section or field"
        hint = _nearest_hint(path, section)
    return Problem(code=code, where=origin.where(path), found=found, hint=hint)


def _homes(targets: Sequence[FieldPath]) -> str:
    """Where settings belong: "in section data or training"; the top level is no section."""
    sections = [".".join(target[:-1]) for target in targets]
    return f"in section {' or '.join(sections)}" if all(sections) else "at the top level"


def _line_with(path: FieldPath, value: object, origin: Origin) -> str:
    """The line with the user's value, translated if `aliases` knows it; only the field's name if the value is wrong."""
    if path not in FIELDS:
        return f"write {'.'.join(path)}, at the left margin of a file" if len(path) == 1 else f"write {'.'.join(path)}"
    translated = translated_value(path, value)
    return origin.line(path) if translated is None else origin.line(path, translated)


def translated_value(path: FieldPath, value: object) -> object | None:
    """The value in a form that this field accepts: as it is, under fasttune's name, or in a list; otherwise None."""
    translated = aliases.VALUES.get((".".join(path), str(value).lower()), value)
    return next((candidate for candidate in (translated, [translated]) if _accepts(path, candidate)), None)


def _accepts(path: FieldPath, value: object) -> bool:
    if value is None:
        return False
    try:
        Recipe.model_validate(nested({TRAIN: "starter"} | {path: value}))
    except ValidationError:
        return False
    return True


def nested(values: Mapping[FieldPath, object]) -> dict[str, Any]:
    """Turn a mapping of paths to values into the nested sections of a recipe."""
    recipe: dict[str, Any] = {"data": {}}  # so that pydantic reports data.train as missing, not data
    for path, value in values.items():
        section = recipe
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = value
    return recipe


def _nearest_hint(path: FieldPath, section: type[Section]) -> str:
    name, parents = path[-1], path[:-1]
    in_section = list(section.model_fields)
    nearest_here = nearest(name, in_section)
    similarity = _similarity(name, nearest_here) if nearest_here else 0.0
    if nearest_here and similarity > SURE:
        return f"did you mean '{nearest_here}'?"
    anywhere = {known[-1]: ".".join(known) for known in FIELDS} | {alias: alias for alias in aliases.NAMES}
    nearest_anywhere = nearest(name, anywhere)
    # A name of this section is the better guess, unless another is clearly more similar: a correct name, misspelt and
    # in the wrong section.
    if nearest_anywhere and _similarity(name, nearest_anywhere) > similarity + 0.1:
        advice = aliases.NAMES.get(nearest_anywhere)
        if advice and not advice.write:
            return f"did you mean '{nearest_anywhere}'? leave it out: {advice.why}"
        return f"did you mean '{advice.write if advice else anywhere[nearest_anywhere]}'?"
    if nearest_here:
        return f"did you mean '{nearest_here}'?"
    return f"{'.'.join(parents) or 'a recipe'} has {', '.join(in_section)}"


def _similarity(name: str, known: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), known).ratio()


def field_problem(path: FieldPath, setting: Setting | None, origin: Origin, kinds: set[str]) -> Problem:
    """The problem of one wrong value. `kinds` are the types of pydantic's errors for it; its messages are not shown."""
    extra = FIELDS[path].json_schema_extra
    assert isinstance(extra, dict)  # every field is declared with `setting`
    code, allowed = str(extra["code"]), str(extra["allowed"])
    if setting is None:
        hint = origin.line(path, "reviews.csv")
        return Problem(code="E315", where=origin.where(path), found=f"required, but not set ({allowed})", hint=hint)
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
    translated = aliases.VALUES.get((name, str(value).lower()))
    choices = _choices(path)
    if translated is not None:
        return _line_with(path, translated, setting.origin)
    if name == "evaluation.metrics":
        return _metrics_hint(path, setting)
    if choices:
        near = nearest(str(value), choices) if not isinstance(value, (bool, list, dict)) else None
        return f"did you mean {near!r}?" if near else ""
    if isinstance(value, str) and (number := NUMBER.match(value.strip())) and number[0] and number[0] != value.strip():
        # "10%" is a fraction; otherwise suggest the leading number if the field accepts it.
        suggestion = repr(float(number[0]) / 100) if value.strip() == f"{number[0]}%" else number[0]
        if _accepts(path, suggestion):
            return setting.origin.line(path, _as_number(suggestion))
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
        return "leave out 'loss': it is always computed"
    suggestions = {
        item: aliases.VALUES.get(("evaluation.metrics", item.lower())) or nearest(item, METRICS) for item in wrong
    }
    return " ".join(f"did you mean {suggestion!r}?" for suggestion in suggestions.values() if suggestion)


@functools.cache
def _choices(path: FieldPath) -> tuple[str, ...]:
    """The words that a field accepts, at any depth of its type."""
    if path == ("task",):
        return tuple(TASK_NAMES)
    return tuple(_words(FIELDS[path].annotation))


def _words(kind: object) -> list[str]:
    if get_origin(kind) is Literal:
        return [word for word in get_args(kind) if isinstance(word, str)]
    return [word for argument in get_args(kind) for word in _words(argument)]


def takes_text(path: FieldPath) -> bool:
    """Whether a field holds free text, so that a value that looks like a number stays text."""
    return path in FIELDS and not _choices(path) and _accepts(path, "a")
