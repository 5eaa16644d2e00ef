"""What the loop says while it runs. Observers write these down, show them, or ask the loop to stop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """`step`: optimizer steps done; `epoch`: passes done, a fraction within one."""

    name: ClassVar[str]
    step: int
    epoch: float

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """`step` is above 0 when a run goes on from a checkpoint."""

    name: ClassVar[str] = "start"
    num_steps: int
    num_examples: int
    batch_size: int
    num_processes: int


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """`loss` is the mean over the step's weight; `num_tokens` real tokens over all ranks; `seconds` of this step."""

    name: ClassVar[str] = "step"
    loss: float
    learning_rate: float
    grad_norm: float
    num_tokens: int
    num_microbatches: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LossSpike(Event):
    """The loss of this step is far above the average of those before."""

    name: ClassVar[str] = "loss_spike"
    loss: float
    average: float


@dataclass(frozen=True, kw_only=True)
class Diverged(Event):
    """Loss or gradients of the step after `step` are not finite: it is not taken. `rows`: those it was made of."""

    name: ClassVar[str] = "diverged"
    loss: float
    grad_norm: float
    rows: list[str]


@dataclass(frozen=True, kw_only=True)
class RolledBack(Event):
    """Training goes on from `step`, and `skipped` is the step whose batch is left out."""

    name: ClassVar[str] = "rolled_back"
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Skipped(Event):
    """The batch of this step was left out: training diverged on it before."""

    name: ClassVar[str] = "skipped"


@dataclass(frozen=True, kw_only=True)
class RowSkipped(Event):
    """A row of a stream cannot be learned from and is left out; `row` says where it stands and what is wrong."""

    name: ClassVar[str] = "row_skipped"
    row: str


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Event):
    """A micro-batch did not fit: the step is done again with this many tokens in each."""

    name: ClassVar[str] = "out_of_memory"
    tokens_per_microbatch: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """`metrics` carry transformers' names: eval_loss, eval_accuracy ..."""

    name: ClassVar[str] = "evaluation"
    metrics: dict[str, float] = field(default_factory=dict)
    is_best: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.name, "step": self.step, "epoch": self.epoch, **self.metrics, "is_best": self.is_best}


@dataclass(frozen=True, kw_only=True)
class SaveDue(Event):
    """The state must be copied before the next event is asked for."""

    name: ClassVar[str] = "save"


@dataclass(frozen=True, kw_only=True)
class SaveDone(Event):
    """A checkpoint of `step` is on the disk, or (`failure`) is not. It comes when it is known: steps may lie between.

    `seconds` from the copy to the last file, `blocking_seconds` of these training stood still.
    """

    name: ClassVar[str] = "checkpoint"
    seconds: float
    blocking_seconds: float
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class NotMirrored(Event):
    """What is on the disk by now did not get to `output.mirror`; it is sent with the next checkpoint."""

    name: ClassVar[str] = "not_mirrored"
    failure: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """`reason` in words: all steps done, early stopping, a signal."""

    name: ClassVar[str] = "end"
    reason: str
