"""A split through a model, without gradients: longest first, results in input order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from fasttune.data.batching.collate import MicroBatch, Padding, collate, places
from fasttune.data.batching.plan import cut, evaluation_microbatches, num_tokens
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import EnvironmentProblem
from fasttune.parallel.collectives import all_reduce_max
from fasttune.tasks import Task
from fasttune.training import signals
from fasttune.training.memory import (
    CPU_EVALUATION_TOKENS,
    MicroBatchOOM,
    as_micro_batch_oom,
    give_back_freed_memory,
    halved,
    out_of_step,
)
from fasttune.training.wrapping import is_sharded

GIVEN_BACK_EVERY = 16  # micro-batches; takes about a hundredth of the time


@dataclass(frozen=True)
class Outputs:
    """`results` (N, ...) what the task keeps of each example, or (T, ...) of each token.

    `loss`: the mean over the weight, None without targets. `tokens_per_microbatch`: as given, or what fitted where that
    did not.
    """

    results: np.ndarray
    loss: float | None
    tokens_per_microbatch: int


@torch.no_grad()
def run_split(
    *,
    model: torch.nn.Module,
    task: Task,
    store: TokenStore,
    accelerator: Accelerator,
    padding: Padding,
    tokens_per_microbatch: int,
    padded: bool,
    alive: Callable[[], None] = lambda: None,
) -> Outputs:
    """What is kept grows with `results` alone. The model is left in evaluation mode.

    A micro-batch that does not fit into memory is done again in smaller ones, as are those that follow. Processes share
    the micro-batches, and each gets all results. `alive` is called between them. Interrupted when a signal was noted.
    """
    model.eval()
    results: np.ndarray | None = None
    loss_sum, weight_sum = 0.0, 0.0
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    tokens_per_microbatch = -all_reduce_max(-tokens_per_microbatch)[0]  # the same cut on all ranks
    pending = deque(evaluation_microbatches(store.lengths, tokens_per_microbatch, padded)[rank::num_ranks])
    counts = itertools.count(1)
    while go_on(bool(pending)):
        alive()
        if not pending:  # others have some left
            if is_sharded(model):  # whose layers wait for this process in every forward pass
                _forward(model, task, collate(store, np.array([0]), padding).to(accelerator.device), False)
            continue
        if next(counts) % GIVEN_BACK_EVERY == 0:
            give_back_freed_memory()
        examples = pending.popleft()
        try:
            with as_micro_batch_oom():
                batch = collate(store, examples, padding).to(accelerator.device)
                part, loss, weight = _forward(model, task, batch, store.is_labelled)
        except MicroBatchOOM as error:
            reason = str(error)  # what the exception holds of the device goes with it
            if is_sharded(model):
                raise out_of_step(num_tokens(examples, store.lengths, padded), reason) from None
        else:
            where: np.ndarray = examples
            if task.result_per_token:
                where, is_real = places(store, examples, padding)
                part = part[is_real]
            if results is None:
                length = store.num_tokens if task.result_per_token else len(store)
                results = np.zeros((length, *part.shape[1:]), dtype=np.float32)
            results[where] = part
            loss_sum, weight_sum = loss_sum + loss, weight_sum + weight
            continue
        tokens = num_tokens(examples, store.lengths, padded)
        tokens_per_microbatch = _halved(tokens_per_microbatch, tokens, len(examples), reason)
        left = np.concatenate([examples, *pending])
        pending = deque(cut(left, store.lengths, tokens_per_microbatch, padded))
    if num_ranks > 1:
        results, loss_sum, weight_sum = _together(accelerator, results, loss_sum, weight_sum)
    assert results is not None, "an empty split was refused when it was read"
    return Outputs(results, loss_sum / weight_sum if store.is_labelled else None, tokens_per_microbatch)


def _forward(
    model: torch.nn.Module, task: Task, batch: MicroBatch, is_labelled: bool
) -> tuple[np.ndarray, float, float]:
    outputs = model(**batch.inputs)
    part = task.result(outputs, batch).float().cpu().numpy()
    if not is_labelled:
        return part, 0.0, 0.0
    loss, weight = task.loss(outputs, batch, training=False)
    return part, loss.item(), weight


def _halved(tokens_per_microbatch: int, tokens: int, num_sequences: int, reason: str) -> int:
    """As `halved`; where nothing is left to halve, the other processes end, too."""
    try:
        return halved(tokens_per_microbatch, tokens, num_sequences, reason)
    except EnvironmentProblem:
        all_reduce_max(0, 0, True)  # in place of `go_on`
        raise


def go_on(has_more: bool) -> bool:
    """Whether any process has something left; Interrupted, in all of them, where a signal was noted by one."""
    some_have_more, number, has_failed = all_reduce_max(has_more, signals.pending() or 0, False)
    if has_failed:
        raise out_of_step(CPU_EVALUATION_TOKENS, "one text did not fit into the memory of another process")
    if number:
        raise signals.Interrupted(signals.words(number))
    return bool(some_have_more)


def _together(
    accelerator: Accelerator, results: np.ndarray | None, loss_sum: float, weight_sum: float
) -> tuple[np.ndarray, float, float]:
    """What every process has, each example by the one that computed it; the others have zeros there."""
    shape = next(shape for shape in gather_object([None if results is None else results.shape]) if shape is not None)
    own = torch.zeros(shape) if results is None else torch.from_numpy(results)
    sums = torch.tensor([loss_sum, weight_sum], dtype=torch.float64)
    added: torch.Tensor = accelerator.reduce(own.to(accelerator.device), "sum")
    loss_sum, weight_sum = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    return added.cpu().numpy(), loss_sum, weight_sum
