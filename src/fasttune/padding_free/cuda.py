"""Attention over sequences laid end to end on CUDA, by kernels that torch carries; the first that proves right is used.

Both take the boundaries as cumulative lengths and have dropout and a backward pass of their own (torch 2.13,
derivatives of aten): flash attention (sm80 and later, half precision, windows) and the memory-efficient one (sm50 and
later, T4 and V100 included). We have not run them on a GPU yet, and nothing here is trusted before `prove` compared it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F

# As far as rounding to half precision goes, as a share of the largest number.
TOLERANCE = 0.02
PROBE_LENGTHS = (1, 40, 7, 65)


@dataclass(frozen=True)
class Packed:
    """Where sequences begin, (B + 1,) int32 on the device, and how long the longest is; `window` as in `attention`."""

    starts: torch.Tensor
    longest: int
    window: int


# query, key, value [1, H, T, d], dropout, scale -> [1, T, H, d]
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Packed, float, float], torch.Tensor]


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed, dropout: float, scale: float
) -> torch.Tensor:
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    side = packed.window - 1 if packed.window < packed.longest else -1
    lengths = (packed.starts, packed.starts, packed.longest, packed.longest)
    out = torch.ops.aten._flash_attention_forward(
        q, k, v, *lengths, dropout, False, False, scale=scale, window_size_left=side, window_size_right=side
    )
    return out[0][None]


def efficient(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed, dropout: float, scale: float
) -> torch.Tensor:
    if packed.window < packed.longest:
        raise NotImplementedError("a window to both sides")
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    lengths = (packed.starts, packed.starts, packed.longest, packed.longest)
    out = torch.ops.aten._efficient_attention_forward(q, k, v, None, *lengths, dropout, 0, True, scale=scale)
    return out[0]


@functools.lru_cache(maxsize=16)
def choose(device: torch.device, dtype: torch.dtype, width: int) -> tuple[Kernel | None, str]:
    """The first kernel that gives what torch's attention gives one sequence at a time, and its name or the reason."""
    reasons = []
    for kernel in (flash, efficient):
        try:
            difference = prove(kernel, device, dtype, width)
        except (RuntimeError, NotImplementedError) as error:
            reasons.append(f"{kernel.__name__}: {str(error).splitlines()[0][:100]}")
            continue
        if difference <= TOLERANCE:
            return kernel, f"torch's {kernel.__name__} kernel, compared with its plain one"
        reasons.append(f"{kernel.__name__} differs by {difference:.1e}")
    return None, "; ".join(reasons)


def prove(kernel: Kernel, device: torch.device, dtype: torch.dtype, width: int) -> float:
    """The worst difference of outputs and gradients from fp32, as a share of the largest number of each."""
    starts = [0, *accumulate(PROBE_LENGTHS)]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 1, 2, starts[-1], width, generator=generator).to(device, dtype)
    weight = torch.randn(1, starts[-1], 2, width, generator=generator).to(device, dtype)
    packed = Packed(torch.tensor(starts, dtype=torch.int32, device=device), max(PROBE_LENGTHS), max(PROBE_LENGTHS))
    with torch.enable_grad():
        ours = [tensor.clone().requires_grad_() for tensor in inputs]
        theirs = [tensor.float().requires_grad_() for tensor in inputs]
        query, key, value = ours
        out = kernel(query, key, value, packed, 0.0, width**-0.5)
        parts = [
            F.scaled_dot_product_attention(*(tensor[:, :, first:last] for tensor in theirs))
            for first, last in pairwise(starts)
        ]
        expected = torch.cat(parts, dim=2).transpose(1, 2)
        found = [out, *torch.autograd.grad(out, ours, weight)]
        wanted = [expected, *torch.autograd.grad(expected, theirs, weight.float())]
    return max(
        ((one.float() - other).abs().max() / other.abs().max()).item() for one, other in zip(found, wanted, strict=True)
    )
