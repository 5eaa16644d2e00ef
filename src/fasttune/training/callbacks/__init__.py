"""Those who watch a run: an observer is called with every event and may return a reason to stop."""

from collections.abc import Callable

from fasttune.training.events import Event

Observer = Callable[[Event], str | None]
