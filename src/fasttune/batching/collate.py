"""Examples of a token store -> the tensors of one micro-batch, by index arithmetic.

Letters: B sequences, S padded length, T real tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from fasttune.data.token_store import TokenStore


@dataclass(frozen=True)
class MicroBatch:
    """One forward on one rank.

    `input_ids` and `attention_mask` [B, S] int64; `targets`: tensors whose first axis is B; `examples` (B,) their
    positions in the store; `num_tokens` T.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: dict[str, torch.Tensor]
    examples: np.ndarray
    num_tokens: int

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model's forward."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    def to(self, device: torch.device) -> MicroBatch:
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            targets={name: target.to(device, non_blocking=True) for name, target in self.targets.items()},
        )


def collate(store: TokenStore, examples: np.ndarray, pad_token_id: int, padded_length: int | None = None) -> MicroBatch:
    """Pad on the right to `padded_length` tokens, or to the longest of the examples when it is None."""
    starts = store.starts[examples]
    lengths = store.starts[examples + 1] - starts
    columns = np.arange(padded_length or int(lengths.max()))
    is_real = columns < lengths[:, None]
    input_ids = np.full(is_real.shape, pad_token_id, dtype=np.int64)
    input_ids[is_real] = store.input_ids[(starts[:, None] + columns)[is_real]]
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(is_real.astype(np.int64)),
        targets={
            name: torch.from_numpy(np.ascontiguousarray(target[examples])) for name, target in store.targets.items()
        },
        examples=examples,
        num_tokens=int(lengths.sum()),
    )
