"""Telling a person that a run ended, failed or diverged, by apprise; nothing is restarted blindly.

Where to is said by the environment alone, since the addresses hold passwords: FASTTUNE_ALERTS, separated by blanks.
"""

from __future__ import annotations

import importlib.util
import os
import threading

VARIABLE = "FASTTUNE_ALERTS"
LONGEST_WAIT = 20.0  # seconds: a service that does not answer holds nothing up for longer


def alert(title: str, text: str) -> str | None:
    """Send to all addresses; what went wrong in words, without the addresses, or None."""
    addresses = os.environ.get(VARIABLE, "").split()
    if not addresses:
        return None
    if importlib.util.find_spec("apprise") is None:
        return f"no alert was sent: {VARIABLE} is set, but apprise is missing (pip install apprise)"
    outcome: list[str | None] = []
    thread = threading.Thread(target=lambda: outcome.append(_send(addresses, title, text)), daemon=True)
    thread.start()
    thread.join(LONGEST_WAIT)
    if not outcome:
        return f"no alert was sent: no answer in {LONGEST_WAIT:.0f} s"
    return outcome[0]


def _send(addresses: list[str], title: str, text: str) -> str | None:
    import apprise

    try:
        sender = apprise.Apprise()
        refused = sum(not sender.add(address) for address in addresses)
        if refused < len(addresses) and not sender.notify(body=text, title=title):
            return "an alert could not be delivered"
        if refused:  # the others have been told
            return f"{refused} of {len(addresses)} addresses in {VARIABLE} are none that apprise knows"
    except Exception as error:  # whatever a service's plug-in raises must not end a run
        return f"an alert could not be sent ({type(error).__name__})"
    return None
