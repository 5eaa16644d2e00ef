"""How much arithmetic a run did, and what share of the machine's peak that is (MFU).

Counted as usual for Transformers (Kaplan et al. 2020; Chowdhery et al. 2022, appendix B): a token costs 6 FLOPs for
each non-embedding parameter, and 12 * layers * hidden width for each token it attends to, forward and backward
together. Only real tokens count, so padding lowers the share instead of raising it.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from transformers import PreTrainedModel

from fasttune.engine.precision import dtype_of

PROBE_SIZE = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # edge of the square matrices; some 20 ms on what it is made for
PROBE_REPEATS = 5


def training_flops(model: PreTrainedModel, lengths: np.ndarray) -> float:
    """FLOPs of one forward and backward over sequences of these `lengths` (N,)."""
    config = model.config
    embeddings = sum(
        parameter.numel() for name, parameter in model.base_model.named_parameters() if name.startswith("embeddings.")
    )
    parameters = sum(parameter.numel() for parameter in model.parameters()) - embeddings
    lengths = lengths.astype(np.float64)
    attended = 12 * config.num_hidden_layers * config.hidden_size * float(np.square(lengths).sum())
    return 6 * parameters * float(lengths.sum()) + attended


@torch.no_grad()
def measured_peak(device: torch.device, precision: str) -> float:
    """FLOPs a second of a large matrix product in this precision: what this machine can do at best."""
    dtype = dtype_of(precision)
    size = PROBE_SIZE[device.type]
    left = torch.ones(size, size, dtype=dtype, device=device)
    seconds = []
    for _ in range(PROBE_REPEATS + 1):
        begin = time.perf_counter()
        product = left @ left
        product[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds[1:])
