"""`--restarts N`: a run that something outside ended (a scheduler's signal, the kernel for lack of memory) goes on.

Errors, divergence and hangs are for a person to look at, and end it as they would have.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from fasttune.signals import STOPS

# SIGINT comes from a person. What ends a run after a safe save has 128 added to its number.
FROM_OUTSIDE = tuple(number for number in STOPS if number != signal.SIGINT)
ENDED_FROM_OUTSIDE = {
    -signal.SIGKILL,
    *(-number for number in FROM_OUTSIDE),
    *(128 + number for number in FROM_OUTSIDE),
}


def with_restarts(arguments: Sequence[str], most: int, say: Callable[[str], None]) -> int:
    """Run `fasttune ARGUMENTS` in a process of its own, and with --resume again at most `most` times; its exit code.

    A signal that comes here is handed on, and ends it for good.
    """
    command = [sys.executable, "-m", "fasttune", *arguments]
    told: int | None = None
    waiting: int | None = None  # came when there was nobody to hand it on to
    process: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal told, waiting
        told = number
        if process is None or process.returncode is not None:
            waiting = number
        else:
            process.send_signal(number)

    previous = {number: signal.signal(number, hand_on) for number in STOPS}
    try:
        for number in range(most + 1):
            # In a session of its own: a terminal's Ctrl-C comes here alone, and once.
            process = subprocess.Popen(command, start_new_session=True)
            if waiting is not None:
                process.send_signal(waiting)
            code = process.wait()
            if told is not None or code not in ENDED_FROM_OUTSIDE or number == most:
                break
            say(f"ended from outside (exit code {code}): restart {number + 1} of {most}")
            command += [] if "--resume" in command else ["--resume"]
    finally:
        for signal_number, handler in previous.items():
            signal.signal(signal_number, handler)
    return code if code >= 0 else 128 - code
