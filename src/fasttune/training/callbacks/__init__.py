"""Observers of a run: each is called with every event and may return a reason to stop."""

from collections.abc import Callable

from fasttune.training.events import Event

Observer = Callable[[Event], str | None]
