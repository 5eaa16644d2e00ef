"""Examples of a token store -> the tensors of one micro-batch, by index arithmetic.

Letters: B sequences, S padded length, T real tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from fasttune.data.tokens.store import IGNORED, TokenStore


@dataclass(frozen=True)
class Padding:
    """What stands on the right of sequences that are shorter than their micro-batch is wide.

    `length`: the width of all; None: that of the longest sequence, up to the next `multiple`, but no more than `most`
    unless the sequence is longer.
    """

    token_id: int = 0
    length: int | None = None
    multiple: int = 1
    most: int = 0

    def width(self, longest: int) -> int:
        return self.length or max(min(-(-longest // self.multiple) * self.multiple, self.most), longest)


NO_MORE_THAN_NEEDED = Padding()


@dataclass(frozen=True)
class MicroBatch:
    """One forward on one rank.

    `inputs`: keyword arguments of the model's forward, [B, S] int64: `input_ids`, `attention_mask` and, for pairs of
    models that have them, `token_type_ids`; `targets`: tensors whose first axis is B, those of tokens [B, S];
    `features`: what the task's result needs, first axis B; `examples` their positions in the store; `num_tokens` T.
    Where examples hold several sequences, `targets` have one entry an example, and the feature `example_of` (B,) says
    to which of `examples` a sequence belongs. `contributes` False: a rank without a share computes it, since the others
    wait for its gradients, and nothing is learned from it.
    """

    inputs: dict[str, torch.Tensor]
    targets: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]
    examples: np.ndarray
    num_tokens: int
    contributes: bool = True

    def cost(self, padded: bool) -> int:
        """What it takes of its budget: its real tokens, or with `padded` all of its places."""
        return self.inputs["input_ids"].numel() if padded else self.num_tokens

    def to(self, device: torch.device) -> MicroBatch:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            if device.type == "mps" and tensor.dtype == torch.float64:  # which Apple's GPUs do not have
                tensor = tensor.float()
            # From memory that is not pinned MPS may read after it was given to others (pytorch#139550).
            return tensor.to(device, non_blocking=tensor.is_pinned())

        return self._with(moved)

    def pinned(self) -> MicroBatch:
        return self._with(torch.Tensor.pin_memory)

    def _with(self, function: Callable[[torch.Tensor], torch.Tensor]) -> MicroBatch:
        def changed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: function(tensor) for name, tensor in tensors.items()}

        return replace(
            self, inputs=changed(self.inputs), targets=changed(self.targets), features=changed(self.features)
        )


def token_positions(store: TokenStore, examples: np.ndarray, padding: Padding) -> tuple[np.ndarray, np.ndarray]:
    """(T,) places of the examples' tokens in the store, and [B, S] bool, their places in the padded micro-batch."""
    bounds, chosen = store.starts, examples
    if store.sequences is not None:
        bounds, chosen = store.sequences, sequences_of(store, examples)[0]
    starts = bounds[chosen]
    lengths = bounds[chosen + 1] - starts
    columns = np.arange(padding.width(int(lengths.max())))
    is_real = columns < lengths[:, None]
    return (starts[:, None] + columns)[is_real], is_real


def sequences_of(store: TokenStore, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) the sequences of these examples, longest first, and of each the place of its example among `examples`."""
    assert store.sequences is not None
    first, last = (np.searchsorted(store.sequences, store.starts[examples + step]) for step in (0, 1))
    example_of = np.repeat(np.arange(len(examples)), last - first)
    within = np.arange(len(example_of)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
    sequences = first[example_of] + within
    order = np.argsort(-np.diff(store.sequences)[sequences], kind="stable")
    return sequences[order], example_of[order]


def collate(store: TokenStore, examples: np.ndarray, padding: Padding = NO_MORE_THAN_NEEDED) -> MicroBatch:
    positions, is_real = token_positions(store, examples, padding)

    def padded(values: np.ndarray, filler: int) -> torch.Tensor:
        filled = np.full(is_real.shape, filler, dtype=np.int64)
        filled[is_real] = values[positions]
        return torch.from_numpy(filled)

    def chosen(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(array[examples])) for name, array in arrays.items()}

    features = chosen(store.features)
    if store.sequences is not None:
        features["example_of"] = torch.from_numpy(sequences_of(store, examples)[1])
    fillers = {"input_ids": padding.token_id}
    inputs = {name: padded(values, fillers.get(name, 0)) for name, values in store.inputs.items()}
    return MicroBatch(
        inputs={**inputs, "attention_mask": torch.from_numpy(is_real.astype(np.int64))},
        targets=chosen(store.targets) | {name: padded(values, IGNORED) for name, values in store.token_targets.items()},
        features=features,
        examples=examples,
        num_tokens=len(positions),
    )
