"""Train only those rows of the word embeddings that the training examples hold.

Without weight decay AdamW leaves a row whose gradient is always zero exactly where it is. A small data set holds a few
thousand of 30,000 to 250,000 rows; leaving the others out of gradient, clipping and optimizer changes no number and
saves their time and three quarters of their memory (docs/decisions/0009).
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

# Above this share of the vocabulary the second table costs more than it saves.
LARGEST_SHARE = 0.5
CHUNK = 2**20


class TrainedRows(nn.Embedding):
    """An embedding of which `rows` [num_used, D] are trained and the rest of `weight` [V, D] stands still.

    In training it looks up `rows` and may be asked for no other row; in evaluation it is the whole table again. Its
    state_dict is that of nn.Embedding.
    """

    rows: nn.Parameter
    used: torch.Tensor  # (num_used,) int64, the row of `weight` that each of `rows` is
    place: torch.Tensor  # (V,) int64, the inverse of `used`
    padding_place: int | None  # of padding_idx, where that is used

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        return F.embedding(self.place[input], self.rows, self.padding_place)

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
    """(num_used,) the ids among `token_ids` and the padding's, sorted.

    None where all rows have to be trained, or where it would not pay.
    """
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return None
    owners = [parameter for _, parameter in model.named_parameters(remove_duplicate=False) if parameter is table.weight]
    is_used = np.zeros(table.num_embeddings, dtype=bool)
    is_used[pad_token_id] = True
    for first in range(0, len(token_ids), CHUNK):  # numpy makes eight bytes of each index
        is_used[token_ids[first : first + CHUNK]] = True
    used = np.flatnonzero(is_used)
    is_tied = len(owners) > 1  # an output layer that shares the table moves every row
    return None if is_tied or len(used) > LARGEST_SHARE * table.num_embeddings else used


def moments_for(
    model: PreTrainedModel, used: np.ndarray, only_rows: bool, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The optimizer's `tensors` of a checkpoint, for a run that trains the rows `used` of the table alone or all of it.

    Nothing is lost either way, since the moments of a row that no training text holds are 0.
    """
    table: Any = model.get_input_embeddings()
    place = next(name for name, module in model.named_modules() if module is table)
    rows, whole = f".{place}.rows", f".{place}.weight"
    old, new = (whole, rows) if only_rows else (rows, whole)
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
            if tensor.dim():  # a step count belongs to both
                all_rows = torch.zeros(table.num_embeddings, tensor.shape[1], dtype=tensor.dtype)
                tensor = tensor[used] if only_rows else all_rows.index_copy(0, torch.from_numpy(used), tensor)
        found[name] = tensor
    return found


@contextmanager
def trained_rows(model: PreTrainedModel, used: np.ndarray) -> Iterator[None]:
    """Inside, the word embeddings of `model` train the rows `used` alone; afterwards they are a plain nn.Embedding."""
    module: nn.Module = model.get_input_embeddings()
    assert isinstance(module, nn.Embedding), "rows_in_use said None"
    weight = module.weight
    place = torch.full((len(weight),), -1, dtype=torch.int64)
    place[used] = torch.arange(len(used))
    module.register_buffer("used", torch.from_numpy(used).to(weight.device, torch.int64), persistent=False)
    module.register_buffer("place", place.to(weight.device), persistent=False)
    module.register_parameter("rows", nn.Parameter(weight.detach()[used]))
    padding = None if module.padding_idx is None else int(place[module.padding_idx])
    weight.requires_grad_(False)
    vars(module)["padding_place"] = padding if padding is not None and padding >= 0 else None
    module.__class__ = TrainedRows
    try:
        yield
    finally:
        module.eval()  # writes back what was learned
        module.__class__ = nn.Embedding
        for name in ("rows", "used", "place", "padding_place"):
            delattr(module, name)
        weight.requires_grad_(True)
