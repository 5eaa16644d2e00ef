"""One optimizer step: the only place that divides a loss.

Weights of all micro-batches and ranks are added first; then every micro-batch contributes
sum * num_processes / global weight (DDP averages gradients over processes, so the factor undoes that). How a step is
cut into micro-batches and ranks therefore changes nothing but rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from fasttune.data.batching.collate import MicroBatch
from fasttune.data.batching.plan import microbatch_seed
from fasttune.parallel.collectives import all_reduce_max
from fasttune.parallel.launcher import hide_launcher
from fasttune.tasks import Task
from fasttune.training.memory import MicroBatchOOM, as_micro_batch_oom, out_of_step
from fasttune.training.wrapping import is_sharded


@dataclass(frozen=True)
class StepResult:
    """Sums over all ranks: `loss` is the mean over the step's weight, `grad_norm` the norm before clipping."""

    loss: float
    grad_norm: float
    num_tokens: int
    seconds: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def run_step(
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    microbatches: Sequence[MicroBatch],
    accelerator: Accelerator,
    max_grad_norm: float,
    seed: Sequence[int],
) -> StepResult:
    """Forward and backward of all micro-batches, then one update, unless loss or gradients are not finite.

    MicroBatchOOM when a micro-batch does not fit into the memory of some process: nothing was updated, and the step
    can be done again in parts.

    `seed` (run seed, step, rank) makes the dropout masks of each micro-batch a function of the place in the run.
    """
    begin = time.perf_counter()
    counts = torch.tensor(
        [
            sum(task.weight(batch.targets) for batch in microbatches if batch.counts),
            sum(batch.num_tokens for batch in microbatches if batch.counts),
        ],
        dtype=torch.float64,
    )
    weight, num_tokens = _sum_over_ranks(accelerator, counts).tolist()
    weight = weight or 1.0  # examples without anything to learn: their loss and gradients are 0
    model.train()
    loss_sum = _accumulate(model, task, microbatches, accelerator, weight, seed)
    mean_loss = _sum_over_ranks(accelerator, loss_sum).item() / weight
    if not math.isfinite(mean_loss):
        # No clipping either: it would unscale gradients that no update follows, which a loss scaler refuses next time.
        grad_norm = math.nan
    else:
        grad_norm = _clip(accelerator, model, max_grad_norm)
        # A loss scaler makes gradients overflow on purpose and skips those updates by itself.
        if math.isfinite(grad_norm) or accelerator.scaler is not None:
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(mean_loss, grad_norm, int(num_tokens), time.perf_counter() - begin)


def _accumulate(
    model: torch.nn.Module,
    task: Task,
    microbatches: Sequence[MicroBatch],
    accelerator: Accelerator,
    weight: float,
    seed: Sequence[int],
) -> torch.Tensor:
    """Gradients of the step's mean loss, added over micro-batches and ranks; returns the sum of this rank's losses."""

    def forward(index: int, batch: MicroBatch) -> torch.Tensor:
        torch.manual_seed(microbatch_seed([*seed, index]))
        batch = batch.to(accelerator.device)
        loss, _ = task.loss(model(**batch.inputs), batch, training=True)
        return loss if batch.counts else loss * 0.0

    def backward(loss: torch.Tensor) -> None:
        loss_sum.add_(loss.detach())
        accelerator.backward(loss * (accelerator.num_processes / weight))

    if is_sharded(model):  # every rank needs the same number of forward passes
        missing = all_reduce_max(len(microbatches))[0] - len(microbatches)
        microbatches = [*microbatches, *[replace(microbatches[-1], counts=False)] * missing]
    exact = torch.float32 if accelerator.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
    loss_sum = torch.zeros((), device=accelerator.device, dtype=exact)
    failure: MicroBatchOOM | None = None
    last = len(microbatches) - 1
    try:
        with as_micro_batch_oom():
            with accelerator.no_sync(model):
                for index, batch in enumerate(microbatches[:-1]):
                    backward(forward(index, batch))
            loss = forward(last, microbatches[last])
    except MicroBatchOOM as error:
        failure = error
    _agree(model, failure, microbatches)
    # Gradients of the ranks are added once, with the last micro-batch.
    try:
        with as_micro_batch_oom():
            backward(loss)
    except MicroBatchOOM as error:
        if accelerator.num_processes == 1:
            raise
        raise out_of_step(_largest(microbatches), str(error)) from None
    return loss_sum


def _agree(model: torch.nn.Module, failure: MicroBatchOOM | None, microbatches: Sequence[MicroBatch]) -> None:
    """Before ranks wait for each other's gradients: MicroBatchOOM in all of them, where one of them has met it."""
    if failure is not None and is_sharded(model):
        raise out_of_step(_largest(microbatches), str(failure))
    if all_reduce_max(failure is not None)[0]:
        raise failure or MicroBatchOOM("in another process", is_here=False)


def _largest(microbatches: Sequence[MicroBatch]) -> int:
    return max(batch.num_tokens for batch in microbatches)


def _sum_over_ranks(accelerator: Accelerator, value: torch.Tensor) -> torch.Tensor:
    if accelerator.num_processes == 1:
        return value
    return accelerator.reduce(value.to(accelerator.device), reduction="sum")


def _clip(accelerator: Accelerator, model: torch.nn.Module, max_grad_norm: float) -> float:
    """The norm of all gradients; scales them down to `max_grad_norm` where that is above 0."""
    limit = max_grad_norm if max_grad_norm > 0 else math.inf
    with hide_launcher():  # where accelerate sees FSDP it would unscale fp16 gradients twice
        norm = accelerator.clip_grad_norm_(model.parameters(), limit)
    return float(norm) if norm is not None else math.nan
