"""Skip unusable rows of a stream during training, up to a maximum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fasttune.errors import DataError, Problem


@dataclass
class BadRows:
    """`most`: the maximum number of rows to skip. `found`: the skipped rows, place -> reason."""

    most: int = 0
    found: dict[str, str] = field(default_factory=dict)

    def note(self, error: DataError) -> None:
        """Skip the row of an error, or raise the error if the maximum is reached."""
        problem = error.problems[0]
        if problem.where not in self.found and len(self.found) >= self.most:
            raise DataError(*(self._with_hint(problem) for problem in error.problems)) from None
        found = f"found {problem.found}" if problem.expected else problem.found
        self.found[problem.where] = f"{problem.code} {found}"

    def good(self, rows: Sequence[int], check: Callable[[Sequence[int]], object]) -> list[int]:
        """The rows for which `check` raises no DataError; skips the others one by one, found by bisection."""
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
        more = f"data.max_bad_rows={2 * self.most} to skip more than {self.most} rows"
        return replace(problem, hint=f"{problem.hint}; {more}" if problem.hint else more) if self.most else problem
