"""One optimizer step: forward and backward of its micro-batches, one update. Training divides losses here only.

Each micro-batch contributes loss sum * num_processes / total weight, since DDP averages gradients over processes; the
total is over all micro-batches on all ranks. So how a step is divided into micro-batches and ranks changes the result
only by rounding.
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
from fasttune.parallel.collectives import all_gather_numbers
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
    model.train()
    loss_sum, total_weight, num_tokens = _accumulate(model, task, microbatches, accelerator, seed)
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
    seed: Sequence[int],
) -> tuple[torch.Tensor, float, float]:
    """Add up the gradients of the step's mean loss over micro-batches and ranks.

    Returns the loss sum (on the device), the weight and the number of tokens, each over all ranks.
    """
    contributing = [batch for batch in microbatches if batch.contributes]
    weight = sum(task.weight(batch.targets) for batch in contributing)
    num_tokens = sum(batch.num_tokens for batch in contributing)
    totals: _Totals | None = None
    if is_sharded(model):  # every forward pass is a collective operation: all ranks need the same number of them
        totals = _gather(weight, num_tokens, len(microbatches))
        missing = totals.most_microbatches - len(microbatches)
        microbatches = [*microbatches, *[replace(microbatches[-1], contributes=False)] * missing]
    exact = torch.float32 if accelerator.device.type == "mps" else torch.float64  # MPS has no float64
    loss_sum = torch.zeros((), device=accelerator.device, dtype=exact)

    def forward(index: int, batch: MicroBatch) -> torch.Tensor:
        torch.manual_seed(microbatch_seed([*seed, index]))
        batch = batch.to(accelerator.device)
        loss = task.loss(run_model(model, batch), batch, training=True)
        return loss if batch.contributes else loss * 0.0

    def backward(loss: torch.Tensor, of_weight: float) -> None:
        loss_sum.add_(loss.detach())
        accelerator.backward(loss * (accelerator.num_processes / of_weight))

    # The ranks exchange their weights once, before the last backward pass, when the device is busy with the forward
    # pass. Until then a rank expects the others to have its own weight.
    expected = totals.weight if totals else (weight or 1.0) * accelerator.num_processes
    failure: MicroBatchOOM | None = None
    last = len(microbatches) - 1
    try:
        with as_micro_batch_oom():
            with accelerator.no_sync(model):
                for index, batch in enumerate(microbatches[:-1]):
                    backward(forward(index, batch), expected)
            loss = forward(last, microbatches[last])
    except MicroBatchOOM as error:
        failure = error
    if failure is not None and totals:
        raise oom_while_ranks_wait(_largest(microbatches), str(failure))
    totals = totals or _gather(weight, num_tokens, len(microbatches), failure)
    if totals.any_failure:  # on all ranks, before one waits for another's gradients
        raise failure or MicroBatchOOM("on another rank", is_here=False)
    if totals.weight != expected:
        _scale_gradients(model, expected / totals.weight)
    # DDP reduces gradients over ranks once, in the last backward.
    try:
        with as_micro_batch_oom():
            backward(loss, totals.weight)
    except MicroBatchOOM as error:
        if accelerator.num_processes == 1:
            raise
        raise oom_while_ranks_wait(_largest(microbatches), str(error)) from None
    if accelerator.num_processes > 1:  # on a GPU the host does not wait for this
        torch.distributed.all_reduce(loss_sum)
    return loss_sum, totals.weight, totals.num_tokens


@dataclass(frozen=True)
class _Totals:
    """Over all ranks. `weight` is 1 if no example has a target: loss and gradients are 0 then."""

    weight: float
    num_tokens: float
    most_microbatches: int
    any_failure: bool


def _gather(weight: float, num_tokens: int, num_microbatches: int, failure: Exception | None = None) -> _Totals:
    """The numbers of all ranks, through the host: no rank waits for its device."""
    weights, tokens, numbers, failures = zip(
        *all_gather_numbers(weight, num_tokens, num_microbatches, failure is not None), strict=True
    )
    return _Totals(sum(weights) or 1.0, sum(tokens), int(max(numbers)), any(failures))


def _scale_gradients(model: torch.nn.Module, factor: float) -> None:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)


def _largest(microbatches: Sequence[MicroBatch]) -> int:
    return max(batch.num_tokens for batch in microbatches)


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
