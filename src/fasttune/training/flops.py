"""FLOPs of a run, and the peak of the machine, for model FLOPs utilisation (MFU).

Counted as usual for Transformers (Kaplan et al. 2020; Chowdhery et al. 2022, appendix B): a token costs 6 FLOPs for
each non-embedding parameter, and 12 * layers * hidden width for each token it attends to, forward and backward
together. Only real tokens count, so padding lowers the share instead of raising it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from fasttune.security.cache import cache_folder
from fasttune.training.layers import encoder_layers
from fasttune.training.precision import dtype_of

SMALLEST_PRODUCT = 256  # edge of the square matrices
LARGEST_PRODUCT = {"cpu": 2048, "cuda": 8192, "mps": 4096}
PROBE_REPEATS = 3
PROBE_SECONDS = 1.0  # sizes whose repeats would take longer are not tried
# About ten seconds of two CPU cores. In a shorter run start-up dominates, and utilisation means nothing.
MEASURABLE_FLOPS = 1e12


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


def frozen_flops(model: PreTrainedModel, lengths: np.ndarray, num_layers: int) -> float:
    """The part of `training_flops` that the lowest `num_layers` would take if they were trained."""
    if not num_layers:
        return 0.0
    layers = encoder_layers(model)
    assert layers is not None, "a run without such layers freezes none"
    parameters = sum(parameter.numel() for layer in layers[:num_layers] for parameter in layer.parameters())
    lengths = lengths.astype(np.float64)
    attended = 12 * num_layers * model.config.hidden_size * float(np.square(lengths).sum())
    return 6 * parameters * float(lengths.sum()) + attended


def peak_flops(device: torch.device, precision: str) -> float:
    """`measured_peak` of this machine, measured once for each precision and then read from the cache folder."""
    facts = [device_name(device), torch.get_num_threads(), torch.__version__, precision]
    path = cache_folder("peak") / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there yet, or damaged: measure
        return float(json.loads(path.read_text(encoding="utf-8"))["flops_per_second"])
    peak = measured_peak(device, precision)
    with suppress(OSError):  # the cache folder may be read-only; the next run measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"measured_on": facts, "flops_per_second": peak}) + "\n", encoding="utf-8")
    return peak


@torch.no_grad()
def measured_peak(device: torch.device, precision: str) -> float:
    """FLOPs per second of the fastest matrix product in this precision.

    The size doubles while the next product still fits into `PROBE_SECONDS`, so a device that emulates a precision, such
    as a CPU without bf16 instructions, stops at a small product instead of working for minutes.
    """
    dtype = dtype_of(precision)
    generator = torch.Generator(device=device).manual_seed(0)
    size, peak = SMALLEST_PRODUCT, 0.0
    while True:
        # Random numbers: products of constants draw less power on a GPU and run faster than real ones.
        left, right = (torch.rand(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(PROBE_REPEATS):
            begin = time.perf_counter()
            (left @ right)[0, 0].item()  # waits for the device
            seconds.append(time.perf_counter() - begin)
        peak = max(peak, 2 * size**3 / min(seconds))
        if size >= LARGEST_PRODUCT[device.type] or 8 * min(seconds) * PROBE_REPEATS > PROBE_SECONDS:
            return peak
        size *= 2


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def cpu_name() -> str:
    """The kernel's name for the CPU, with family and model because virtual machines hide the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
