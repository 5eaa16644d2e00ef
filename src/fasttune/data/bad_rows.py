"""Rows of a stream that cannot be learned from, met when training is on its way: left out, up to a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fasttune.errors import DataError, Problem


@dataclass
class BadRows:
    """`most`: how many different rows may be left out. `found`: where each stands -> what is wrong with it."""

    most: int = 0
    found: dict[str, str] = field(default_factory=dict)

    def note(self, error: DataError) -> None:
        """Leave one row out; the error itself where that is one too many."""
        problem = error.problems[0]
        if problem.where not in self.found and len(self.found) >= self.most:
            raise DataError(*(self._with_hint(one) for one in error.problems)) from None
        self.found[problem.where] = f"{problem.code} found {problem.found}"

    def good(self, rows: Sequence[int], check: Callable[[Sequence[int]], object]) -> list[int]:
        """Those of `rows` that `check` finds nothing wrong with; the others are noted one by one."""
        try:
            check(rows)
        except DataError as error:
            if not self.most:
                raise
            if len(rows) == 1:
                self.note(error)
                return []
            half = len(rows) // 2
            return self.good(rows[:half], check) + self.good(rows[half:], check)
        return list(rows)

    def _with_hint(self, problem: Problem) -> Problem:
        more = f"data.max_bad_rows={2 * self.most}, where more than these {self.most} may be left out"
        return replace(problem, hint=f"{problem.hint}; {more}" if problem.hint else more) if self.most else problem
