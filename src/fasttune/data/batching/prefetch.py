"""Prepare the micro-batches of the next step while the device computes this one, so that it never waits for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np

from fasttune.data.batching.collate import MicroBatch, Padding, collate
from fasttune.data.batching.plan import Indices, Plan, Steps
from fasttune.data.tokens.store import TokenStore

Position = Sequence[int]  # where a step begins in the data, as numbers that a checkpoint can store
AnyPlan = TypeVar("AnyPlan", bound=Steps)


@dataclass
class Prefetcher(ABC, Generic[AnyPlan]):
    """Collates one step ahead in a thread.

    `pinned`: use pinned memory, which a CUDA device copies from asynchronously. `transform`: a function of each
    micro-batch.
    """

    padding: Padding
    rank: int = 0
    pinned: bool = False
    transform: Callable[[MicroBatch], MicroBatch] | None = None
    _executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "prefetch"), repr=False)
    _next: tuple[AnyPlan, int, Future[list[MicroBatch]]] | None = field(default=None, repr=False)

    def microbatches(self, plan: AnyPlan, step: int) -> list[MicroBatch]:
        """Return this rank's micro-batches of a step, and start preparing the next step in the background."""
        if self._next is not None and self._next[0] is plan and self._next[1] == step:
            microbatches = self._next[2].result()
        else:
            microbatches = self._executor.submit(self._collate, plan, step).result()
        self._next = (plan, step + 1, self._executor.submit(self._collate, plan, step + 1))
        return microbatches

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    @abstractmethod
    def microbatch_examples(self, plan: AnyPlan, step: int) -> list[tuple[TokenStore, Indices]]:
        """Return the examples of each micro-batch and the store that holds them."""

    @abstractmethod
    def rows(self, plan: AnyPlan, step: int) -> list[str]:
        """Return the names of the rows in a step, which must be the step requested last."""

    @abstractmethod
    def any_example(self, plan: AnyPlan, step: int) -> tuple[TokenStore, Indices]:
        """Return any example, to keep a rank busy that has none in this step."""

    def position(self, step: int) -> Position | None:
        """Return where a step begins, if the step before it was requested; None if its number is enough to find it."""
        return None

    def _collate(self, plan: AnyPlan, step: int) -> list[MicroBatch]:
        chosen = self.microbatch_examples(plan, step)
        microbatches = [collate(store, examples, self.padding) for store, examples in chosen]
        if not microbatches:
            microbatches = [replace(collate(*self.any_example(plan, step), self.padding), contributes=False)]
        if self.transform is not None:
            microbatches = [self.transform(batch) for batch in microbatches]
        return [batch.pinned() for batch in microbatches] if self.pinned else microbatches


@dataclass
class StorePrefetcher(Prefetcher[Plan]):
    """Prefetches from a token store in memory."""

    store: TokenStore = field(kw_only=True)

    def microbatch_examples(self, plan: Plan, step: int) -> list[tuple[TokenStore, Indices]]:
        return [(self.store, examples) for examples in plan.microbatches(step, self.rank)]

    def any_example(self, plan: Plan, step: int) -> tuple[TokenStore, Indices]:
        return self.store, np.array([0])

    def rows(self, plan: Plan, step: int) -> list[str]:
        return list(map(str, sorted(self.store.rows[plan.examples(step)].tolist())))
