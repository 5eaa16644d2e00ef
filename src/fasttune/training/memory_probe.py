"""How many tokens one forward and backward may hold on this GPU, by trying two sizes and drawing a line."""

from __future__ import annotations

import numpy as np
import torch

from fasttune.data.batching.collate import collate
from fasttune.data.batching.plan import Indices, cut, longest_first, num_tokens
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks import Task
from fasttune.training.memory import MicroBatchOOM, as_micro_batch_oom
from fasttune.training.precision import Choice
from fasttune.training.setup import Setup

TRIED = (2048, 8192)  # tokens
# Assumption: what a line through two sizes and the allocator's waste leave uncertain; a step that does not fit after
# all is done again in smaller parts.
SHARE_OF_FREE = 0.7
MOST = 65536  # tokens; larger forwards gain nothing (assumption, not measured)
OPTIMIZER_BYTES = 8  # a parameter: two fp32 moments of AdamW, which are not there yet


def probe(setup: Setup, task: Task, store: TokenStore) -> Choice | None:
    """The budget for the longest examples of `store`; None where they are too few, or too large, to tell."""
    order = longest_first(np.arange(len(store)), store.lengths)
    points = []
    for tokens in TRIED:
        examples = cut(order, store.lengths, tokens, setup.padded)[0]
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
    tokens = min(max(tokens, fewer), MOST)
    return Choice(str(tokens), f"{bytes_per_token / 1e3:,.0f} kB a token tried, {free / 1e9:.1f} GB free")


def _peak(setup: Setup, task: Task, store: TokenStore, examples: Indices) -> int:
    """Bytes at the peak of one forward and backward; the gradients are thrown away."""
    device = setup.accelerator.device
    torch.cuda.reset_peak_memory_stats(device)
    batch = collate(store, examples, setup.padding).to(device)
    setup.model.train()
    loss, weight = task.loss(setup.model(**batch.inputs), batch, training=True)
    setup.accelerator.backward(loss / weight)
    setup.model.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)  # what the run reports is its own peak
    return peak
