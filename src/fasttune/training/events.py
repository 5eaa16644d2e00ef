"""Events of the training loop. Observers log them, show them, or ask the loop to stop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """`step`: finished optimizer steps. `epoch`: passes over the training examples, as a fraction."""

    name: ClassVar[str]
    step: int
    epoch: float

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """`step` is above 0 if the run resumes from a checkpoint."""

    name: ClassVar[str] = "start"
    num_steps: int
    num_examples: int
    batch_size: int
    num_processes: int


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """`loss`: the weighted mean over all ranks. `num_tokens`: real tokens on all ranks. `seconds`: of this step."""

    name: ClassVar[str] = "step"
    loss: float
    learning_rate: float
    grad_norm: float
    num_tokens: int
    num_microbatches: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Replanned(Event):
    """The run will end after `num_steps`, so that it keeps to training.max_time at the speed measured since."""

    name: ClassVar[str] = "replanned"
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class LossSpike(Event):
    """The loss of this step is far above the running average."""

    name: ClassVar[str] = "loss_spike"
    loss: float
    average: float


@dataclass(frozen=True, kw_only=True)
class Diverged(Event):
    """Loss or gradients of the step after `step` are not finite, so it was not applied. `rows`: its training rows."""

    name: ClassVar[str] = "diverged"
    loss: float
    grad_norm: float
    rows: list[str]


@dataclass(frozen=True, kw_only=True)
class RolledBack(Event):
    """Training resumes from `step` and skips the batch of step `skipped`."""

    name: ClassVar[str] = "rolled_back"
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Skipped(Event):
    """The batch of this step was skipped, because training diverged on it before."""

    name: ClassVar[str] = "skipped"


@dataclass(frozen=True, kw_only=True)
class RowSkipped(Event):
    """A row of a stream is unusable and was skipped; `row` is its place and what is wrong with it."""

    name: ClassVar[str] = "row_skipped"
    row: str


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Event):
    """A micro-batch ran out of memory; the step is repeated with smaller ones."""

    name: ClassVar[str] = "out_of_memory"
    tokens_per_microbatch: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """`metrics` have transformers' names, such as eval_loss and eval_accuracy."""

    name: ClassVar[str] = "evaluation"
    metrics: dict[str, float] = field(default_factory=dict)
    is_best: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.name, "step": self.step, "epoch": self.epoch, **self.metrics, "is_best": self.is_best}


@dataclass(frozen=True, kw_only=True)
class SaveDue(Event):
    """The state must be copied before the loop continues."""

    name: ClassVar[str] = "save"


@dataclass(frozen=True, kw_only=True)
class SaveDone(Event):
    """The checkpoint of `step` was written, or could not be (`failure`); reported some steps later.

    `seconds`: from the copy to the last file. `blocking_seconds`: the part for which training waited.
    """

    name: ClassVar[str] = "checkpoint"
    seconds: float
    blocking_seconds: float
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class NotMirrored(Event):
    """Files could not be copied to `output.mirror`; they are sent with the next checkpoint."""

    name: ClassVar[str] = "not_mirrored"
    failure: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """`reason`: all steps done, early stopping, or a signal."""

    name: ClassVar[str] = "end"
    reason: str
