"""The boundaries of the sequences in a micro-batch without padding.

Letters in this package: B sequences, S padded length, T packed tokens (the real ones and any fillers), H heads, D
hidden width, d = D / H head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch

# The sequences of a bucket are padded to the longest of them. A bucket closes when padding would exceed this fraction
# of its real tokens (docs/decisions/0004).
MAX_BUCKET_PADDING = 0.15


@dataclass(frozen=True)
class Bucket:
    """Neighbouring sequences of similar length, computed as one dense block.

    `real` is None if all have the same length; otherwise it holds the positions of the real tokens in the flattened
    [num_sequences * length] block, and `bias` [num_sequences, 1, 1, length] is 0 at them and -inf elsewhere.
    """

    start: int
    stop: int
    num_sequences: int
    length: int
    real: torch.Tensor | None
    bias: torch.Tensor | None

    def pad(self, tokens: torch.Tensor) -> torch.Tensor:
        """(tokens of the bucket, ...) -> [num_sequences, length, ...], zeros at padding."""
        shape = (self.num_sequences, self.length, *tokens.shape[1:])
        if self.real is None:
            return tokens.reshape(shape)
        return tokens.new_zeros(shape).flatten(0, 1).index_copy(0, self.real, tokens).view(shape)

    def unpad(self, block: torch.Tensor) -> torch.Tensor:
        """The inverse of `pad`."""
        tokens = block.flatten(0, 1)
        return tokens if self.real is None else tokens.index_select(0, self.real)


@dataclass(eq=False)  # not frozen: torch 2.11 would compile a layer anew for the lengths in each one
class Boundaries:
    """The lengths of B concatenated sequences (T real tokens), and the positions of the tokens in the padded [B, S].

    `index` (T,) int64 on the model's device: positions of the real tokens in the flattened padded batch. The last
    `num_fillers` sequences are fillers: copies of one token whose results are discarded (see `filled`). `given_starts`:
    `starts_on_device`, if it is there already.
    """

    lengths: tuple[int, ...]
    index: torch.Tensor
    padded_length: int
    num_fillers: int = 0
    given_starts: torch.Tensor | None = None

    @classmethod
    def from_mask(cls, mask: torch.Tensor) -> Boundaries:
        """Boundaries of a mask [B, S] that is true or 1 at real tokens, with left or right padding."""
        real = mask.bool()
        return cls(tuple(real.sum(1).tolist()), real.flatten().nonzero().squeeze(1), mask.shape[1])

    def filled(self) -> Boundaries:
        """Add fillers, none longer than the longest sequence, to round up the token count (docs/decisions/0011)."""
        longest, num_tokens = max(self.lengths), len(self.index)
        missing = -num_tokens % granularity(num_tokens)
        fillers = [longest] * (missing // longest) + [missing % longest] * (missing % longest > 0)
        return replace(self, lengths=(*self.lengths, *fillers), num_fillers=len(fillers), given_starts=None)

    @cached_property
    def starts(self) -> list[int]:
        """(B + 1,) cumulative lengths, from 0 to T."""
        return [0, *accumulate(self.lengths)]

    @cached_property
    def starts_tensor(self) -> torch.Tensor:
        """`starts` as int64 on the CPU."""
        return torch.tensor(self.starts)

    @cached_property
    def starts_on_device(self) -> torch.Tensor:
        """`starts` as int32 on the model's device, as GPU kernels expect it."""
        if self.given_starts is not None:
            return self.given_starts
        return torch.tensor(self.starts, dtype=torch.int32, device=self.index.device)

    @cached_property
    def firsts(self) -> torch.Tensor:
        """(B,) int64 on the model's device: the position of each sequence's first token among the T; no fillers."""
        number = len(self.lengths) - self.num_fillers
        if self.given_starts is not None:
            return self.given_starts[:number].long()
        return torch.tensor(self.starts[:number], device=self.index.device)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The sequences, grouped in order while their lengths are similar; computed once for all layers."""
        return [self._bucket(first, last) for first, last in group_by_length(self.lengths, MAX_BUCKET_PADDING)]

    def _bucket(self, first: int, last: int) -> Bucket:
        lengths = self.lengths[first:last]
        longest = max(lengths)
        block = (self.starts[first], self.starts[last], len(lengths), longest)
        if min(lengths) == longest:
            return Bucket(*block, real=None, bias=None)
        device = self.index.device
        is_real = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
        bias = torch.zeros(is_real.shape, device=device).masked_fill_(~is_real, float("-inf"))
        return Bucket(*block, real=is_real.flatten().nonzero().squeeze(1), bias=bias[:, None, None, :])

    @cached_property
    def _gathered(self) -> torch.Tensor:
        """`index`, extended by the position of the last real token for each filler token."""
        missing = self.starts[-1] - len(self.index)
        return torch.cat([self.index, self.index[-1:].expand(missing)]) if missing else self.index

    def gather(self, padded: torch.Tensor) -> torch.Tensor:
        """[B, S, D] -> [1, T, D]: the real tokens, then the fillers."""
        # Not a view of it: torch's compiler would make one program for views and another for other tensors.
        return padded.flatten(0, 1)[None].index_select(1, self._gathered)

    def scatter(self, packed: torch.Tensor) -> torch.Tensor:
        """[1, T, D] -> [B, S, D], zeros at padding; fillers are dropped, and no gradient flows into them."""
        batch = len(self.lengths) - self.num_fillers
        padded = packed.new_zeros(batch * self.padded_length, packed.shape[-1])
        return padded.index_copy(0, self.index, packed[0, : len(self.index)]).view(batch, self.padded_length, -1)


def granularity(num_tokens: int) -> int:
    """The power of two that fits 32 to 64 times into `num_tokens`; rounding up to a multiple adds 1% on average."""
    return 1 << max(num_tokens.bit_length() - 6, 0)


def group_by_length(lengths: Sequence[int], max_padding: float) -> list[tuple[int, int]]:
    """Split B lengths into runs [first, last) whose padding stays within `max_padding` of their real tokens."""
    groups = []
    first = 0
    while first < len(lengths):
        longest = real = lengths[first]
        last = first + 1
        while last < len(lengths):
            longest_with, real_with = max(longest, lengths[last]), real + lengths[last]
            if longest_with * (last + 1 - first) > real_with * (1 + max_padding):
                break
            longest, real, last = longest_with, real_with, last + 1
        groups.append((first, last))
        first = last
    return groups
