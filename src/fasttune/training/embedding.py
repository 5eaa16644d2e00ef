"""Trains only those rows of the word embeddings that occur in the training examples.

Without weight decay AdamW never moves a row whose gradient is always zero. A small data set uses a few thousand of
30,000 to 250,000 rows. Excluding the others from gradient, clipping and optimizer changes no number, and saves their
time and three quarters of their memory (docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

# Above this share of the vocabulary a second table costs more than it saves.
LARGEST_SHARE = 0.5
CHUNK = 2**20


class TrainedRows(nn.Embedding):
    """An embedding that shares the weight [V, D] of `table` and trains only its rows `used` [num_used].

    In training it looks up `rows` [num_used, D] and accepts no other row; in evaluation it is the whole table. Its
    state_dict is that of nn.Embedding.
    """

    used: torch.Tensor  # (num_used,) int64: the row of `weight` for each row of `rows`
    index: torch.Tensor  # (V,) int64: the inverse of `used`, -1 for rows that are not used

    def __init__(self, table: nn.Embedding, used: np.ndarray):
        super().__init__(table.num_embeddings, table.embedding_dim, padding_idx=table.padding_idx, _weight=table.weight)
        self.weight = table.weight.requires_grad_(False)
        index = torch.full((table.num_embeddings,), -1, dtype=torch.int64)
        index[used] = torch.arange(len(used))
        padding = -1 if table.padding_idx is None else int(index[table.padding_idx])
        self.padding_row = padding if padding >= 0 else None
        self.register_buffer("used", torch.from_numpy(used).to(self.weight.device, torch.int64), persistent=False)
        self.register_buffer("index", index.to(self.weight.device), persistent=False)
        self.rows = nn.Parameter(self.weight.detach()[self.used])

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        return F.embedding(self.index[input], self.rows, self.padding_row)

    def train(self, mode: bool = True) -> TrainedRows:
        if not mode:
            self.write_back()
        return super().train(mode)

    def write_back(self) -> None:
        with torch.no_grad():
            self.weight[self.used] = self.rows

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self.write_back()
        destination[f"{prefix}weight"] = self.weight if keep_vars else self.weight.detach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        with torch.no_grad():
            self.weight.copy_(state_dict[f"{prefix}weight"])
            self.rows.copy_(self.weight[self.used])


def rows_in_use(model: PreTrainedModel, token_ids: np.ndarray, pad_token_id: int) -> np.ndarray | None:
    """The ids in `token_ids`, and that of padding, sorted (num_used,).

    None if all rows must be trained, or if excluding some would not pay.
    """
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return None
    owners = [parameter for _, parameter in model.named_parameters(remove_duplicate=False) if parameter is table.weight]
    is_used = np.zeros(table.num_embeddings, dtype=bool)
    is_used[pad_token_id] = True
    for first in range(0, len(token_ids), CHUNK):  # numpy turns each index into eight bytes
        is_used[token_ids[first : first + CHUNK]] = True
    used = np.flatnonzero(is_used)
    is_tied = len(owners) > 1  # gradients of an output layer that shares the table move every row
    return None if is_tied or len(used) > LARGEST_SHARE * table.num_embeddings else used


def moments_for(
    model: PreTrainedModel, used: np.ndarray, only_rows: bool, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The optimizer's `tensors` of a checkpoint, converted to a run that trains `only_rows`, or all rows of the table.

    Nothing is lost either way: the moments of a row that never occurs are 0.
    """
    table: Any = model.get_input_embeddings()
    name = _name_of(model, table)
    rows, whole = f".{name}.rows", f".{name}.weight"
    old, new = (whole, rows) if only_rows else (rows, whole)
    converted = {}
    for key, tensor in tensors.items():
        if key.endswith(old):
            key = key.removesuffix(old) + new
            if tensor.dim():  # the step count is a scalar, the same for both
                all_rows = torch.zeros(table.num_embeddings, tensor.shape[1], dtype=tensor.dtype)
                tensor = tensor[used] if only_rows else all_rows.index_copy(0, torch.from_numpy(used), tensor)
        converted[key] = tensor
    return converted


@contextmanager
def trained_rows(model: PreTrainedModel, used: np.ndarray) -> Iterator[None]:
    """Within the context only the rows `used` of the word embeddings train; afterwards the own table is back."""
    table: Any = model.get_input_embeddings()
    name = _name_of(model, table)
    trained = TrainedRows(table, used).train(table.training)
    model.set_submodule(name, trained)
    try:
        yield
    finally:
        trained.write_back()
        table.weight.requires_grad_(True)
        model.set_submodule(name, table.eval())


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
