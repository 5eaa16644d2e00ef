"""Build the tensors of a micro-batch from a token store, by index arithmetic.

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
    """How sequences are padded on the right to the width of their micro-batch.

    `length`: the width of every micro-batch. None: the length of the longest sequence, rounded up to `multiple` but
    not beyond `most`, unless the sequence itself is longer.
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
    """The input of one forward pass on one rank.

    - `inputs`: keyword arguments of the model's forward, [B, S] int64: `input_ids`, `attention_mask` and, for pairs of
      texts in models that use them, `token_type_ids`.
    - `targets`: tensors whose first axis is B; token targets are [B, S].
    - `features`: extra tensors that the task needs to compute its result, first axis B.
    - `examples`: positions of the examples in the store. `num_tokens`: T.
    - `lengths`: (B,) of the sequences, on the host. `index`: (T,) int64, the positions of the real tokens in the
      flattened batch. `starts`: (B + 1,) int32, where each sequence begins among the real tokens. So the model need not
      ask its device for them.
    - `contributes`: False for an idle batch. A rank without examples still runs a forward and backward pass, because
      the other ranks wait for its gradients; its loss is multiplied by 0.

    If examples hold several sequences, `targets` have one entry per example, and the feature `example_of` (B,) maps
    each sequence to its example.
    """

    inputs: dict[str, torch.Tensor]
    targets: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]
    examples: np.ndarray
    num_tokens: int
    lengths: tuple[int, ...]
    index: torch.Tensor
    starts: torch.Tensor
    contributes: bool = True

    def cost(self, padded: bool) -> int:
        """Return the tokens it uses of its budget: real tokens only or, if `padded`, padding included."""
        return self.inputs["attention_mask"].numel() if padded else self.num_tokens

    def to(self, device: torch.device) -> MicroBatch:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            if device.type == "mps" and tensor.dtype == torch.float64:  # Apple's GPUs have no float64
                tensor = tensor.float()
            # If the memory is not pinned, MPS may read it after it has been freed and reused (pytorch#139550).
            return tensor.to(device, non_blocking=tensor.is_pinned())

        return self._with(moved)

    def pinned(self) -> MicroBatch:
        return self._with(torch.Tensor.pin_memory)

    def _with(self, function: Callable[[torch.Tensor], torch.Tensor]) -> MicroBatch:
        def changed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: function(tensor) for name, tensor in tensors.items()}

        return replace(
            self,
            inputs=changed(self.inputs),
            targets=changed(self.targets),
            features=changed(self.features),
            index=function(self.index),
            starts=function(self.starts),
        )


def token_positions(store: TokenStore, examples: np.ndarray, padding: Padding) -> tuple[np.ndarray, np.ndarray]:
    """Return (T,) positions of the examples' tokens in the store, and [B, S] bool, true where the batch has a token."""
    bounds, chosen = store.starts, examples
    if store.sequences is not None:
        bounds, chosen = store.sequences, sequences_of(store, examples)[0]
    starts = bounds[chosen]
    lengths = bounds[chosen + 1] - starts
    columns = np.arange(padding.width(int(lengths.max())))
    is_real = columns < lengths[:, None]
    return (starts[:, None] + columns)[is_real], is_real


def sequences_of(store: TokenStore, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (B,) the sequences of these examples, longest first, and (B,) the index of each one's example."""
    assert store.sequences is not None
    first, last = (np.searchsorted(store.sequences, store.starts[examples + step]) for step in (0, 1))
    example_of = np.repeat(np.arange(len(examples)), last - first)
    within = np.arange(len(example_of)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
    sequences = first[example_of] + within
    order = np.argsort(-np.diff(store.sequences)[sequences], kind="stable")
    return sequences[order], example_of[order]


def collate(store: TokenStore, examples: np.ndarray, padding: Padding = NO_MORE_THAN_NEEDED) -> MicroBatch:
    """Gather the tokens, targets and features of `examples` into padded tensors."""
    positions, is_real = token_positions(store, examples, padding)

    def padded(values: np.ndarray, pad_value: int) -> torch.Tensor:
        filled = np.full(is_real.shape, pad_value, dtype=np.int64)
        filled[is_real] = values[positions]
        return torch.from_numpy(filled)

    def chosen(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(array[examples])) for name, array in arrays.items()}

    features = chosen(store.features)
    if store.sequences is not None:
        features["example_of"] = torch.from_numpy(sequences_of(store, examples)[1])
    lengths = is_real.sum(axis=1)
    pad_values = {"input_ids": padding.token_id}
    inputs = {name: padded(values, pad_values.get(name, 0)) for name, values in store.inputs.items()}
    return MicroBatch(
        inputs={**inputs, "attention_mask": torch.from_numpy(is_real.astype(np.int64))},
        targets=chosen(store.targets) | {name: padded(values, IGNORED) for name, values in store.token_targets.items()},
        features=features,
        examples=examples,
        num_tokens=len(positions),
        lengths=tuple(lengths.tolist()),
        index=torch.from_numpy(np.flatnonzero(is_real)),
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
    )
