"""A run that makes no progress any more is ended, with what every thread was doing, instead of waiting for ever."""

from __future__ import annotations

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from fasttune.errors import EnvironmentProblem
from fasttune.training.alerts import alert
from fasttune.training.events import Event, StepDone

LEAST, FACTOR = 60.0, 10.0  # seconds, and times the median step
# Seconds for what has no steps to measure by: the first step, scoring, observers, the disk, windows of a stream.
PATIENCE = 600.0
STEPS = 50  # of which the median is taken
TICK = 1.0  # seconds


class Watchdog:
    """While entered, ends the process when `alive`, `expect` or `step` is not called in time.

    `report`: the file to write, None for a watchdog that sleeps. `at_hand` says what was being done. `is_steady`:
    whether the rows are at hand, so that a step waits for nothing else. Every process has its own, so all of them end.
    In a notebook the report is written and nothing is ended.
    """

    def __init__(self, report: Path | None = None, at_hand: Callable[[], str] = str, is_steady: bool = True):
        self.report, self.at_hand, self.least = report, at_hand, LEAST if is_steady else PATIENCE
        self.recent: deque[float] = deque(maxlen=STEPS)
        self.limit, self.waited = PATIENCE, 0.0
        self.left = threading.Event()

    def __enter__(self) -> Watchdog:
        if self.report is not None:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left.set()

    def step(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.recent.append(event.seconds)
        self.alive()

    def alive(self) -> None:
        """Something was done; the next thing may take as long as usual."""
        self.expect(max(self.least, FACTOR * statistics.median(self.recent)) if self.recent else PATIENCE)

    def expect(self, seconds: float) -> None:
        """Something was done; the next thing may take so long."""
        self.limit, self.waited = max(seconds, self.least), 0.0

    def _watch(self) -> None:
        last = time.monotonic()
        while not self.left.wait(TICK):
            now = time.monotonic()
            # A process that was stopped and continued (Ctrl-Z, a suspended machine) did not hang meanwhile.
            self.waited += min(now - last, 2 * TICK)
            last = now
            if self.waited > self.limit:
                self._end()
                return

    def _end(self) -> None:
        assert self.report is not None
        try:
            at_hand = self.at_hand()
        except Exception as error:  # nothing may keep a hang from being ended
            at_hand = f"what was at hand cannot be told ({type(error).__name__})"
        about = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: no progress for {self.waited:.0f} s, {at_hand}"
        try:
            self.report.parent.mkdir(parents=True, exist_ok=True)
            with self.report.open("a", encoding="utf-8") as file:
                file.write(about + "\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            where = f"what every thread was doing: {self.report}"
        except OSError as error:
            where = f"no report: {error}"
        text = f"error: {about}\n  {where}\n  go on with the same command and --resume\n"
        # Whoever reads stderr may be what hangs.
        teller = threading.Thread(target=os.write, args=(2, text.encode()), daemon=True)
        teller.start()
        teller.join(1.0)
        alert("fasttune: a run hangs", about)
        if "ipykernel" not in sys.modules:
            os._exit(EnvironmentProblem.exit_code)


ASLEEP = Watchdog()
