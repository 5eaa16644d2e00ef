"""Recipes in and out: from a file, a shipped name, a mapping or another recipe, with overrides, to a checked `Recipe`.

Everything that is wrong is collected and raised once. Nothing outside the recipe is opened: data, model and devices are
checked where they are used. Paths in a recipe stay as written and count from the working directory.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fasttune.errors import Problem, RecipeError, nearest, shown
from fasttune.recipe import yaml_text
from fasttune.recipe.messages import (
    FIELDS,
    TRAIN,
    Origin,
    Setting,
    collect,
    dotted,
    field_problem,
    nested,
    shown_value,
    takes_text,
)
from fasttune.recipe.rules import TASKS_WITH, conflicts, has
from fasttune.recipe.schema import FieldPath, Recipe
from fasttune.security import secrets

SUFFIXES = (".yaml", ".yml")
LARGEST_FILE = 1_000_000  # bytes; a recipe has about a thousand
STRUCTURE = ("[", "{", '"', "'", "!")  # an override that begins with one of these is YAML; any other is one plain value

Source = str | os.PathLike[str] | Mapping[str, Any] | Recipe
Overrides = Sequence[str] | Mapping[str, Any]


def load(source: Source, overrides: Overrides = ()) -> Recipe:
    """The recipe that `source` and `overrides` make, or a RecipeError that lists everything that is wrong.

    `source` is a YAML file, the name of a shipped recipe, a nested mapping or a recipe. An override is
    `section.field=value` or a nested mapping; it replaces the field it names and the last one wins. A value that begins
    with a bracket, a brace, a quotation mark or "!" is read as YAML, any other as one plain value: `data.train=*.csv`
    needs no quotes.
    """
    problems: list[Problem] = []
    settings: dict[FieldPath, Setting] = {}
    values, origin, unreadable = _values(source)
    if isinstance(values, Mapping):
        collect(values, origin, settings, problems)
    elif values is not None:
        expected = "sections with names and values, such as 'data:' and below it '  train: reviews.csv'"
        where = origin.text.removesuffix(": ")
        unreadable.append(Problem(code="E312", where=where, found=shown_value(values), expected=expected))
    for override, place in _overrides(overrides, problems):
        collect(override, place, settings, problems)
    if unreadable:  # what stands in the rest of the file is not known, so nothing can be called missing
        raise RecipeError(*unreadable, *problems)
    recipe = _checked(settings, origin, problems)
    if problems:
        raise RecipeError(*problems)
    return recipe


def _checked(settings: dict[FieldPath, Setting], origin: Origin, problems: list[Problem]) -> Recipe:
    """Validate; where a field is wrong, go on with its default, so that the rules about others are still checked."""
    wrong: dict[FieldPath, set[str]] = {}
    try:
        recipe = Recipe.model_validate(nested({path: setting.value for path, setting in settings.items()}))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            wrong.setdefault(_field_of(detail["loc"]), set()).add(detail["type"])
        good = {path: setting for path, setting in settings.items() if path not in wrong}
        good.setdefault(TRAIN, Setting("starter", origin))
        recipe = Recipe.model_validate(nested({path: setting.value for path, setting in good.items()}))
    secret = {path for path, setting in settings.items() if secrets.holds_secret(setting.value)}  # already reported
    problems += [field_problem(path, settings.get(path), origin, wrong[path]) for path in wrong if path not in secret]
    for conflict in conflicts(recipe):
        if wrong.keys().isdisjoint(conflict.paths):
            written = [(path, settings[path].origin) for path in conflict.paths if path in settings]
            # The override is what the user has just typed.
            path, place = next(((path, place) for path, place in written if not place.in_file), written[0])
            hint = place.line(*conflict.fix) + (f"; or {conflict.otherwise}" if conflict.otherwise else "")
            problem = Problem(
                code=conflict.code,
                where=place.where(path),
                found=conflict.found,
                expected=conflict.expected,
                hint=hint,
            )
            problems.append(problem)
    return recipe


def _field_of(place: tuple[int | str, ...]) -> FieldPath:
    """The field of an error, whose place goes on into lists and the members of unions."""
    return next(path for path in FIELDS if path == place[: len(path)])


def _values(source: Source) -> tuple[Any, Origin, list[Problem]]:
    if isinstance(source, Recipe):
        return source.model_dump(), Origin("recipe: "), []
    if isinstance(source, Mapping):
        return source, Origin("recipe: "), []
    name = os.fspath(source)
    if name in _shipped_names():
        text, name = shipped_text(name), f"{name}.yaml"
    else:
        text = _file_text(name)
    values, problems = yaml_text.read(text, _printable(name))
    return values, Origin(f"{_printable(name)}: ", in_file=True), problems


def _printable(text: str) -> str:
    return text if text.isprintable() else shown(text)


def _file_text(name: str) -> str:
    where = _printable(name)
    path = Path(name)
    try:
        if not path.is_dir() and path.stat().st_size > LARGEST_FILE:
            found = f"a file of {path.stat().st_size} bytes"
            raise RecipeError(Problem(code="E312", where=where, found=found, expected=f"at most {LARGEST_FILE} bytes"))
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            found = f"byte 0x{error.object[error.start]:02X} at offset {error.start}"
            hint = "save the file as UTF-8"
            raise RecipeError(Problem(code="E312", where=where, found=found, expected="UTF-8", hint=hint)) from None
        raise RecipeError(_no_file(name, where, error)) from None


def _no_file(name: str, where: str, error: Exception) -> Problem:
    path = Path(name)
    if isinstance(error, FileNotFoundError):
        found = "no such file"
    elif isinstance(error, (IsADirectoryError, PermissionError)) and path.is_dir():
        found = "a folder"
    else:
        found = getattr(error, "strerror", None) or str(error)
    names = {shipped: shipped for shipped in _shipped_names()}
    try:
        folder = path.parent
        names |= {file.stem: str(folder / file.name) for file in folder.iterdir() if file.suffix in SUFFIXES}
    except (OSError, ValueError):
        pass
    near = nearest(path.stem, names)
    hint = f"did you mean {_printable(names[near])}?" if near else "'fasttune recipes' lists the shipped ones"
    expected = f"a recipe file, or one of {', '.join(_shipped_names())}"
    return Problem(code="E311", where=where, found=found, expected=expected, hint=hint)


def _overrides(overrides: Overrides, problems: list[Problem]) -> list[tuple[Mapping[str, Any], Origin]]:
    """Each override as a nested mapping of its own, with its place."""
    if isinstance(overrides, Mapping):
        return [(overrides, Origin("override "))]
    if isinstance(overrides, str):
        raise TypeError("overrides is a list of 'section.field=value', not one string")
    read = []
    for text in overrides:
        name, equals, written = text.partition("=")
        path = tuple(name.strip().split("."))
        origin = Origin(f"override {_shown_override(text, path)}", whole=True)
        if not equals or path[0].startswith("-") or not all(path):
            problems.append(_override_form(text, path, origin))
            continue
        value, wrong = _override_value(written, path, origin)
        problems += wrong
        if not wrong:
            for part in reversed(path):
                value = {part: value}
            read.append((value, origin))
    return read


def _override_value(written: str, path: FieldPath, origin: Origin) -> tuple[Any, list[Problem]]:
    if written.startswith(STRUCTURE) and not _is_a_name(written, path):
        value, problems = yaml_text.read(written, origin.text)
        return value, [_in_override(problem, origin) for problem in problems]
    if takes_text(path) and written and (not written.strip() or written.strip() == "~"):
        return written, []  # a blank that separates labels, the folder of the user
    value = yaml_text.plain_value(written.strip())
    # A column called 2024 or a folder called true is a word; only nothing is not.
    return (written if value is not None and takes_text(path) else value), []


def _is_a_name(written: str, path: FieldPath) -> bool:
    """Whether a value that begins like YAML's lists is the name of a file, such as [a].csv."""
    return path[0] == "data" and written[0] == "[" and "]" in written and not written.rstrip().endswith("]")


def _in_override(problem: Problem, origin: Origin) -> Problem:
    """A problem of YAML in the words of the command line, where there is one line and no file."""
    if problem.code != "E312":
        return replace(problem, where=origin.text)
    expected = "one value, such as 3, word, [a, b] or {a: b}"
    hint = "close every bracket and quotation mark; the shell takes one pair of quotes away"
    return replace(problem, where=origin.text, expected=expected, hint=hint)


def _override_form(text: str, path: FieldPath, origin: Origin) -> Problem:
    bare = text.lstrip("-").strip()
    names = [".".join(known) for known in FIELDS]
    name = ".".join(path).lstrip("-").strip()
    if "=" in bare and name in names:
        hint = f"write {_shown_override(bare, tuple(name.split('.')))}"
    elif name in names:
        hint = f"write {name}=..."
    else:
        near = nearest(name, names)
        hint = f"did you mean {near}=...?" if near else "write for example training.learning_rate=3e-5"
    return Problem(code="E316", where=origin.text, found="no setting", expected="section.field=value", hint=hint)


def _shown_override(text: str, path: FieldPath) -> str:
    """The override as typed, without a secret, escaped and cut."""
    name, _, value = text.partition("=")
    if any(secrets.is_secret_name(part) for part in path):
        value = "***"
    text = secrets.without_secrets(f"{name}={value}" if value else text)
    return text if text.isprintable() and len(text) <= 80 else shown(text)


def dump(recipe: Recipe) -> str:
    """The whole recipe as YAML, with all defaults that its task has; `load` reads the same recipe from it."""
    content = recipe.model_dump()
    for path in TASKS_WITH:
        *sections, name = path
        if not has(recipe.task, path):
            del reduce(getitem, sections, content)[name]
    return yaml_text.write(content)


def digest(recipe: Recipe) -> str:
    """sha256 of `dump`: the same for recipes that say the same."""
    return hashlib.sha256(dump(recipe).encode()).hexdigest()


def is_recipe_name(source: str | os.PathLike[str]) -> bool:
    """Whether a source that is not there was meant as a recipe: a YAML file, or almost the name of a shipped one.

    `yelp_review_full` is a data set, not a slip of `yelp-full`.
    """
    is_near = bool(difflib.get_close_matches(str(source), shipped(), n=1, cutoff=0.8))
    return Path(source).suffix.lower() in SUFFIXES or (is_near and not Path(source).exists())


def is_recipe(source: object) -> bool:
    """Whether `source` names a recipe rather than data: an existing YAML file or a shipped name."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    name = os.fspath(source)
    if name in _shipped_names():
        return True
    try:
        return Path(name).suffix.lower() in SUFFIXES and Path(name).is_file()
    except (OSError, ValueError):
        return False


def _shipped_names() -> list[str]:
    folder = importlib.resources.files("fasttune.recipe").joinpath("shipped")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def shipped() -> dict[str, str]:
    """The recipes that come with fasttune, each with its purpose, which is its first line."""
    return {name: shipped_text(name).splitlines()[0].lstrip("# ") for name in _shipped_names()}


def shipped_text(name: str) -> str:
    """A shipped recipe as it is written, comments included."""
    if name not in _shipped_names():
        raise RecipeError(_no_file(name, _printable(name), FileNotFoundError()))
    return importlib.resources.files("fasttune.recipe").joinpath("shipped", f"{name}.yaml").read_text("utf-8")


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """The fields in which two recipes differ: dotted path -> (old value, new value)."""
    pairs = {path: (_get(old, path), _get(new, path)) for path in FIELDS}
    return {dotted(path): (one, other) for path, (one, other) in pairs.items() if one != other}


def _get(recipe: Recipe, path: FieldPath) -> Any:
    value: Any = recipe
    for name in path:
        value = getattr(value, name)
    return value
