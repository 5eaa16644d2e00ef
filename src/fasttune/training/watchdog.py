"""Ends a run that makes no progress, with a stack trace of every thread, instead of hanging for ever."""

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

# A step may take FACTOR times the median step, and at least MIN_SECONDS.
MIN_SECONDS, FACTOR = 60.0, 10.0
# Seconds for whatever has no median: the first step, scoring, observers, the disk, windows of a stream.
PATIENCE = 600.0
STEPS = 50  # recent ones, for the median
TICK = 1.0  # seconds between checks


class Watchdog:
    """While entered, ends the process if `alive`, `expect` or `step` is not called in time.

    `report`: the file to write; None for a watchdog that never barks. `position` describes where training is.
    `is_steady`: rows are in memory, so that a step waits for nothing else. Each rank has its own watchdog, so all of
    them end. In a notebook it writes the report and ends nothing.
    """

    def __init__(self, report: Path | None = None, position: Callable[[], str] = str, is_steady: bool = True):
        self.report, self.position = report, position
        self.min_seconds = MIN_SECONDS if is_steady else PATIENCE
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
        """Report progress; the next operation may take as long as usual."""
        self.expect(max(self.min_seconds, FACTOR * statistics.median(self.recent)) if self.recent else PATIENCE)

    def expect(self, seconds: float) -> None:
        """Report progress; the next operation may take `seconds`."""
        self.limit, self.waited = max(seconds, self.min_seconds), 0.0

    def _watch(self) -> None:
        last = time.monotonic()
        while not self.left.wait(TICK):
            now = time.monotonic()
            # Time in which the process was stopped (Ctrl-Z, a suspended machine) does not count.
            self.waited += min(now - last, 2 * TICK)
            last = now
            if self.waited > self.limit:
                self._end()
                return

    def _end(self) -> None:
        assert self.report is not None
        try:
            position = self.position()
        except Exception as error:  # a hang must end whatever else fails
            position = f"at an unknown position ({type(error).__name__})"
        about = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: no progress for {self.waited:.0f} s, {position}"
        try:
            self.report.parent.mkdir(parents=True, exist_ok=True)
            with self.report.open("a", encoding="utf-8") as file:
                file.write(about + "\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            where = f"stack traces of all threads: {self.report}"
        except OSError as error:
            where = f"could not write a report: {error}"
        text = f"error: {about}\n  {where}\n  hint: resume with the same command and --resume\n"
        # In a thread, because the reader of stderr may be what hangs.
        writer = threading.Thread(target=os.write, args=(2, text.encode()), daemon=True)
        writer.start()
        writer.join(1.0)
        alert("fasttune: a run hangs", about)
        if "ipykernel" not in sys.modules:
            os._exit(EnvironmentProblem.exit_code)


ASLEEP = Watchdog()
