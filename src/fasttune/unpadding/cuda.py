"""Variable-length attention on CUDA with kernels that ship with torch; the first that passes the check is used.

Both kernels take cumulative lengths and support dropout and a backward pass (torch 2.13, derivatives of aten): flash
attention (sm80 and later, half precision, windows) and memory-efficient attention (sm50 and later, including T4 and
V100). Neither has been run on a GPU yet. Before use, each is compared with torch's plain attention, without windows and
dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch

from fasttune.unpadding.boundaries import Boundaries
from fasttune.unpadding.kernel_check import TOLERANCE, max_difference


@dataclass(frozen=True)
class Packed:
    """The starts of the sequences, (B + 1,) int32 on the device, the longest length, and `window` as in `attention`."""

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
    assert packed.window >= packed.longest, "`attention` uses only flash with windows"
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    lengths = (packed.starts, packed.starts, packed.longest, packed.longest)
    out = torch.ops.aten._efficient_attention_forward(q, k, v, None, *lengths, dropout, 0, True, scale=scale)
    return out[0]


def _without_window(
    kernel: Kernel, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: Boundaries, scale: float
) -> torch.Tensor:
    longest = max(boundaries.lengths)
    return kernel(query, key, value, Packed(boundaries.starts_on_device, longest, longest), 0.0, scale)


@lru_cache(maxsize=16)
def choose_kernel(device: torch.device, dtype: torch.dtype, width: int) -> tuple[Kernel | None, str]:
    """The first kernel that matches torch's attention, with its name; or None, with the reasons."""
    reasons = []
    for kernel in (flash, efficient):
        try:
            difference = max_difference(partial(_without_window, kernel), device, dtype, width)
        except torch.OutOfMemoryError:
            raise  # not the kernel's fault, so the result must not be cached
        except (RuntimeError, NotImplementedError) as error:
            reasons.append(f"{kernel.__name__}: {str(error).splitlines()[0][:100]}")
            continue
        if difference <= TOLERANCE:
            return kernel, f"torch's {kernel.__name__} kernel, verified against its plain attention"
        reasons.append(f"{kernel.__name__} differs by {difference:.1e}")
    return None, "; ".join(reasons)
