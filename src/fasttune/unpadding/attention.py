"""Attention over concatenated sequences, each of which sees only itself; the only module that knows the kernels.

All kernels take query, key, value [1, H, T, d], return [1, T, H, d], and are exact:
- torch's kernels for CUDA (`cuda.py`);
- `NativeAttention`: a C kernel for bf16 on CPUs with AVX512_BF16, with dropout (docs/decisions/0010);
- `BucketedAttention`: batched matrix products over buckets of similar length, with their own backward (0004);
- `per_sequence`: one call of torch's fused attention per sequence, which needs no [length, length] matrix except for
  windows.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from fasttune.unpadding import cuda, native
from fasttune.unpadding.boundaries import Boundaries, Bucket
from fasttune.unpadding.kernel_check import TOLERANCE, max_difference

NAME = "fasttune_padding_free"

# The maximum length for the compiled kernel, whose backward keeps two [length, length] bf16 matrices per thread
# (docs/decisions/0010).
MAX_COMPILED_LENGTH = 8192

# The maximum lengths for which dense blocks are faster than the fused kernel (docs/decisions/0004). For bf16, longer
# sequences would also cost memory for the saved [length, length] probabilities.
MAX_DENSE_LENGTH = {torch.bfloat16: 512, torch.float16: 512, torch.float32: 128}


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Boundaries | torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer.

    The hooks pass `Boundaries` as the mask. Without hooks (a model whose config merely names this implementation), the
    mask is the plain 2-D one, and stock attention computes the padded result. With `sliding_window`, a token sees those
    fewer than `sliding_window` positions away, as transformers counts for flash attention.
    """
    if not isinstance(attention_mask, Boundaries):
        mask = attention_mask
        if mask is not None and mask.dim() == 2:
            mask = mask[:, None, None, :].bool()
        if sliding_window is not None:
            in_window = window_mask(sliding_window, query.shape[2], query.device)
            mask = in_window if mask is None else mask & in_window
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    longest = max(attention_mask.lengths)
    window = longest if sliding_window is None else min(sliding_window, longest)
    if query.is_cuda:
        kernel, _ = cuda.choose_kernel(query.device, query.dtype, query.shape[-1], dropout > 0)
        if kernel is not None and (window == longest or kernel is cuda.flash):
            packed = cuda.Packed(attention_mask.starts_on_device, longest, window)
            return kernel(query, key, value, packed, dropout, scale), None
    library = compiled_for(query.device.type, query.dtype, query.shape[-1]).library
    if library is not None and longest <= MAX_COMPILED_LENGTH:
        starts = attention_mask.starts_tensor
        return NativeAttention.apply(query, key, value, starts, scale, window, dropout, library), None
    if dropout == 0.0 and longest <= MAX_DENSE_LENGTH.get(query.dtype, 0) and window == longest:
        return BucketedAttention.apply(query, key, value, attention_mask.buckets, scale), None
    return per_sequence(query, key, value, attention_mask, dropout, scale, window), None


@lru_cache(maxsize=16)
def compiled_for(device: str, dtype: torch.dtype, width: int) -> native.BuildResult:
    """The compiled kernels if they support heads of this `width` and pass the check; otherwise the reason."""
    if device != "cpu" or dtype != torch.bfloat16 or width not in native.HEAD_WIDTHS:
        widths = " or ".join(map(str, native.HEAD_WIDTHS))
        return native.BuildResult(None, f"the C kernels are for bf16 on a CPU and head widths of {widths}")
    build = native.find()
    if build.library is None:
        return build

    def plain(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: Boundaries, scale: float
    ) -> torch.Tensor:
        window = max(boundaries.lengths)
        return NativeAttention.apply(query, key, value, boundaries.starts_tensor, scale, window, 0.0, build.library)

    difference = max_difference(plain, torch.device(device), dtype, width)
    if not difference <= TOLERANCE:
        return native.BuildResult(None, f"the C kernels differ from torch by {difference:.1e}")
    return build


def keep_two_dimensional(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Replaces transformers' mask builder, so that no [S, S] mask is built."""
    return attention_mask


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, keep_two_dimensional)


def window_mask(window: int, length: int, device: torch.device) -> torch.Tensor:
    """[length, length] bool: true at positions less than `window` apart."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril_(window - 1).triu_(1 - window)


def per_sequence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: Boundaries,
    dropout: float,
    scale: float,
    window: int,
) -> torch.Tensor:
    longest = max(boundaries.lengths)
    in_window = window_mask(window, longest, query.device) if window < longest else None
    outputs = [
        F.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            attn_mask=None if in_window is None else in_window[: stop - start, : stop - start],
            dropout_p=dropout,
            scale=scale,
        )
        for start, stop in pairwise(boundaries.starts)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


class NativeAttention(torch.autograd.Function):
    """The kernel of native/kernels.c. Dropout masks follow from a seed, so the backward recomputes them."""

    @staticmethod
    def forward(ctx, query, key, value, starts, scale, window, dropout, library):
        seed = native.draw_seed() if dropout > 0 else 0
        ctx.settings, ctx.library = native.Settings(scale, window, dropout, seed), library
        out, lse = library.attention_forward(query, key, value, starts, ctx.settings)
        ctx.save_for_backward(query, key, value, out, lse, starts)
        return out[None]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grads = ctx.library.attention_backward(grad[0], *ctx.saved_tensors, ctx.settings)
        return *(tensor[None].transpose(1, 2) for tensor in grads), None, None, None, None, None


def to_block(packed: torch.Tensor, bucket: Bucket) -> torch.Tensor:
    """[H, T, d] -> [num_sequences * H, length, d]: one bucket, padded with zeros."""
    return bucket.pad(packed[:, bucket.start : bucket.stop].transpose(0, 1)).transpose(1, 2).flatten(0, 1)


def from_block(block: torch.Tensor, bucket: Bucket, heads: int) -> torch.Tensor:
    """[num_sequences * H, length, d] -> (tokens of the bucket, H, d): the inverse of `to_block`."""
    return bucket.unpad(block.unflatten(0, (bucket.num_sequences, heads)).transpose(1, 2))


class BucketedAttention(torch.autograd.Function):
    """softmax(Q K^T * scale) V bucket by bucket, with the textbook backward on the saved probabilities."""

    @staticmethod
    def forward(ctx, query, key, value, buckets, scale):
        heads = query.shape[1]
        out = query.new_empty(query.shape[2], heads, query.shape[3])
        saved = []
        for bucket in buckets:
            q, k, v = (to_block(tensor[0], bucket) for tensor in (query, key, value))
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
            if bucket.bias is not None:
                bias = bucket.bias.to(scores.dtype)  # adding mixed dtypes is slow
                scores.view(bucket.num_sequences, heads, bucket.length, bucket.length).add_(bias)
            probabilities = torch.softmax(scores, dim=-1).to(query.dtype)  # autocast on a GPU makes it fp32
            out[bucket.start : bucket.stop] = from_block(torch.bmm(probabilities, v), bucket, heads)
            saved += [q, k, v, probabilities]
        ctx.save_for_backward(*saved)
        ctx.buckets, ctx.scale = buckets, scale
        return out[None]

    @staticmethod
    def backward(ctx, grad):
        _, num_tokens, heads, width = grad.shape
        grads = [grad.new_empty(heads, num_tokens, width) for _ in range(3)]
        packed_grad = grad[0].transpose(0, 1)
        saved = iter(ctx.saved_tensors)
        for bucket, q, k, v, p in zip(ctx.buckets, saved, saved, saved, saved, strict=True):
            g = to_block(packed_grad, bucket)
            grad_scores = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), p, -1, p.dtype).mul_(ctx.scale)
            blocks = (
                torch.bmm(grad_scores, k),
                torch.bmm(grad_scores.transpose(1, 2), q),
                torch.bmm(p.transpose(1, 2), g),
            )
            for target, block in zip(grads, blocks, strict=True):
                target[:, bucket.start : bucket.stop] = from_block(block, bucket, heads).transpose(0, 1)
        return *(target[None] for target in grads), None, None
