"""Signals that ask for a stop: SIGINT, SIGTERM, SIGUSR1. Before and after training they stop at once; while it runs
they are noted, and it stops at the next step boundary, when its state is saved. SIGHUP (a lost terminal) stops nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(BaseException):
    """A signal asked for a stop where nothing has to be saved first. No `except Exception` keeps it from its way up."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(words(number))


class Interrupted(Exception):
    """A signal was noted while something ran that is done again when the run goes on."""


_noted: int | None = None  # the first signal since `caught` was entered
_depth = 0  # how many `deferred` blocks are entered


def words(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"


def pending() -> int | None:
    """The number of the signal that was noted, or None."""
    return _noted


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    asked_again = _noted is not None and number == signal.SIGINT
    _noted = _noted or number
    if asked_again or not _depth:
        raise Stopped(_noted)


@contextmanager
def caught() -> Iterator[None]:
    """Within, the signals raise Stopped; outside the main thread Python allows no handlers, and nothing changes."""
    global _noted
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = dict.fromkeys(STOPS, _note)
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = lambda number, frame: None
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    told, sys.unraisablehook = sys.unraisablehook, _raise_again(sys.unraisablehook)
    is_outermost = previous[signal.SIGINT] is not _note
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = told
        if is_outermost:
            _noted = None


def _raise_again(otherwise: Callable[[sys.UnraisableHookArgs], object]) -> Callable[[sys.UnraisableHookArgs], None]:
    """For an exception that Python drops, as it does in a finaliser: the signal comes again a moment later."""

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        global _noted
        if isinstance(dropped.exc_value, Stopped):
            number, _noted = dropped.exc_value.number, None
            threading.Timer(0.01, signal.raise_signal, [number]).start()
        else:
            otherwise(dropped)

    return hook


@contextmanager
def deferred() -> Iterator[None]:
    """Within, the first signal is only noted; a second SIGINT stops at once all the same."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def silence(descriptor: int) -> None:
    """Whoever read this stream is gone: what is still written to it goes nowhere, and no further write fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
