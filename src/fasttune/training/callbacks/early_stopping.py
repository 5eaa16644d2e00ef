"""A reason to stop before the last step: no improvement. Signals are another: `fasttune.training.signals`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fasttune.training.events import Evaluated, Event, Started
from fasttune.training.loop import TrainState


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
