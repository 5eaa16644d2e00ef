"""Python bindings of the C kernels: they check shapes and types, and pass addresses.

Letters: T real tokens, H heads, d head width, B sequences.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

HEAD_WIDTHS = (32, 64)  # the widths that kernels.c is compiled for

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
    """The struct `Attention` of kernels.c."""

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
    """`window`: a token sees those fewer than `window` positions away. `seed` determines the dropout mask."""

    scale: float
    window: int
    dropout: float = 0.0
    seed: int = 0


def draw_seed() -> int:
    """Draw 64 bits from torch's generator, so that torch's seed determines the masks."""
    return int(torch.empty((), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)) % 2**64


class Library:
    """A compiled library. Tensors must be on the CPU, and bfloat16 for attention."""

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
        """Apply dropout to `tensor` (bf16 or fp32). With the same seed, it is its own backward."""
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
        """query, key, value [1, H, T, d] and starts (B + 1,) int64 -> out [T, H, d], log-sum-exp [H, T] fp32."""
        inputs = [_rows(tensor) for tensor in (query, key, value)]
        _, heads, tokens, width = query.shape
        out = torch.empty(tokens, heads, width, dtype=query.dtype)
        lse = torch.empty(heads, tokens)
        arguments = self._arguments(inputs, out, lse, starts, settings)
        self._run(self._library.fasttune_attention_forward, arguments)
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
        """grad [T, H, d] of `out` -> gradients [T, H, d] of query, key and value; see `attention_forward`."""
        inputs = [_rows(tensor) for tensor in (query, key, value)]
        grad = grad.contiguous()
        arguments = self._arguments(inputs, out, lse, starts, settings)
        grads = (torch.empty_like(out), torch.empty_like(out), torch.empty_like(out))
        arguments.grad = grad.data_ptr()
        arguments.grad_query, arguments.grad_key, arguments.grad_value = (tensor.data_ptr() for tensor in grads)
        self._run(self._library.fasttune_attention_backward, arguments)
        return grads

    def _arguments(
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

    def _run(self, function: ctypes._NamedFuncPointer, arguments: _Attention) -> None:
        if function(ctypes.byref(arguments)) != 0:
            raise MemoryError("out of memory in attention")


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Make the numbers of a head contiguous; the kernels support any other stride."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()
