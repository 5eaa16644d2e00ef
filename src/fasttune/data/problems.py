"""Collect the problems of one data source, so that they are raised together; name and count rows in messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fasttune.errors import DataError, Problem

MAX_PROBLEMS = 20  # per source: a file with the wrong delimiter has a problem in every row
ROWS_SHOWN = 5  # of the rows that share a problem


class CutError(DataError):
    """The first MAX_PROBLEMS of `num_problems`, and one more problem with the number that was cut."""

    def __init__(self, *problems: Problem, num_problems: int):
        super().__init__(*problems)
        self.num_problems = num_problems


class Problems:
    """The problems of a source: keeps the first MAX_PROBLEMS and counts the rest."""

    def __init__(self, where: str):
        self.where = where
        self.kept: list[Problem] = []
        self.num = 0

    def __len__(self) -> int:
        return self.num

    def add(self, *problems: Problem) -> None:
        for problem in problems:
            self.num += 1
            if len(self.kept) < MAX_PROBLEMS:
                self.kept.append(problem)

    def lead(self, problem: Problem) -> None:
        """Put a problem that summarises the others in front of them."""
        self.num += 1
        self.kept = [problem, *self.kept][:MAX_PROBLEMS]

    def add_error(self, error: DataError) -> None:
        if isinstance(error, CutError):
            self.add(*error.problems[:-1])
            self.num += error.num_problems - len(error.problems[:-1])
        else:
            self.add(*error.problems)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect a DataError raised inside, and continue after the block."""
        try:
            yield
        except DataError as error:
            self.add_error(error)

    def raise_if_any(self) -> None:
        if not self.num:
            return
        num_cut = self.num - len(self.kept)
        if num_cut:
            last = Problem(where=self.where, found=counted(num_cut, "more problem"))
            raise CutError(*self.kept, last, num_problems=self.num)
        raise DataError(*self.kept)


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def row_name(index: int) -> str:
    """The name of a row if nothing is known about its file: counted from 1."""
    return f"row {index + 1}"


def some_of(names: list[str], limit: int = ROWS_SHOWN) -> str:
    """The first few of a list, for a message: `row 5, row 9, ...`."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
