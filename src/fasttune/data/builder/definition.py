"""What a data set is: a YAML file that names its files, columns, splits and the changes made to them.

dataset: reviews            files or `from`, another definition, are required; the rest may be left out
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
    """Labels are compared as texts; YAML may have read them as numbers or truth values."""
    if isinstance(value, list):
        return [_words(one) for one in value]
    if isinstance(value, dict):
        return {_words(name): _words(one) for name, one in value.items()}
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Labels = Annotated[list[Text], BeforeValidator(_words)]
LabelTable = Annotated[dict[Text, Text], BeforeValidator(_words)]


class Filter(Section):
    """A row is kept where its `column` fits all that is given."""

    column: Text
    min_characters: Count | None = Field(None, description="At least so many characters.")
    max_characters: Count | None = Field(None, description="At most so many characters.")
    matches: Text | None = Field(None, description="A regular expression that occurs in the text.")
    one_of: Labels | None = Field(None, description="One of these values.")


class Added(Section):
    """A label that rows get whose `column` matches a regular expression; the first that fits, in their order."""

    label: Text
    column: Text
    matches: Text


class Resplit(Section):
    """Forget the splits there are, and draw new ones: stratified by label, or with groups or times kept apart."""

    validation_fraction: Number = Field(0.1, ge=0, lt=1)
    test_fraction: Number = Field(0.1, ge=0, lt=1)
    seed: Seed = 42
    group: Text | None = None
    time: Text | None = None


class Definition(Section):
    """Paths count from the folder of the file. Changes are made in the order of these fields."""

    dataset: Text = Field(description="The name.")
    version: Text = Field("1.0.0", description="Of the data set, as its author counts.")
    description: str = Field("", description="What the rows are, for the card.")
    licence: Text | None = Field(None, description="As the hub names it, such as cc-by-4.0.")
    language: Text | None = Field(None, description="As the hub names it, such as en or zh.")
    files: dict[Text, Text | Texts] | None = Field(None, description="Split -> files, globs or addresses.")
    source: Text | None = Field(None, alias="from", description="Another definition, whose rows are taken.")
    encoding: Annotated[Text, AfterValidator(check_encoding)] | None = Field(
        None, description="Of text files that are not UTF-8."
    )
    header: Header = Field("auto", description="Whether CSV and TSV files name their columns: true, false or auto.")
    columns: dict[Text, Text] | None = Field(None, description="New name -> column; left out: all as they are.")
    label: Text = Field("label", description="The column that label changes are for, by its new name.")
    add_labels: list[Added] = Field(default_factory=list, description="Labels by what a text holds.")
    drop_labels: Labels = Field(default_factory=list, description="Rows with these labels are left out.")
    map_labels: LabelTable = Field(default_factory=dict, description="Old label -> new; two with one name are merged.")
    filters: list[Filter] = Field(default_factory=list, description="What rows must be like.")
    drop_duplicates: Annotated[bool, Strict()] = Field(
        False, description="Of rows that are the same in all columns only the first stays."
    )
    resplit: Resplit | None = Field(None, description="New splits.")


def load(path: Path) -> Definition:
    """RecipeError lists everything that is wrong with the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise RecipeError(
            Problem(code="E311", where=str(path), found=found, expected="a definition of a data set, in YAML and UTF-8")
        ) from None
    values, problems = yaml_text.read(text, str(path))
    if problems:
        raise RecipeError(*problems)
    if not isinstance(values, dict) or "dataset" not in values:
        expected, hint = "a definition of a data set", "dataset: NAME, and below it files: {train: FILE}"
        found = "no entry 'dataset'"
        raise RecipeError(Problem(code="E317", where=str(path), found=found, expected=expected, hint=hint))
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
    # Parts in brackets are pydantic's names of the forms that a value may have.
    place = ".".join(str(part) for part in detail["loc"] if not re.search(r"[\[(]", str(part)))
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])
        near = nearest(name, _names_beside(detail["loc"][:-1]))
        hint = f"did you mean {near}?" if near else ""
        return Problem(code="E317", where=f"{path}: {place}", found="no such entry", expected="a known one", hint=hint)
    if detail["type"] == "missing":
        return Problem(code="E317", where=f"{path}: {place}", found="nothing", expected="a value: it is required")
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
        expected = "them in the definition that names the files"
        problems.append(Problem(code="E317", where=str(path), found="encoding or header with from", expected=expected))
    if made.resplit is not None and made.resplit.group is not None and made.resplit.time is not None:
        expected = "one of them to split by"
        problems.append(Problem(code="E317", where=f"{path}: resplit", found="group and time", expected=expected))
    for number, one in enumerate(made.filters):
        if len(one.model_dump(exclude_none=True)) == 1:
            expected = "min_characters, max_characters, matches or one_of"
            at = f"{path}: filters.{number}"
            problems.append(Problem(code="E317", where=at, found="a column and nothing to fit", expected=expected))
    if (made.files is None) == (made.source is None):
        found = "both files and from" if made.files is not None else "neither files nor from"
        problems.append(Problem(code="E317", where=str(path), found=found, expected="one of them"))
    unknown = [split for split in made.files or () if split not in SPLITS]
    if unknown:
        expected = f"one of {', '.join(SPLITS)}"
        problems.append(Problem(code="E317", where=f"{path}: files", found=shown(unknown[0]), expected=expected))
    if made.files is not None and not unknown and "train" not in made.files:
        problems.append(Problem(code="E317", where=f"{path}: files", found="no train", expected="files to train on"))
    return problems
