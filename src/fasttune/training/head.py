"""The rows of a classification head, which belong to labels: kept by name when a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch


@torch.no_grad()
def copy_rows(
    head: torch.nn.Linear, saved: Sequence[torch.Tensor], before: Sequence[str], now: Sequence[str]
) -> list[str]:
    """Copy the rows of the labels that two heads share; returns these labels, in the order of `now`.

    `saved`: weight [K, D] and bias [K] of the head for the labels `before`; `head` is the one for `now`. No label is
    shared if the shapes tell of another kind of head.
    """
    if any(len(tensor) != len(before) for tensor in saved) or saved[0].shape[1:] != head.weight.shape[1:]:
        return []
    shared = [label for label in now if label in before]
    rows, sources = [list(now).index(label) for label in shared], [list(before).index(label) for label in shared]
    for parameter, tensor in zip((head.weight, head.bias), saved, strict=True):
        parameter[rows] = tensor[sources].to(parameter.dtype)
    return shared
