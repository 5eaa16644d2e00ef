"""The micro-batches of the next step, made while this one is computed, so that the device never waits for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np

from fasttune.data.batching.collate import MicroBatch, Padding, collate
from fasttune.data.batching.plan import Indices, Plan, Steps
from fasttune.data.tokens.store import TokenStore

Position = Sequence[int]  # where a step begins, in numbers that a checkpoint can hold
AnyPlan = TypeVar("AnyPlan", bound=Steps)


@dataclass
class Prefetcher(ABC, Generic[AnyPlan]):
    """`pinned`: in memory that a CUDA device copies from by itself while it computes."""

    padding: Padding
    rank: int = 0
    pinned: bool = False
    _executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "prefetch"), repr=False)
    _next: tuple[AnyPlan, int, Future[list[MicroBatch]]] | None = field(default=None, repr=False)

    def microbatches(self, plan: AnyPlan, step: int) -> list[MicroBatch]:
        """This rank's share of a step by `plan`; the step after it is begun in the background."""
        if self._next is not None and self._next[0] is plan and self._next[1] == step:
            found = self._next[2].result()
        else:
            found = self._executor.submit(self._collate, plan, step).result()
        self._next = (plan, step + 1, self._executor.submit(self._collate, plan, step + 1))
        return found

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    @abstractmethod
    def microbatch_examples(self, plan: AnyPlan, step: int) -> list[tuple[TokenStore, Indices]]:
        """The examples of each micro-batch, and the store they are in."""

    @abstractmethod
    def rows(self, plan: AnyPlan, step: int) -> list[str]:
        """What the rows of a step, which was asked for last, are called."""

    @abstractmethod
    def filler(self, plan: AnyPlan, step: int) -> tuple[TokenStore, Indices]:
        """Any example, for a rank that has none in this step."""

    def position(self, step: int) -> Position | None:
        """Where a step begins that comes after one asked for; None where its number says it."""
        return None

    def _collate(self, plan: AnyPlan, step: int) -> list[MicroBatch]:
        cuts = self.microbatch_examples(plan, step)
        found = [collate(store, examples, self.padding) for store, examples in cuts]
        if not found:
            found = [replace(collate(*self.filler(plan, step), self.padding), contributes=False)]
        return [batch.pinned() for batch in found] if self.pinned else found


@dataclass
class StorePrefetcher(Prefetcher[Plan]):
    """The examples of one store."""

    store: TokenStore = field(kw_only=True)

    def microbatch_examples(self, plan: Plan, step: int) -> list[tuple[TokenStore, Indices]]:
        return [(self.store, cut) for cut in plan.microbatches(step, self.rank)]

    def filler(self, plan: Plan, step: int) -> tuple[TokenStore, Indices]:
        return self.store, np.array([0])

    def rows(self, plan: Plan, step: int) -> list[str]:
        return list(map(str, sorted(self.store.rows[plan.examples(step)].tolist())))
