"""The calls of GPU kernels, checked without a GPU: meta tensors have shapes and dtypes, and gradients of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fasttune.unpadding import attention, cuda
from fasttune.unpadding.attention import BucketedAttention
from fasttune.unpadding.boundaries import Boundaries

HEADS, TOKENS, WIDTH, LONGEST = 4, 30, 32, 12


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    """Query, key and value [1, H, T, d], laid out as a projection leaves them."""
    packed = torch.empty(3, 1, TOKENS, HEADS, WIDTH, dtype=dtype, device="meta", requires_grad=True)
    return [tensor.transpose(1, 2) for tensor in packed.unbind()]


class ShapesOfBackward(TorchDispatchMode):
    """Answers for torch's meta function of this backward pass, which cannot take autograd's own call of it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._efficient_attention_backward.default:
            self.given = args
            return (*(torch.empty_like(tensor) for tensor in args[1:4]), None)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("kernel", "window"), [(cuda.flash, 12), (cuda.flash, 5), (cuda.efficient, 12)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_forward_and_backward_have_the_shapes_of_attention(
    kernel: cuda.Kernel, window: int, dropout: float, dtype: torch.dtype
) -> None:
    if kernel is cuda.flash and dtype == torch.float32:
        pytest.skip("flash attention is for half precision")
    query, key, value = tensors = inputs(dtype)
    starts = torch.empty(4, dtype=torch.int32, device="meta")
    out = kernel(query, key, value, cuda.Packed(starts, LONGEST, window), dropout, WIDTH**-0.5)
    assert out.shape == (1, TOKENS, HEADS, WIDTH) and out.dtype == dtype
    with ShapesOfBackward() as mode:
        grads = torch.autograd.grad(out, tensors, torch.empty_like(out))
    if kernel is cuda.efficient:  # boundaries, lengths and dropout of the forward pass come back
        assert mode.given[6] is starts and mode.given[8:10] == (LONGEST, LONGEST) and mode.given[11] == dropout
    assert [(grad.shape, grad.dtype) for grad in grads] == [(tensor.shape, dtype) for tensor in tensors]


def test_what_torch_publishes_is_used_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[dict[str, Any]] = []
    published = cuda.varlen.varlen_attn
    monkeypatch.setattr(
        cuda.varlen, "varlen_attn", lambda *given, **how: called.append(how) or published(*given, **how)
    )
    starts = torch.empty(4, dtype=torch.int32, device="meta")
    for dropout in (0.0, 0.1):
        cuda.flash(*inputs(torch.bfloat16), cuda.Packed(starts, LONGEST, 5), dropout, 0.3)
    assert called == [{"scale": 0.3, "window_size": (4, 4)}]


@pytest.mark.parametrize(
    ("error", "is_unsupported"),
    [
        (RuntimeError("FlashAttention only supports Ampere GPUs or newer."), True),
        (RuntimeError("FlashAttention only support fp16 and bf16 data type"), True),
        (RuntimeError("FlashAttention forward only supports head dimension at most 256"), True),
        (RuntimeError("head_size should be a multiple of 8"), True),
        (
            NotImplementedError("Could not run 'aten::_flash_attention_forward' with arguments from the 'CPU' backend"),
            True,
        ),
        (RuntimeError("FA3 does not support dropout"), True),
        (RuntimeError("_efficient_attention_backward does not have a deterministic implementation"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("something that nobody knows"), False),
    ],
)
def test_only_what_is_not_supported_means_another_kernel(
    error: Exception, is_unsupported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> float:
        raise error

    monkeypatch.setattr(cuda, "max_difference", fail)
    cuda._choose_kernel.cache_clear()
    try:
        if is_unsupported:
            kernel, reason = cuda.choose_kernel(torch.device("cpu"), torch.bfloat16, 32)
            assert kernel is None and str(error)[:30] in reason
        else:
            with pytest.raises(type(error)):
                cuda.choose_kernel(torch.device("cpu"), torch.bfloat16, 32)
    finally:
        cuda._choose_kernel.cache_clear()


def test_flash_is_not_asked_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[cuda.Kernel] = []

    def difference(call: Any, *_: Any) -> float:
        asked.append(call.args[0])
        return 0.0

    monkeypatch.setattr(cuda, "max_difference", difference)
    cuda._choose_kernel.cache_clear()
    try:
        for dtype, kernel in ((torch.float32, cuda.efficient), (torch.bfloat16, cuda.flash)):
            asked.clear()
            assert cuda.choose_kernel(torch.device("cpu"), dtype, 32)[0] is kernel and set(asked) == {kernel}
    finally:
        cuda._choose_kernel.cache_clear()


def test_a_kernel_that_refuses_dropout_is_used_only_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flash attention 3 and 4, which a user may have activated."""

    def refuses(*given: Any) -> torch.Tensor:
        if given[4] > 0:
            raise RuntimeError("FA4 does not support dropout")
        return given[0].transpose(1, 2)

    monkeypatch.setattr(cuda, "flash", refuses)
    monkeypatch.setattr(cuda, "efficient", refuses)
    monkeypatch.setattr(cuda, "max_difference", lambda *_: 0.0)
    cuda._choose_kernel.cache_clear()
    place = (torch.device("cpu"), torch.bfloat16, 32)
    assert cuda.choose_kernel(*place)[0] is refuses
    assert cuda.choose_kernel(*place, with_dropout=True)[0] is None
    cuda._choose_kernel.cache_clear()


def test_dense_blocks_keep_their_dtype_where_autocast_makes_the_softmax_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As autocast on a GPU does."""
    softmax = torch.softmax
    monkeypatch.setattr(attention.torch, "softmax", lambda scores, dim: softmax(scores.float(), dim))
    boundaries = Boundaries.from_mask(torch.tensor([[1, 1, 1], [1, 1, 0]]))
    tensors = [torch.randn(1, 2, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    out = BucketedAttention.apply(*tensors, boundaries.buckets, 0.3)
    grads = torch.autograd.grad(out.sum(), tensors)
    assert {tensor.dtype for tensor in (out, *grads)} == {torch.bfloat16}
