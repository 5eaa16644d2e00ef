"""Variable-length attention on CUDA with kernels that ship with torch; the first that passes the check is used.

Both kernels take cumulative lengths and support dropout and a backward pass (torch 2.13, derivatives of aten): flash
attention (sm80 and later, half precision, windows) and memory-efficient attention (sm50 and later, including T4 and
V100). Neither has been run on a GPU yet; shapes, dtypes and gradients are tested on meta tensors. Before use, each is
compared with torch's plain attention (flash also in a window), and run once with dropout if training uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch.nn.attention import varlen

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
    if dropout == 0.0:  # what torch publishes has none
        attended = varlen.varlen_attn(q, k, v, *lengths, scale=scale, window_size=(side, side))
        assert isinstance(attended, torch.Tensor), "without return_aux"
        return attended[None]
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


def _in_window(
    kernel: Kernel,
    window: int | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: Boundaries,
    scale: float,
) -> torch.Tensor:
    longest = max(boundaries.lengths)
    packed = Packed(boundaries.starts_on_device, longest, longest if window is None else window)
    return kernel(query, key, value, packed, 0.0, scale)


PROBE_WINDOW = 9
HALF = (torch.float16, torch.bfloat16)


def _run_with_dropout(kernel: Kernel, device: torch.device, dtype: torch.dtype, width: int) -> None:
    """Without drawing from the random numbers of a training step, during which a kernel may be chosen."""
    starts = torch.tensor([0, 3, 8], dtype=torch.int32, device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        query, key, value = (torch.randn(1, 2, 8, width, device=device).to(dtype).requires_grad_() for _ in range(3))
        kernel(query, key, value, Packed(starts, 5, 5), 0.1, width**-0.5).float().sum().backward()


# What torch says where a kernel does not exist for a device, dtype or head width. Any other error is one to see.
NOT_SUPPORTED = (
    *("only support", "not support", "not compiled", "not available", "no kernel", "No available kernel"),
    *("Could not run", "not implemented", "requires", "Expected", "expected", "must be", "should be", "multiple of"),
    *("dropout", "deterministic implementation"),
)
FATAL = ("CUDA error", "device-side assert", "illegal memory access", "out of memory")


def is_unsupported(error: Exception) -> bool:
    """Whether this says that a kernel cannot do what was asked, rather than that the device has failed."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in FATAL):
        return False
    return isinstance(error, NotImplementedError) or any(words in text for words in NOT_SUPPORTED)


def choose_kernel(
    device: torch.device, dtype: torch.dtype, width: int, with_dropout: bool = False
) -> tuple[Kernel | None, str]:
    """The first kernel that matches torch's attention, with its name; or None, with the reasons.

    `with_dropout`: it must also run with dropout, which flash attention 3 and 4 refuse if the user has activated them.
    With deterministic algorithms, it must have one for its backward pass.
    """
    return _choose_kernel(device, dtype, width, with_dropout, torch.are_deterministic_algorithms_enabled())


@lru_cache(maxsize=32)
def _choose_kernel(
    device: torch.device, dtype: torch.dtype, width: int, with_dropout: bool, deterministic: bool
) -> tuple[Kernel | None, str]:
    reasons = []
    for kernel in (flash, efficient):
        if kernel is flash and dtype not in HALF:
            reasons.append("flash: for fp16 and bf16 only")
            continue
        try:
            windows = (None, PROBE_WINDOW) if kernel is flash else (None,)
            difference = max(
                max_difference(partial(_in_window, kernel, window), device, dtype, width, window) for window in windows
            )
            if with_dropout:
                _run_with_dropout(kernel, device, dtype, width)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            if not is_unsupported(error):
                raise  # not the kernel's fault, so the result must not be cached
            reasons.append(f"{kernel.__name__}: {str(error).splitlines()[0][:100]}")
            continue
        if difference <= TOLERANCE:
            return kernel, f"torch's {kernel.__name__} kernel, verified against its plain attention"
        reasons.append(f"{kernel.__name__} differs by {difference:.1e}")
    return None, "; ".join(reasons)
