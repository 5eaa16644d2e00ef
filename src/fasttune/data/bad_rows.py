"""Skip bad rows that are found while a stream trains, up to a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fasttune.errors import DataError, Problem


@dataclass
class BadRows:
    """The bad rows so far: at most `most` may be skipped. `found`: the place of each -> what is wrong with it."""

    most: int = 0
    found: dict[str, str] = field(default_factory=dict)

    def note(self, error: DataError) -> None:
        """Record a row to skip; raise the error itself if that exceeds the limit."""
        problem = error.problems[0]
        if problem.where not in self.found and len(self.found) >= self.most:
            raise DataError(*(self._with_hint(each) for each in error.problems)) from None
        found = f"found {problem.found}" if problem.expected else problem.found
        self.found[problem.where] = f"{problem.code} {found}"

    def good(self, rows: Sequence[int], check: Callable[[Sequence[int]], object]) -> list[int]:
        """Return the `rows` that `check` accepts, and record the others one by one."""
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
        if not self.most:
            return problem
        more = f"data.max_bad_rows={2 * self.most} to skip more than {self.most} bad rows"
        return replace(problem, hint=f"{problem.hint}; {more}" if problem.hint else more)
