"""Load a recipe from a file, a shipped name, a mapping or another recipe, apply overrides, and check it.

All problems are collected and raised together. Nothing outside the recipe is opened: data, model and devices are
checked where they are used. Paths in a recipe stay as written and are resolved from the working directory.
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
from fasttune.recipe.rules import TASKS_WITH, Conflict, conflicts, has
from fasttune.recipe.schema import FieldPath, Recipe
from fasttune.recipe.search_schema import Search
from fasttune.security import secrets

SUFFIXES = (".yaml", ".yml")
LARGEST_FILE = 1_000_000  # bytes; a recipe has about 1,000
STRUCTURE = ("[", "{", '"', "'", "!")  # an override that begins with one of these is YAML; others are plain values

Source = str | os.PathLike[str] | Mapping[str, Any] | Recipe
Overrides = Sequence[str] | Mapping[str, Any]


def load(source: Source, overrides: Overrides = ()) -> Recipe:
    """Load and check a recipe; raise RecipeError with all problems.

    `source` is a YAML file, the name of a shipped recipe, a nested mapping or a recipe. `overrides` are a list of
    `section.field=value` or a nested mapping; they replace the fields they name, and the last one wins. A value that
    begins with a bracket, a brace, a quotation mark or "!" is read as YAML, any other as one plain value, so
    `data.train=*.csv` needs no quotes.
    """
    problems: list[Problem] = []
    settings: dict[FieldPath, Setting] = {}
    values, origin, unreadable = _values(source)
    if isinstance(values, Mapping):
        collect(values, origin, settings, problems)
    elif values is not None:
        expected = "sections with names and values, such as 'data:' followed by '  train: reviews.csv'"
        where = origin.text.removesuffix(": ")
        unreadable.append(Problem(code="E312", where=where, found=shown_value(values), expected=expected))
    for override, override_origin in _overrides(overrides, problems):
        collect(override, override_origin, settings, problems)
    if unreadable:  # the rest of the file is unknown, so no field can be reported as missing
        raise RecipeError(*unreadable, *problems)
    recipe = _checked(settings, origin, problems)
    if problems:
        raise RecipeError(*problems)
    return recipe


def _checked(settings: dict[FieldPath, Setting], origin: Origin, problems: list[Problem]) -> Recipe:
    """Validate the fields, then the rules between them. A wrong field gets its default, so that rules still run."""
    errors: dict[FieldPath, set[str]] = {}  # the types of pydantic's errors
    try:
        recipe = Recipe.model_validate(nested({path: setting.value for path, setting in settings.items()}))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            errors.setdefault(_field_of(detail["loc"]), set()).add(detail["type"])
        good = {path: setting for path, setting in settings.items() if path not in errors}
        good.setdefault(TRAIN, Setting("starter", origin))
        recipe = Recipe.model_validate(nested({path: setting.value for path, setting in good.items()}))
    secret = {path for path, setting in settings.items() if secrets.holds_secret(setting.value)}  # already reported
    problems += [field_problem(path, settings.get(path), origin, errors[path]) for path in errors if path not in secret]
    for conflict in conflicts(recipe):
        if errors.keys().isdisjoint(conflict.paths):
            problems.append(_conflict_problem(conflict, settings))
    return recipe


def _conflict_problem(conflict: Conflict, settings: dict[FieldPath, Setting]) -> Problem:
    """Name the place of an override rather than of a line in the file: it is what the user has just typed."""
    written = [(path, settings[path].origin) for path in conflict.paths if path in settings]
    overridden = [(path, origin) for path, origin in written if not origin.in_file]
    path, origin = (overridden or written)[0]
    hint = origin.line(*conflict.fix)
    if conflict.alternative:
        hint += f"; or {conflict.alternative}"
    return Problem(
        code=conflict.code,
        where=origin.where(path),
        found=conflict.found,
        expected=conflict.expected,
        hint=hint,
    )


def _field_of(location: tuple[int | str, ...]) -> FieldPath:
    """The field of a pydantic error, whose location continues into lists and the members of unions."""
    return next(path for path in FIELDS if path == location[: len(path)])


def _values(source: Source) -> tuple[Any, Origin, list[Problem]]:
    if isinstance(source, Recipe):
        return source.model_dump(exclude_unset=True), Origin("recipe: "), []
    if isinstance(source, Mapping):
        return source, Origin("recipe: "), []
    name = os.fspath(source)
    if name in _shipped_names():
        _check_is_meant(name)
        text, name = shipped_text(name), f"{name}.yaml"
    else:
        text = _file_text(name)
    values, problems = yaml_text.read(text, _printable(name))
    return values, Origin(f"{_printable(name)}: ", in_file=True), problems


def _check_is_meant(name: str) -> None:
    """RecipeError if a file or folder has the name of a shipped recipe; a run folder is no data."""
    path = Path(name)
    if path.exists() and not (path / "recipe.yaml").exists():
        kind = "folder" if path.is_dir() else "file"
        found = f"the name of a shipped recipe and of a {kind} here: which one is meant?"
        hint = f"./{name} for the {kind}; for the recipe, work in another folder"
        raise RecipeError(Problem(code="E314", where=name, found=found, hint=hint))


def _printable(text: str) -> str:
    return text if text.isprintable() else shown(text)


def _file_text(name: str) -> str:
    where = _printable(name)
    path = Path(name)
    try:
        if not path.is_dir() and path.stat().st_size > LARGEST_FILE:
            found = f"the file has {path.stat().st_size:,} bytes; a recipe may have at most {LARGEST_FILE:,}"
            raise RecipeError(Problem(code="E312", where=where, found=found))
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
        reason = "no such file"
    elif isinstance(error, (IsADirectoryError, PermissionError)) and path.is_dir():
        reason = "it is a folder"
    else:
        reason = getattr(error, "strerror", None) or str(error)
    names = {shipped: shipped for shipped in _shipped_names()}
    try:
        folder = path.parent
        names |= {file.stem: str(folder / file.name) for file in folder.iterdir() if file.suffix in SUFFIXES}
    except (OSError, ValueError):
        pass
    near = nearest(path.stem, names)
    hint = f"did you mean {_printable(names[near])}?" if near else "'fasttune recipes' lists the shipped recipes"
    found = f"{reason}; the shipped recipes are {', '.join(_shipped_names())}"
    return Problem(code="E311", where=where, found=found, hint=hint)


def _overrides(overrides: Overrides, problems: list[Problem]) -> list[tuple[Mapping[str, Any], Origin]]:
    """Each override as a nested mapping, with its origin."""
    if isinstance(overrides, Mapping):
        return [(overrides, Origin("override "))]
    if isinstance(overrides, str):
        raise TypeError("overrides must be a list of 'section.field=value', not a single string")
    mappings = []
    for text in overrides:
        name, equals, written = text.partition("=")
        path = tuple(name.strip().split("."))
        origin = Origin(f"override {_shown_override(text, path)}", is_complete=True)
        if not equals or path[0].startswith("-") or not all(path):
            problems.append(_override_form(text, path, origin))
            continue
        value, value_problems = _override_value(written, path, origin)
        problems += value_problems
        if not value_problems:
            for key in reversed(path):
                value = {key: value}
            mappings.append((value, origin))
    return mappings


def _override_value(written: str, path: FieldPath, origin: Origin) -> tuple[Any, list[Problem]]:
    if written.startswith(STRUCTURE) and not _is_file_name(written, path):
        value, problems = yaml_text.read(written, origin.text)
        return value, [_in_override(problem, origin) for problem in problems]
    if takes_text(path) and written and (not written.strip() or written.strip() == "~"):
        return written, []  # a space as the label separator, or ~ for the home folder
    value = yaml_text.plain_value(written.strip())
    if value is not None and takes_text(path):
        return written, []  # a column may be called 2024, a folder true
    return value, []


def _is_file_name(written: str, path: FieldPath) -> bool:
    """Whether a value that begins like a YAML list is a file name, such as [a].csv."""
    return path[0] == "data" and written[0] == "[" and "]" in written and not written.rstrip().endswith("]")


def _in_override(problem: Problem, origin: Origin) -> Problem:
    """A YAML problem in terms of the command line, which has no file and no line numbers."""
    if problem.code != "E312":
        return replace(problem, where=origin.text)
    expected = "one value, such as 3, word, [a, b] or {a: b}"
    hint = "close every bracket and quotation mark; the shell removes one pair of quotes"
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
        hint = f"did you mean {near}=...?" if near else "write, for example, training.learning_rate=3e-5"
    return Problem(code="E316", where=origin.text, found="not of the form section.field=value", hint=hint)


def _shown_override(text: str, path: FieldPath) -> str:
    """The override as typed, with secrets masked, escaped and shortened."""
    name, _, value = text.partition("=")
    if any(secrets.is_secret_name(key) for key in path):
        value = "***"
    text = secrets.without_secrets(f"{name}={value}" if value else text)
    return text if text.isprintable() and len(text) <= 80 else shown(text)


def dump(recipe: Recipe) -> str:
    """The complete recipe as YAML, with the defaults of its task's settings; `load` reads the same recipe from it.

    `search` is left out unless it says something, since it concerns one command only.
    """
    content = recipe.model_dump()
    if recipe.search == Search():
        del content["search"]
    for path in TASKS_WITH:
        *sections, name = path
        if not has(recipe.task, path):
            del reduce(getitem, sections, content)[name]
    return yaml_text.write(content)


def digest(recipe: Recipe) -> str:
    """The sha256 of `dump`: equal recipes have equal digests."""
    return hashlib.sha256(dump(recipe).encode()).hexdigest()


def is_recipe_name(source: str | os.PathLike[str]) -> bool:
    """Whether a source that does not exist was meant as a recipe: a YAML file, or a misspelt shipped name.

    The cutoff keeps `yelp_review_full`, a data set, apart from `yelp-full`.
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
    """The recipes that come with fasttune, each with its purpose (the first line of the file)."""
    return {name: shipped_text(name).splitlines()[0].lstrip("# ") for name in _shipped_names()}


def shipped_text(name: str) -> str:
    """The text of a shipped recipe, comments included."""
    if name not in _shipped_names():
        raise RecipeError(_no_file(name, _printable(name), FileNotFoundError()))
    return importlib.resources.files("fasttune.recipe").joinpath("shipped", f"{name}.yaml").read_text("utf-8")


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """The fields in which two recipes differ: dotted path -> (old value, new value)."""
    values = {path: (_get(old, path), _get(new, path)) for path in FIELDS}
    return {dotted(path): (before, after) for path, (before, after) in values.items() if before != after}


def _get(recipe: Recipe, path: FieldPath) -> Any:
    value: Any = recipe
    for name in path:
        value = getattr(value, name)
    return value
