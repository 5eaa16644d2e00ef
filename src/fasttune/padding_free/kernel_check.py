"""A kernel is compared with torch's attention, one sequence at a time in fp32, before it is used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F

from fasttune.padding_free.boundaries import Boundaries

# As far as rounding to bf16 goes, as a share of the largest number (measured: 0.006).
TOLERANCE = 0.02
PROBE_LENGTHS = (1, 40, 7, 65)

# query, key, value [1, H, T, d], boundaries, scale -> [1, T, H, d]; without dropout and windows
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Boundaries, float], torch.Tensor]


def max_difference(kernel: Attention, device: torch.device, dtype: torch.dtype, width: int) -> float:
    """The worst difference of outputs and gradients, as a share of the largest number of each.

    It is computed as it is in training, whatever mode the caller is in.
    """
    generator = torch.Generator().manual_seed(0)
    num_tokens = sum(PROBE_LENGTHS)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        mask = torch.arange(max(PROBE_LENGTHS)) < torch.tensor(PROBE_LENGTHS)[:, None]
        boundaries = Boundaries.from_mask(mask.to(device))
        inputs = torch.randn(3, 1, num_tokens, 2, width, generator=generator).to(device, dtype).transpose(2, 3)
        weight = torch.randn(1, num_tokens, 2, width, generator=generator).to(device, dtype)
        query, key, value = ours = [tensor.clone().requires_grad_() for tensor in inputs]
        theirs = [tensor.float().requires_grad_() for tensor in inputs]
        out = kernel(query, key, value, boundaries, width**-0.5)
        parts = [
            F.scaled_dot_product_attention(*(tensor[:, :, first:last] for tensor in theirs))
            for first, last in pairwise(boundaries.starts)
        ]
        expected = torch.cat(parts, dim=2).transpose(1, 2)
        found = [out, *torch.autograd.grad(out, ours, weight)]
        wanted = [expected, *torch.autograd.grad(expected, theirs, weight.float())]
        return max(
            ((one.float() - other).abs().max() / other.abs().max()).item()
            for one, other in zip(found, wanted, strict=True)
        )
