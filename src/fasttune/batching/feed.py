"""The micro-batches of the next step, made while this one is computed, so that the device never waits for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from fasttune.batching.collate import MicroBatch, collate
from fasttune.batching.plan import Plan
from fasttune.data.token_store import TokenStore


@dataclass
class Feed:
    """`pinned`: in memory that a CUDA device copies from by itself while it computes."""

    store: TokenStore
    pad_token_id: int
    padded_length: int | None
    rank: int = 0
    pinned: bool = False
    _executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "feed"), repr=False)
    _next: tuple[Plan, int, Future[list[MicroBatch]]] | None = field(default=None, repr=False)

    def microbatches(self, plan: Plan, step: int) -> list[MicroBatch]:
        """This rank's share of a step by `plan`; the step after it is begun in the background."""
        if self._next is not None and self._next[0] is plan and self._next[1] == step:
            found = self._next[2].result()
        else:
            found = self._collate(plan, step)
        self._next = (plan, step + 1, self._executor.submit(self._collate, plan, step + 1))
        return found

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _collate(self, plan: Plan, step: int) -> list[MicroBatch]:
        cuts = plan.microbatches(step, self.rank)
        found = [collate(self.store, cut, self.pad_token_id, self.padded_length) for cut in cuts]
        return [batch.pinned() for batch in found] if self.pinned else found
