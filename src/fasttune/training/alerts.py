"""Alerts to a person when a run ends, fails or hangs, sent by apprise.

The addresses contain passwords, so they come from the environment only: FASTTUNE_ALERTS, separated by blanks.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading

from fasttune.errors import Error
from fasttune.parallel.collectives import is_main
from fasttune.security.secrets import without_secrets
from fasttune.security.text import write_line

VARIABLE = "FASTTUNE_ALERTS"
MAX_SECONDS = 20.0  # to wait for a service that does not answer


def alert(title: str, text: str) -> str | None:
    """Send to all addresses. Returns what went wrong, without the addresses, or None."""
    addresses = os.environ.get(VARIABLE, "").split()
    if not addresses:
        return None
    if importlib.util.find_spec("apprise") is None:
        return f"no alert was sent: {VARIABLE} is set, but apprise is missing (pip install apprise)"
    outcome: list[str | None] = []
    thread = threading.Thread(target=lambda: outcome.append(_send(addresses, title, text)), daemon=True)
    thread.start()
    thread.join(MAX_SECONDS)
    if not outcome:
        return f"no alert was sent: no answer in {MAX_SECONDS:.0f} s"
    return outcome[0]


def notify(title: str, text: str) -> None:
    """Send an alert from rank 0; a failure is a warning on stderr."""
    problem = alert(title, text) if is_main() else None
    if problem is not None:
        write_line(f"warning: {problem}", sys.stderr)


def without_rows(error: Exception) -> str:
    """What an alert may say about an error: kind, codes and places. Its message may quote rows, which stay here."""
    problems = error.problems if isinstance(error, Error) else ()
    places = [f"{problem.code or type(error).__name__} {problem.where}" for problem in problems[:3]]
    return without_secrets("\n".join(places) or type(error).__name__)


def _send(addresses: list[str], title: str, text: str) -> str | None:
    import apprise

    try:
        sender = apprise.Apprise()
        refused = sum(not sender.add(address) for address in addresses)
        if refused < len(addresses) and not sender.notify(body=text, title=title):
            return "an alert could not be delivered"
        if refused:  # the other addresses have received it
            return f"apprise does not know {refused} of {len(addresses)} addresses in {VARIABLE}"
    except Exception as error:  # an error in a service's plug-in must not end a run
        return f"an alert could not be sent ({type(error).__name__})"
    return None
