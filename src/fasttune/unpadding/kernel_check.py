"""Compare a kernel with torch's attention, one sequence at a time in fp32, before it is used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F

from fasttune.unpadding.boundaries import Boundaries

# The error of rounding to bf16, relative to the largest value, stays well below this (measured: 0.006).
TOLERANCE = 0.02
PROBE_LENGTHS = (1, 40, 7, 65)

# query, key, value [1, H, T, d], boundaries, scale -> [1, T, H, d]; without dropout and windows
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Boundaries, float], torch.Tensor]


def max_difference(
    kernel: Attention, device: torch.device, dtype: torch.dtype, width: int, window: int | None = None
) -> float:
    """The maximum difference of outputs and gradients, each relative to its largest value.

    `window`: the kernel's, as in `attention`; None: it has none.

    Gradients are computed as in training, regardless of the caller's grad and autocast modes.
    """
    generator = torch.Generator().manual_seed(0)
    num_tokens = sum(PROBE_LENGTHS)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        mask = torch.arange(max(PROBE_LENGTHS)) < torch.tensor(PROBE_LENGTHS)[:, None]
        boundaries = Boundaries.from_mask(mask.to(device))
        inputs = torch.randn(3, 1, num_tokens, 2, width, generator=generator).to(device, dtype).transpose(2, 3)
        weight = torch.randn(1, num_tokens, 2, width, generator=generator).to(device, dtype)
        inputs_of_kernel = [tensor.clone().requires_grad_() for tensor in inputs]
        inputs_in_fp32 = [tensor.float().requires_grad_() for tensor in inputs]
        query, key, value = inputs_of_kernel

        def near(length: int) -> torch.Tensor | None:
            places = torch.arange(length, device=device)
            return None if window is None else (places[:, None] - places).abs() < window

        out = kernel(query, key, value, boundaries, width**-0.5)
        sequences = []
        for first, last in pairwise(boundaries.starts):
            q, k, v = (tensor[:, :, first:last] for tensor in inputs_in_fp32)
            sequences.append(F.scaled_dot_product_attention(q, k, v, attn_mask=near(last - first)))
        expected = torch.cat(sequences, dim=2).transpose(1, 2)
        outputs = [out, *torch.autograd.grad(out, inputs_of_kernel, weight)]
        references = [expected, *torch.autograd.grad(expected, inputs_in_fp32, weight.float())]
        return max(
            ((output.float() - reference).abs().max() / reference.abs().max()).item()
            for output, reference in zip(outputs, references, strict=True)
        )
