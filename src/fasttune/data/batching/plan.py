"""Which examples each step computes: a pure function of lengths, seed and epoch.

A step draws `batch_size` examples, as ordinary shuffled training does, shards them across the ranks by tokens, and
splits each rank's share into micro-batches that fit a token budget. The batch size decides what is learned; the budget
only decides how much memory it takes. Any step can be computed without the steps before it, so resuming needs no saved
random state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

Indices = np.ndarray  # (number of examples,) int64 positions in a token store


@lru_cache(maxsize=2)
def epoch_order(num_examples: int, seed: int, epoch: int) -> Indices:
    """Return (num_examples,) the shuffled order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def longest_first(indices: Indices, lengths: np.ndarray) -> Indices:
    """Sort examples by length; ties keep their order, so the result does not depend on the sort algorithm."""
    return indices[np.argsort(-lengths[indices], kind="stable")]


def num_tokens(indices: Indices, lengths: np.ndarray, padded: bool) -> int:
    """Return a micro-batch's cost: its real tokens or, if `padded`, its number of sequences times the longest one."""
    chosen = lengths[indices]
    return int(chosen.max() * len(chosen) if padded else chosen.sum())


def split_by_budget(indices: Indices, lengths: np.ndarray, tokens_per_microbatch: int, padded: bool) -> list[Indices]:
    """Split examples, longest first, into micro-batches within the budget; an example above it gets its own."""
    microbatches = []
    first = 0
    real = 0
    for position, index in enumerate(indices):
        length = int(lengths[index])
        longest = int(lengths[indices[first]])
        cost = longest * (position + 1 - first) if padded else real + length
        if position > first and cost > tokens_per_microbatch:
            microbatches.append(indices[first:position])
            first, real = position, 0
        real += length
    if len(indices):
        microbatches.append(indices[first:])
    return microbatches


def shard_by_tokens(indices: Indices, lengths: np.ndarray, num_ranks: int) -> list[Indices]:
    """Give each example, longest first, to the rank with the fewest tokens so far, to balance the ranks."""
    if num_ranks == 1:
        return [indices]
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    num_tokens = [0] * num_ranks
    for index in indices:
        rank = num_tokens.index(min(num_tokens))
        shares[rank].append(int(index))
        num_tokens[rank] += int(lengths[index])
    return [np.array(share, dtype=np.int64) for share in shares]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of a training run over `num_examples`.

    `padded`: padding counts towards the token budget, because the model does not run padding-free.
    """

    num_examples: int
    batch_size: int
    tokens_per_microbatch: int
    padded: bool = False
    num_ranks: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may have fewer than `batch_size` examples; no example is dropped."""
        return math.ceil(self.num_examples / self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Plan(Steps):
    """Steps over examples with these `lengths` (N,), shuffled with `seed`."""

    lengths: np.ndarray
    seed: int
    num_examples: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_examples", len(self.lengths))

    def examples(self, step: int) -> Indices:
        """Return the examples of a step, longest first. Steps are numbered from 0 over the whole run."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self.lengths), self.seed, epoch)
        return longest_first(order[position * self.batch_size : (position + 1) * self.batch_size], self.lengths)

    def microbatches(self, step: int, rank: int = 0) -> list[Indices]:
        """Return the micro-batches that `rank` computes in a step, in order."""
        share = shard_by_tokens(self.examples(step), self.lengths, self.num_ranks)[rank]
        return split_by_budget(share, self.lengths, self.tokens_per_microbatch, self.padded)


def evaluation_microbatches(lengths: np.ndarray, tokens_per_microbatch: int, padded: bool) -> list[Indices]:
    """Return every example once, longest first, so that memory peaks at the start and there is little padding."""
    return split_by_budget(longest_first(np.arange(len(lengths)), lengths), lengths, tokens_per_microbatch, padded)


def microbatch_seed(parts: Sequence[int]) -> int:
    """Return a 63-bit seed for (run seed, step, rank, micro-batch index); dropout needs no saved random state."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
