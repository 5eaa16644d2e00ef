"""GPU kernels: each is verified before use, and none is used on a CPU."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from fasttune.unpadding import cuda
from fasttune.unpadding.attention import attention, per_sequence
from fasttune.unpadding.boundaries import Boundaries
from fasttune.unpadding.kernel_check import TOLERANCE, max_difference


def test_a_kernel_that_cannot_run_is_not_chosen() -> None:
    kernel, reason = cuda.choose_kernel(torch.device("cpu"), torch.bfloat16, 32)
    assert kernel is None and reason.startswith("flash: ") and "efficient: " in reason


def test_the_proof_finds_a_kernel_that_ignores_boundaries() -> None:
    def leaks(query, key, value, boundaries, scale):
        return F.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2)

    def right(query, key, value, boundaries, scale):
        return per_sequence(query, key, value, boundaries, 0.0, scale, window=100)

    place = (torch.device("cpu"), torch.bfloat16, 32)
    assert max_difference(right, *place) <= TOLERANCE < max_difference(leaks, *place)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [32, 64])
def test_parity_on_a_gpu(dtype: torch.dtype, width: int) -> None:
    lengths = [512, 3, 128, 1]
    mask = torch.arange(512) < torch.tensor(lengths)[:, None]
    boundaries = Boundaries.from_mask(mask.cuda())
    tensors = [torch.randn(1, 4, sum(lengths), width, device="cuda").to(dtype).requires_grad_() for _ in range(3)]
    assert cuda.choose_kernel(tensors[0].device, dtype, width)[0] is not None
    for window in (None, 17):
        out = attention(torch.nn.Module(), *tensors, boundaries, scaling=0.2, sliding_window=window)[0]
        copies = [tensor.detach().float().requires_grad_() for tensor in tensors]
        parts = []
        for start, stop in pairwise(boundaries.starts):
            places = torch.arange(stop - start, device="cuda")
            near = (places[:, None] - places).abs() < (window or 512)
            part = (tensor[:, :, start:stop] for tensor in copies)
            parts.append(F.scaled_dot_product_attention(*part, attn_mask=near, scale=0.2))
        expected = torch.cat(parts, dim=2).transpose(1, 2)
        weight = torch.randn_like(expected)
        found = [out, *torch.autograd.grad(out, tensors, weight.to(dtype))]
        wanted = [expected, *torch.autograd.grad(expected, copies, weight)]
        for one, other in zip(found, wanted, strict=True):
            assert ((one.float() - other).abs().max() / other.abs().max()).item() < TOLERANCE
