"""The definition of a dataset: a YAML file that names its files, columns and splits, and the changes to make.

dataset: reviews            files, or `from` with another definition, are required; the rest is optional
version: 1.1.0
description: Reviews of hotels.
files: {train: data/*.csv}
columns: {text: Review, label: Stars}
map_labels: {"1": bad, "2": bad, "4": good, "5": good}
drop_labels: ["3"]
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, Strict, ValidationError

from fasttune.errors import Problem, RecipeError, nearest, shown
from fasttune.recipe import yaml_text
from fasttune.recipe.section import Section
from fasttune.recipe.types import Count, Header, Number, Seed, Text, Texts, check_encoding

SPLITS = ("train", "validation", "test")


def _words(value: object) -> object:
    """Convert labels to strings, because YAML may have read them as numbers or booleans."""
    if isinstance(value, list):
        return [_words(item) for item in value]
    if isinstance(value, dict):
        return {_words(key): _words(item) for key, item in value.items()}
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Labels = Annotated[list[Text], BeforeValidator(_words)]
LabelTable = Annotated[dict[Text, Text], BeforeValidator(_words)]


class Filter(Section):
    """Keeps a row if its `column` meets all given conditions."""

    column: Text
    min_characters: Count | None = Field(None, description="The minimum number of characters.")
    max_characters: Count | None = Field(None, description="The maximum number of characters.")
    matches: Text | None = Field(None, description="A regular expression to find in the text.")
    one_of: Labels | None = Field(None, description="The allowed values.")


class Added(Section):
    """Labels the rows whose `column` matches a regular expression; if several match, the first one counts."""

    label: Text
    column: Text
    matches: Text


class Resplit(Section):
    """Replaces the splits with new ones, stratified by label, or separated by group or time."""

    validation_fraction: Number = Field(0.1, ge=0, lt=1)
    test_fraction: Number = Field(0.1, ge=0, lt=1)
    seed: Seed = 42
    group: Text | None = None
    time: Text | None = None


class Definition(Section):
    """A dataset. Paths are relative to the definition file; changes are made in the order of these fields."""

    dataset: Text = Field(description="The name of the dataset.")
    version: Text = Field("1.0.0", description="The version of the dataset, chosen by its author.")
    description: str = Field("", description="What the dataset contains, for the card.")
    licence: Text | None = Field(None, description="The hub's name of the licence, such as cc-by-4.0.")
    language: Text | None = Field(None, description="The hub's code of the language, such as en or zh.")
    files: dict[Text, Text | Texts] | None = Field(None, description="Split -> files, globs or addresses.")
    source: Text | None = Field(None, alias="from", description="Another definition, whose rows to start from.")
    encoding: Annotated[Text, AfterValidator(check_encoding)] | None = Field(
        None, description="The encoding of text files that are not UTF-8."
    )
    header: Header = Field("auto", description="Whether CSV and TSV files have a header: true, false or auto.")
    columns: dict[Text, Text] | None = Field(None, description="New name -> column; default: all columns, unchanged.")
    label: Text = Field("label", description="The label column, by its new name.")
    add_labels: list[Added] = Field(default_factory=list, description="Labels to assign by matching a text.")
    drop_labels: Labels = Field(default_factory=list, description="Labels whose rows to remove.")
    map_labels: LabelTable = Field(
        default_factory=dict, description="Old label -> new label; labels with the same new name are merged."
    )
    filters: list[Filter] = Field(default_factory=list, description="Conditions that rows must meet.")
    drop_duplicates: Annotated[bool, Strict()] = Field(
        False, description="Keep only one of the rows that are identical in all columns."
    )
    resplit: Resplit | None = Field(None, description="Draw new splits.")


def load(path: Path) -> Definition:
    """Read a definition; RecipeError lists everything that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise RecipeError(
            Problem(code="E311", where=str(path), found=found, expected="a dataset definition in YAML and UTF-8")
        ) from None
    values, problems = yaml_text.read(text, str(path))
    if problems:
        raise RecipeError(*problems)
    if not isinstance(values, dict) or "dataset" not in values:
        found, hint = (
            "a dataset definition needs the entry 'dataset'",
            "dataset: NAME, and below it files: {train: FILE}",
        )
        raise RecipeError(Problem(code="E317", where=str(path), found=found, hint=hint))
    try:
        made = Definition.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise RecipeError(*dict.fromkeys(_problem(detail, path) for detail in details)) from None
    wrong = list(_contradictions(made, path))
    if wrong:
        raise RecipeError(*wrong)
    return made


def _problem(detail: Any, path: Path) -> Problem:
    # Parts in brackets are pydantic's names for the types in a union.
    place = ".".join(str(part) for part in detail["loc"] if not re.search(r"[\[(]", str(part)))
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])
        near = nearest(name, _names_beside(detail["loc"][:-1]))
        hint = f"did you mean {near}?" if near else ""
        return Problem(code="E317", where=f"{path}: {place}", found="unknown entry", hint=hint)
    if detail["type"] == "missing":
        return Problem(code="E317", where=f"{path}: {place}", found="this entry is required")
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    hint = f'{detail["loc"][-1]}: "{detail["input"]}"' if detail["type"] == "string_type" else ""
    found = shown(detail["input"])
    return Problem(code="E317", where=f"{path}: {place}", found=found, expected=expected, hint=hint)


def _names_beside(place: tuple[int | str, ...]) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {"filters": Filter, "add_labels": Added, "resplit": Resplit}
    kind = kinds.get(str(place[0]), Definition) if place else Definition
    return [field.alias or name for name, field in kind.model_fields.items()]


def _contradictions(made: Definition, path: Path) -> list[Problem]:
    problems = []
    if made.source is not None and (made.encoding is not None or made.header != "auto"):
        found = "encoding and header belong in the definition that names the files, not beside from"
        problems.append(Problem(code="E317", where=str(path), found=found))
    if made.resplit is not None and made.resplit.group is not None and made.resplit.time is not None:
        found = "group and time cannot be combined"
        problems.append(Problem(code="E317", where=f"{path}: resplit", found=found))
    for number, condition in enumerate(made.filters):
        if len(condition.model_dump(exclude_none=True)) == 1:
            found = "the filter needs min_characters, max_characters, matches or one_of"
            problems.append(Problem(code="E317", where=f"{path}: filters.{number}", found=found))
    if (made.files is None) == (made.source is None):
        found = "both files and from" if made.files is not None else "neither files nor from"
        problems.append(Problem(code="E317", where=str(path), found=found, expected="one of the two"))
    unknown = [split for split in made.files or () if split not in SPLITS]
    if unknown:
        expected = f"one of {', '.join(SPLITS)}"
        problems.append(Problem(code="E317", where=f"{path}: files", found=shown(unknown[0]), expected=expected))
    if made.files is not None and not unknown and "train" not in made.files:
        problems.append(Problem(code="E317", where=f"{path}: files", found="the split train is required"))
    return problems
