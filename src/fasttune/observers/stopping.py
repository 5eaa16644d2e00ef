"""Reasons to stop before the last step: no improvement, or a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

from fasttune.engine.events import Evaluated, Event, Started
from fasttune.engine.loop import TrainState

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class EarlyStopping:
    """Stop after `patience` evaluations in a row without a better `metric`.

    It keeps nothing of its own: the state's evaluations are the memory, so resume continues the count by itself.
    """

    def __init__(self, metric: str, patience: int, state: TrainState):
        self.metric, self.patience, self.state = metric, patience, state

    def __call__(self, event: Event) -> str | None:
        if not isinstance(event, Evaluated | Started):  # a run may have been killed between the count and the stop
            return None
        waited = evaluations_since_best(self.state.evaluations, self.state.best(self.metric))
        if waited < self.patience:
            return None
        return f"{self.metric} has not improved for {waited} evaluations"


def evaluations_since_best(evaluations: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> int:
    return 0 if best is None else sum(evaluation["step"] > best["step"] for evaluation in evaluations)


class StopOnSignal:
    """While entered, SIGINT, SIGTERM and SIGUSR1 ask for a stop after the current step; a second SIGINT stops at once.

    `number` is the signal that came, or None. Outside the main thread Python allows no handlers, and none are set.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    def __call__(self, event: Event) -> str | None:
        return f"stopped by {signal.Signals(self.number).name}" if self.number else None
