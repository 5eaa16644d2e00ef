"""A split through a model, without gradients: longest first, results in input order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from fasttune.batching.collate import collate
from fasttune.batching.plan import evaluation_microbatches
from fasttune.data.token_store import TokenStore
from fasttune.tasks import Task


@dataclass(frozen=True)
class Outputs:
    """`results` (N, ...) what the task keeps of each example; `loss` the mean over the weight, None without targets."""

    results: np.ndarray
    loss: float | None


@torch.no_grad()
def run_split(
    *,
    model: torch.nn.Module,
    task: Task,
    store: TokenStore,
    accelerator: Accelerator,
    pad_token_id: int,
    tokens_per_microbatch: int,
    padded_length: int | None,
    padded: bool,
) -> Outputs:
    """Memory grows with `results` alone. The model is left in evaluation mode."""
    model.eval()
    results: np.ndarray | None = None
    loss_sum, weight_sum = 0.0, 0.0
    for examples in evaluation_microbatches(store.lengths, tokens_per_microbatch, padded):
        batch = collate(store, examples, pad_token_id, padded_length).to(accelerator.device)
        outputs = model(**batch.inputs)
        if store.targets:
            loss, weight = task.loss(outputs, batch, training=False)
            loss_sum += loss.item()
            weight_sum += weight
        part = task.result(outputs).float().cpu().numpy()
        if results is None:
            results = np.zeros((len(store), *part.shape[1:]), dtype=np.float32)
        results[examples] = part
    assert results is not None, "an empty split was refused when it was read"
    return Outputs(results, loss_sum / weight_sum if store.targets else None)
