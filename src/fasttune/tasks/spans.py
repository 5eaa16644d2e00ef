"""Find the best answer spans of windows on the device, exactly, over all valid pairs of start and end.

Shapes: B windows, S tokens of the longest window, n spans per window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Spans:
    """`scores`, `starts`, `ends` [B, n], best first; missing spans have a score of -inf and the positions 0."""

    scores: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor


def best_spans(
    start_logits: torch.Tensor, end_logits: torch.Tensor, allowed: torch.Tensor, max_answer_length: int, n: int
) -> Spans:
    """The n best spans by start logit + end logit, both ends in `allowed` [B, S], at most `max_answer_length` tokens.

    The best span from a start needs the largest end logit of the next tokens: a sliding maximum, computed by doubling
    in a few passes over [B, S]. The n best spans begin at the n best starts by that measure, so only those are
    expanded, and no S x S matrix is allocated.
    """
    lowest = float("-inf")
    starts = start_logits.float().masked_fill(~allowed, lowest)
    ends = end_logits.float().masked_fill(~allowed, lowest)
    length = min(max_answer_length, starts.shape[1])
    best_from = starts + sliding_maximum(ends, length)
    count = min(n, starts.shape[1])
    chosen = best_from.topk(count, dim=1).indices  # [B, count]
    offsets = torch.arange(length, device=starts.device)
    places = chosen[:, :, None] + offsets  # [B, count, length]
    inside = places < starts.shape[1]
    places = places.clamp(max=starts.shape[1] - 1)
    scores = starts.gather(1, chosen)[:, :, None] + ends.gather(1, places.flatten(1)).view_as(places)
    scores = scores.masked_fill(~inside, lowest).flatten(1)
    best = scores.topk(min(n, scores.shape[1]), dim=1)
    begin = chosen.gather(1, best.indices // length)
    end = begin + best.indices % length
    begin, end = (places.masked_fill(best.values == lowest, 0) for places in (begin, end))
    missing = (0, n - best.values.shape[1])
    return Spans(pad(best.values, missing, value=lowest), pad(begin, missing), pad(end, missing))


def sliding_maximum(values: torch.Tensor, width: int) -> torch.Tensor:
    """[B, S]: the maximum of values[s : s + width] at each position s."""
    done, result = 1, values
    while done < width:
        step = min(done, width - done)
        shifted = torch.full_like(result, float("-inf"))
        shifted[:, :-step] = result[:, step:]
        result = torch.maximum(result, shifted)
        done += step
    return result
