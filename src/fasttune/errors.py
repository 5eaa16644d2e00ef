"""The errors that fasttune raises, and their exit codes.

    Error                      70  a bug in fasttune
    +-- UsageError              2  the command line
    +-- RecipeError             3  a recipe or a key=value override
    +-- DataError               4  a data file, a column, a label
    +-- EnvironmentProblem      5  a model, a device, a disk, a missing package
    |   +-- CheckpointError     5  an unusable checkpoint or run folder
    +-- DivergedError           6  the loss or a gradient is no longer finite

Every error holds one or more problems. A problem says where it is, what is wrong, and as `hint` the line to type.
Everything that can be checked together is reported together: collect problems, then raise once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fasttune.security import floors
from fasttune.security.text import printable

SHOWN_CHARACTERS = 80  # of a user's value in a message


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    `where` is a place the user can open (`reviews.csv row 17, column 'label'`, `recipe.yaml: training.learning_rate`).
    `found` is the wrong value and `expected` what belongs there; without `expected`, `found` is a sentence of its own.
    `code` names the kind of problem (`E202`) and is stable across releases. `preview`: lines of data to decide by.
    """

    where: str
    found: str
    expected: str = ""
    hint: str = ""
    code: str = ""
    preview: tuple[str, ...] = ()

    def __str__(self) -> str:
        code = f"{self.code} " if self.code else ""
        where, found, expected, hint = map(printable, (self.where, self.found, self.expected, self.hint))
        text = f"{code}{where}: " + (f"found {found}, expected {expected}" if expected else found)
        text = "\n    ".join([text, *map(printable, self.preview)])
        return f"{text}\n  hint: {hint}" if hint else text


class Error(Exception):
    """The root of all errors that fasttune raises on purpose."""

    exit_code = 70
    reported_by_main = False  # True on a rank whose error rank 0 reports too

    def __init__(self, *problems: Problem):
        if not problems:
            raise ValueError("an error needs at least one problem")
        self.problems = problems
        super().__init__(*problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return "\n".join([f"{len(self.problems)} problems", *(str(problem) for problem in self.problems)])


class UsageError(Error):
    exit_code = 2


class RecipeError(Error):
    exit_code = 3


class DataError(Error):
    exit_code = 4


class EnvironmentProblem(Error):
    exit_code = 5


class CheckpointError(EnvironmentProblem):
    pass


class DivergedError(Error):
    exit_code = 6


def require_safe(*packages: str) -> None:
    """EnvironmentProblem if a package is older than its first release that reads untrusted files safely."""
    problems = [
        Problem(
            code="E504",
            where=f"package {name}",
            found=f"version {floors.version_of(name)}, in which a file can run code",
            expected=f"{floors.FLOORS[name]} or newer",
            hint=f"pip install '{name}>={floors.FLOORS[name]}'",
        )
        for name in packages
        if floors.is_too_old(name)
    ]
    if problems:
        raise EnvironmentProblem(*problems)


def as_json(error: Error) -> dict[str, Any]:
    """The error as JSON for another process; `from_json` is the inverse."""
    return {"kind": type(error).__name__, "problems": [asdict(problem) for problem in error.problems]}


def from_json(content: Mapping[str, Any]) -> Error:
    """The error that `as_json` was given, of the same class."""
    kinds: list[type[Error]] = [Error, *_subclasses(Error)]
    kind = next(kind for kind in kinds if kind.__name__ == content["kind"])
    problems = ({**problem, "preview": tuple(problem["preview"])} for problem in content["problems"])
    return kind(*(Problem(**problem) for problem in problems))


def _subclasses(kind: type[Error]) -> Iterator[type[Error]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def shown(value: object) -> str:
    """A user's value for a message: quoted, on one line, control characters escaped, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 4] + " ..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most similar to `word`, ignoring case, or None."""
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, or ""."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near is not None else ""
