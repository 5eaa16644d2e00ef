"""The token budget on this GPU: measures peak memory for two sizes and extrapolates linearly."""

from __future__ import annotations

import numpy as np
import torch

from fasttune.data.batching.collate import collate
from fasttune.data.batching.plan import Indices, longest_first, num_tokens, split_by_budget
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks import Task
from fasttune.training.memory import MicroBatchOOM, as_micro_batch_oom
from fasttune.training.precision import Choice
from fasttune.training.setup import Setup
from fasttune.training.step import run_model

TRIED = (2048, 8192)  # tokens
# A margin for the allocator and the extrapolation (assumption); a step that still runs out of memory is repeated in
# smaller micro-batches.
SHARE_OF_FREE = 0.7
MAX_TOKENS = 65536  # larger forward passes are no faster (assumption, not measured)
OPTIMIZER_BYTES = 8  # per parameter: AdamW's two fp32 moments, which do not exist yet


def probe(setup: Setup, task: Task, store: TokenStore) -> Choice | None:
    """The budget for the longest examples of `store`; None if they are too few, or too large, to measure."""
    order = longest_first(np.arange(len(store)), store.lengths)
    points = []
    for tokens in TRIED:
        examples = split_by_budget(order, store.lengths, tokens, setup.padded)[0]
        try:
            with as_micro_batch_oom():
                points.append((num_tokens(examples, store.lengths, setup.padded), _peak(setup, task, store, examples)))
        except MicroBatchOOM:
            return None
    (fewer, low), (more, high) = points
    if more < 2 * fewer:
        return None
    bytes_per_token = max(high - low, 1) / (more - fewer)
    moments = OPTIMIZER_BYTES * sum(parameter.numel() for parameter in setup.model.parameters())
    free, _ = torch.cuda.mem_get_info(setup.accelerator.device)
    free += torch.cuda.memory_reserved(setup.accelerator.device) - torch.cuda.memory_allocated(setup.accelerator.device)
    tokens = int((SHARE_OF_FREE * free - moments) / bytes_per_token)
    tokens = min(max(tokens, fewer), MAX_TOKENS)
    return Choice(str(tokens), f"measured {bytes_per_token / 1e3:,.0f} kB per token, {free / 1e9:.1f} GB free")


def _peak(setup: Setup, task: Task, store: TokenStore, examples: Indices) -> int:
    """Peak memory in bytes of one forward and backward; the gradients are discarded."""
    device = setup.accelerator.device
    torch.cuda.reset_peak_memory_stats(device)
    batch = collate(store, examples, setup.padding)
    weight = task.weight(batch.targets)
    batch = batch.to(device)
    setup.model.train()
    loss = task.loss(run_model(setup.model, batch), batch, training=True)
    setup.accelerator.backward(loss / weight)
    setup.model.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)  # so that the run reports its own peak
    return peak
