"""A split through a model, without gradients: longest first, results in input order."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from fasttune.batching.collate import Padding, collate, places
from fasttune.batching.plan import Indices, cut, evaluation_microbatches, num_tokens
from fasttune.data.token_store import TokenStore
from fasttune.engine.memory import TooLarge, give_back_freed_memory, halved, naming_out_of_memory
from fasttune.tasks import Task

GIVEN_BACK_EVERY = 8  # micro-batches; takes about a hundredth of the time


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
) -> Outputs:
    """What is kept grows with `results` alone. The model is left in evaluation mode.

    A micro-batch that does not fit into memory is done again in smaller ones, as are those that follow.
    """
    model.eval()
    results: np.ndarray | None = None
    loss_sum, weight_sum = 0.0, 0.0

    def forward(examples: Indices) -> tuple[np.ndarray, float, float]:
        batch = collate(store, examples, padding).to(accelerator.device)
        outputs = model(**batch.inputs)
        part = task.result(outputs, batch).float().cpu().numpy()
        if not store.is_labelled:
            return part, 0.0, 0.0
        loss, weight = task.loss(outputs, batch, training=False)
        return part, loss.item(), weight

    pending = deque(evaluation_microbatches(store.lengths, tokens_per_microbatch, padded))
    counts = itertools.count(1)
    while pending:
        if next(counts) % GIVEN_BACK_EVERY == 0:
            give_back_freed_memory()
        examples = pending.popleft()
        try:
            with naming_out_of_memory():
                part, loss, weight = forward(examples)
        except TooLarge as error:
            reason = str(error)  # what the exception holds of the device goes with it
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
        tokens_per_microbatch = halved(tokens_per_microbatch, tokens, len(examples), reason)
        left = np.concatenate([examples, *pending])
        pending = deque(cut(left, store.lengths, tokens_per_microbatch, padded))
    assert results is not None, "an empty split was refused when it was read"
    return Outputs(results, loss_sum / weight_sum if store.is_labelled else None, tokens_per_microbatch)
