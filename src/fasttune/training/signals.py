"""Signals that ask for a stop: SIGINT, SIGTERM, SIGUSR1.

Before and after training they stop the program at once. During training they are noted: it stops at the next step
boundary, after its state is saved. SIGHUP (a lost terminal) stops nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(BaseException):
    """A signal asked for a stop while nothing needs saving. A BaseException, so that no `except Exception` keeps it."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(words(number))


class Interrupted(Exception):
    """A signal was noted during work that a resumed run does again, such as an evaluation."""


_noted: int | None = None  # the first signal since `caught` was entered
_depth = 0  # of nested `deferred` blocks
_since: float | None = None  # when the outermost `caught` was entered


def words(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"


def began() -> float:
    """When the command began, or the call of `fit` in a program, by `time.perf_counter`."""
    return time.perf_counter() if _since is None else _since


def pending() -> int | None:
    """The number of the signal that was noted, or None."""
    return _noted


def check() -> None:
    """Raise Stopped if a signal was noted: Python drops exceptions that a handler raises during a finaliser."""
    if _noted is not None:
        raise Stopped(_noted)


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    is_second_ctrl_c = _noted is not None and number == signal.SIGINT
    _noted = _noted or number
    if is_second_ctrl_c or not _depth:
        raise Stopped(_noted)


@contextmanager
def caught() -> Iterator[None]:
    """Within the context the signals raise Stopped. No effect outside the main thread, which has no handlers."""
    global _noted, _since
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = dict.fromkeys(STOPS, _note)
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = lambda number, frame: None
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    is_outermost = previous[signal.SIGINT] is not _note
    if is_outermost:
        _since = time.perf_counter()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if is_outermost:
            _noted = _since = None


@contextmanager
def deferred() -> Iterator[None]:
    """Within the context the first signal is only noted; a second SIGINT still stops at once."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def silence(descriptor: int) -> None:
    """Redirect a stream whose reader is gone to the null device, so that no further write fails."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
