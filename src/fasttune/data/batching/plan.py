"""Which examples are computed when: a pure function of lengths, seed and epoch.

A step draws `batch_size` examples as ordinary shuffled training does (that is statistics), deals them to the ranks, and
cuts each rank's share into micro-batches by a token budget (that is memory). Step N of epoch E is computed without the
steps before it, so resume needs no random state, and nothing depends on how many processes read the data.
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
    """(num_examples,) the shuffled order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def longest_first(indices: Indices, lengths: np.ndarray) -> Indices:
    """Neighbours get nearly equal lengths; ties keep their order, so the result does not depend on the sort."""
    return indices[np.argsort(-lengths[indices], kind="stable")]


def num_tokens(indices: Indices, lengths: np.ndarray, padded: bool) -> int:
    """What a micro-batch costs of its budget: its real tokens, or with `padded` its sequences times the longest."""
    chosen = lengths[indices]
    return int(chosen.max() * len(chosen) if padded else chosen.sum())


def split_by_budget(indices: Indices, lengths: np.ndarray, tokens_per_microbatch: int, padded: bool) -> list[Indices]:
    """Cut examples, longest first, into micro-batches within the budget; one that exceeds it alone stands alone."""
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
    """Share examples, longest first, so that ranks get nearly equal numbers of tokens: each goes where fewest are."""
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

    `padded`: count padding in the budget (the model does not run padding-free).
    """

    num_examples: int
    batch_size: int
    tokens_per_microbatch: int
    padded: bool = False
    num_ranks: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may hold fewer than `batch_size` examples; none is dropped."""
        return math.ceil(self.num_examples / self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Plan(Steps):
    """Steps over examples of these `lengths` (N,), in an order drawn from `seed`."""

    lengths: np.ndarray
    seed: int
    num_examples: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_examples", len(self.lengths))

    def examples(self, step: int) -> Indices:
        """Examples of one step, counted from 0 over the whole run, longest first."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self.lengths), self.seed, epoch)
        return longest_first(order[position * self.batch_size : (position + 1) * self.batch_size], self.lengths)

    def microbatches(self, step: int, rank: int = 0) -> list[Indices]:
        """What one rank computes in one step, in order."""
        share = shard_by_tokens(self.examples(step), self.lengths, self.num_ranks)[rank]
        return split_by_budget(share, self.lengths, self.tokens_per_microbatch, self.padded)


def evaluation_microbatches(lengths: np.ndarray, tokens_per_microbatch: int, padded: bool) -> list[Indices]:
    """All examples once, longest first, so that the peak of memory comes at the start and padding is least."""
    return split_by_budget(longest_first(np.arange(len(lengths)), lengths), lengths, tokens_per_microbatch, padded)


def microbatch_seed(parts: Sequence[int]) -> int:
    """A 63-bit seed from (run seed, step, micro-batch index): dropout masks need no saved random state."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
