"""Dropout with cheaper masks on a CPU.

torch draws one random number of 32 bits per element, one after the other, which is a tenth of a training step. The
compiled kernel hashes each element's position with one seed. Without it, one draw of 64 bits serves four elements,
because sixteen bits are enough to decide whether to keep one (docs/decisions/0008 and 0010).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from fasttune.unpadding import native

STEPS = 2**16  # without the compiled kernel the probability is rounded to a multiple of 1 / STEPS
LOWEST = torch.iinfo(torch.int16).min


class _CompiledDrop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, probability, library):
        ctx.library, ctx.settings = library, (probability, native.draw_seed())
        return library.dropout(hidden, *ctx.settings)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.library.dropout(grad, *ctx.settings), None, None


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, probability):
        num_dropped = round(probability * STEPS)
        words = torch.empty(-(-hidden.numel() // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        ctx.keep = (words.view(torch.int16)[: hidden.numel()] >= LOWEST + num_dropped).view(hidden.shape)
        ctx.scale = STEPS / (STEPS - num_dropped)
        return _Drop.masked(ctx, hidden)

    @staticmethod
    def backward(ctx, grad):
        return _Drop.masked(ctx, grad), None

    @staticmethod
    def masked(ctx, tensor):
        return torch.where(ctx.keep, tensor, 0).mul_(ctx.scale)


class CpuDropout(nn.Dropout):
    """nn.Dropout with other random numbers: zeroes each element with probability p and scales up the rest."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        # An int16 cannot hold a threshold of 2**16, so p near 1 falls back to torch.
        if not self.training or self.p == 0.0 or round(self.p * STEPS) >= STEPS or hidden.device.type != "cpu":
            return super().forward(hidden)
        library = native.find().library
        if library is not None and hidden.dtype in (torch.bfloat16, torch.float32):
            return _CompiledDrop.apply(hidden, self.p, library)
        return _Drop.apply(hidden, self.p)


def use_cpu_dropout(model: nn.Module) -> None:
    """Replace every nn.Dropout of `model`; weights and config do not change."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) is nn.Dropout:
            model.set_submodule(name, CpuDropout(module.p, module.inplace).train(module.training))
