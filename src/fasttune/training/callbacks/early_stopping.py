"""Early stopping: ends training when evaluations stop improving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fasttune.training.events import Evaluated, Event, Started
from fasttune.training.loop import TrainState


class EarlyStopping:
    """Stops after `patience` consecutive evaluations without a better `metric`.

    It counts in the evaluations that `state` holds, so a resumed run continues the count.
    """

    def __init__(self, metric: str, patience: int, state: TrainState):
        self.metric, self.patience, self.state = metric, patience, state

    def __call__(self, event: Event) -> str | None:
        if not isinstance(event, Evaluated | Started):  # Started: the run may have been killed before it stopped
            return None
        waited = evaluations_since_best(self.state.evaluations, self.state.best(self.metric))
        if waited < self.patience:
            return None
        return f"{self.metric} has not improved for {waited} evaluations"


def evaluations_since_best(evaluations: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> int:
    return 0 if best is None else sum(evaluation["step"] > best["step"] for evaluation in evaluations)
