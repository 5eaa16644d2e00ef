"""The compiled kernels as functions of tensors: checks of shape and type, addresses, nothing else.

Letters: T real tokens, H heads, d width of one head, B sequences.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

HEAD_WIDTHS = (32, 64)  # those the kernels are compiled for

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _Input(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("token_stride", ctypes.c_int64), ("head_stride", ctypes.c_int64))


class _Dropout(ctypes.Structure):
    _fields_ = (
        ("threshold", ctypes.c_uint32),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    )


class _Attention(ctypes.Structure):
    """`Attention` of kernels.c, field by field."""

    _fields_ = (
        ("query", _Input),
        ("key", _Input),
        ("value", _Input),
        ("out", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("num_sequences", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("drop", _Dropout),
        ("grad", ctypes.c_void_p),
        ("grad_query", ctypes.c_void_p),
        ("grad_key", ctypes.c_void_p),
        ("grad_value", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Settings:
    """`window`: a token sees those less than so many places away; `seed` decides which weights `dropout` drops."""

    scale: float
    window: int
    dropout: float = 0.0
    seed: int = 0


def draw_seed() -> int:
    """64 bits from torch's generator, so that whoever seeds torch decides the masks."""
    return int(torch.empty((), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)) % 2**64


class Library:
    """One compiled file. Tensors are on the CPU; attention takes bfloat16."""

    def __init__(self, path: Path):
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._make_dropout = self._library.fasttune_make_dropout
        self._make_dropout.argtypes = (ctypes.c_double, ctypes.c_uint64)
        self._make_dropout.restype = _Dropout
        self._drop = {
            torch.bfloat16: self._library.fasttune_dropout_bf16,
            torch.float32: self._library.fasttune_dropout_fp32,
        }
        for function in self._drop.values():
            function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(_Dropout))
            function.restype = None

    def dropout(self, tensor: torch.Tensor, probability: float, seed: int) -> torch.Tensor:
        """`tensor` (bf16 or fp32) with numbers set to 0 and others scaled; with the same seed its own backward."""
        tensor = tensor.contiguous()
        out = torch.empty_like(tensor)
        drop = self._make_dropout(probability, seed)
        self._drop[tensor.dtype](tensor.data_ptr(), out.data_ptr(), tensor.numel(), drop)
        return out

    def attention_forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        starts: torch.Tensor,
        settings: Settings,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """query, key, value [1, H, T, d] and starts (B + 1,) int64 -> out [T, H, d], logarithms of sums [H, T] fp32."""
        inputs = [_rows(tensor) for tensor in (query, key, value)]
        _, heads, tokens, width = query.shape
        out = torch.empty(tokens, heads, width, dtype=query.dtype)
        lse = torch.empty(heads, tokens)
        work = self._work(inputs, out, lse, starts, settings)
        self._run(self._library.fasttune_attention_forward, work)
        return out, lse

    def attention_backward(
        self,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        starts: torch.Tensor,
        settings: Settings,
    ) -> Gradients:
        """grad [T, H, d] of `out` -> gradients [T, H, d] of query, key and value; the rest as in the forward call."""
        inputs = [_rows(tensor) for tensor in (query, key, value)]
        grad = grad.contiguous()
        work = self._work(inputs, out, lse, starts, settings)
        grads = (torch.empty_like(out), torch.empty_like(out), torch.empty_like(out))
        work.grad = grad.data_ptr()
        work.grad_query, work.grad_key, work.grad_value = (tensor.data_ptr() for tensor in grads)
        self._run(self._library.fasttune_attention_backward, work)
        return grads

    def _work(
        self,
        inputs: Sequence[torch.Tensor],
        out: torch.Tensor,
        lse: torch.Tensor,
        starts: torch.Tensor,
        settings: Settings,
    ) -> _Attention:
        width = out.shape[2]
        assert width in HEAD_WIDTHS and all(tensor.dtype == torch.bfloat16 for tensor in (*inputs, out))
        return _Attention(
            *(_Input(tensor.data_ptr(), tensor.stride(2), tensor.stride(1)) for tensor in inputs),
            out.data_ptr(),
            lse.data_ptr(),
            starts.data_ptr(),
            len(starts) - 1,
            out.shape[1],
            width,
            settings.window,
            settings.scale,
            self._make_dropout(settings.dropout, settings.seed),
        )

    def _run(self, function: ctypes._NamedFuncPointer, work: _Attention) -> None:
        if function(ctypes.byref(work)) != 0:
            raise MemoryError("no memory for attention")


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """The kernels take any stride but that inside a head."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()
