"""One optimizer step: forward and backward of its micro-batches, one update. Training divides losses here only.

The weights of all micro-batches on all ranks are added first. Then each micro-batch contributes
loss sum * num_processes / total weight, since DDP averages gradients over processes. So how a step is divided into
micro-batches and ranks changes the result only by rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from transformers.utils.generic import ModelOutput

from fasttune.data.batching.collate import MicroBatch
from fasttune.data.batching.plan import microbatch_seed
from fasttune.parallel.collectives import all_reduce_max
from fasttune.parallel.launcher import hide_launcher
from fasttune.tasks import Task
from fasttune.training.memory import MicroBatchOOM, as_micro_batch_oom, oom_while_ranks_wait
from fasttune.training.wrapping import is_sharded
from fasttune.unpadding import known_boundaries


@dataclass(frozen=True)
class StepResult:
    """Over all ranks: `loss` is the weighted mean, `grad_norm` the norm before clipping; `seconds` on this rank."""

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
    """Forward and backward of all micro-batches, then one update, skipped if loss or gradients are not finite.

    `seed` is (run seed, step, rank): dropout masks depend on nothing else, so a resumed run draws the same ones.
    MicroBatchOOM if a micro-batch runs out of memory on any rank: nothing was updated, and the step can be repeated in
    smaller micro-batches.
    """
    begin = time.perf_counter()
    counts = torch.tensor(
        [
            sum(task.weight(batch.targets) for batch in microbatches if batch.contributes),
            sum(batch.num_tokens for batch in microbatches if batch.contributes),
        ],
        dtype=torch.float64,
    )
    total_weight, num_tokens = _sum_over_ranks(accelerator, counts).tolist()
    total_weight = total_weight or 1.0  # no example has a target: loss and gradients are 0
    model.train()
    loss_sum = _sum_over_ranks(accelerator, _accumulate(model, task, microbatches, accelerator, total_weight, seed))
    norm = _clip(accelerator, model, max_grad_norm)
    # The only time in a step that waits for the device.
    loss_value, grad_norm = read(torch.stack([loss_sum, norm.to(loss_sum)]))
    mean_loss = loss_value / total_weight
    if math.isfinite(mean_loss):
        # A loss scaler lets gradients overflow on purpose, and skips those updates itself.
        if math.isfinite(grad_norm) or accelerator.scaler is not None:
            optimizer.step()
    else:
        grad_norm = math.nan
        if accelerator.scaler is not None:
            # Clipping has unscaled the gradients, and GradScaler raises if that happens twice before an update.
            accelerator.scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(mean_loss, grad_norm, int(num_tokens), time.perf_counter() - begin)


def _accumulate(
    model: torch.nn.Module,
    task: Task,
    microbatches: Sequence[MicroBatch],
    accelerator: Accelerator,
    total_weight: float,
    seed: Sequence[int],
) -> torch.Tensor:
    """Add up the gradients of the step's mean loss over micro-batches and ranks; returns this rank's loss sum."""

    def forward(index: int, batch: MicroBatch) -> torch.Tensor:
        torch.manual_seed(microbatch_seed([*seed, index]))
        batch = batch.to(accelerator.device)
        loss = task.loss(run_model(model, batch), batch, training=True)
        return loss if batch.contributes else loss * 0.0

    def backward(loss: torch.Tensor) -> None:
        loss_sum.add_(loss.detach())
        accelerator.backward(loss * (accelerator.num_processes / total_weight))

    if is_sharded(model):  # every rank needs the same number of forward passes
        missing = all_reduce_max(len(microbatches))[0] - len(microbatches)
        microbatches = [*microbatches, *[replace(microbatches[-1], contributes=False)] * missing]
    exact = torch.float32 if accelerator.device.type == "mps" else torch.float64  # MPS has no float64
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
    _raise_on_any_failure(model, failure, microbatches)
    # DDP reduces gradients over ranks once, in the last backward.
    try:
        with as_micro_batch_oom():
            backward(loss)
    except MicroBatchOOM as error:
        if accelerator.num_processes == 1:
            raise
        raise oom_while_ranks_wait(_largest(microbatches), str(error)) from None
    return loss_sum


def _raise_on_any_failure(
    model: torch.nn.Module, failure: MicroBatchOOM | None, microbatches: Sequence[MicroBatch]
) -> None:
    """MicroBatchOOM on all ranks if one ran out of memory, before they wait for each other's gradients."""
    if failure is not None and is_sharded(model):
        raise oom_while_ranks_wait(_largest(microbatches), str(failure))
    if all_reduce_max(failure is not None)[0]:
        raise failure or MicroBatchOOM("on another rank", is_here=False)


def _largest(microbatches: Sequence[MicroBatch]) -> int:
    return max(batch.num_tokens for batch in microbatches)


def _sum_over_ranks(accelerator: Accelerator, value: torch.Tensor) -> torch.Tensor:
    if accelerator.num_processes == 1:
        return value
    return accelerator.reduce(value.to(accelerator.device), reduction="sum")


def read(values: torch.Tensor) -> list[float]:
    """Numbers of the device, which the host waits for."""
    found: list[float] = values.tolist()
    return found


def run_model(model: torch.nn.Module, batch: MicroBatch) -> ModelOutput:
    """Run the forward pass, and pass the boundaries of the batch to a padding-free model: the host knows them."""
    width = batch.inputs["attention_mask"].shape[1]
    with known_boundaries(batch.lengths, batch.index, batch.starts, width):
        outputs: ModelOutput = model(**batch.inputs)
        return outputs


def _clip(accelerator: Accelerator, model: torch.nn.Module, max_grad_norm: float) -> torch.Tensor:
    """The norm of all gradients, which are clipped to `max_grad_norm` if that is above 0."""
    limit = max_grad_norm if max_grad_norm > 0 else math.inf
    with hide_launcher():  # if accelerate sees FSDP, it unscales fp16 gradients twice
        norm = accelerator.clip_grad_norm_(model.parameters(), limit)
    if norm is None:
        return torch.tensor(math.nan)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
