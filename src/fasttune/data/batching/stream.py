"""Steps over rows that are read window by window, for data that do not fit in memory.

Windows follow each other endlessly, epoch after epoch; rows are shuffled within a window. A step takes the next
`batch_size` rows, across the ends of windows and epochs, so its rows are the same on any number of ranks. Ranks share
them by size, and each rank tokenises its own. Three numbers say where a step begins: to resume, only the window that
holds this position is read, and none before it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from fasttune.data.batching.plan import Indices, Steps, longest_first, shard_by_tokens, split_by_budget
from fasttune.data.batching.prefetch import Prefetcher
from fasttune.data.tokens.store import TokenStore

BEGINNING = (0, 0, 0)  # epoch, window within the epoch, row within the shuffled window


class Window(Protocol):
    """Rows in the order in which steps use them."""

    @property
    def sizes(self) -> np.ndarray:
        """(N,) the approximate length of each row in any unit, to balance the ranks."""
        ...

    def encode(self, rows: Indices) -> TokenStore:
        """Tokenise these rows. The store's `rows` are ascending indices into `rows`."""
        ...

    def place(self, row: int) -> str:
        """Return where a row is in the data, for messages."""
        ...


class Windows(Protocol):
    """The windows of a stream: `num_windows` make an epoch, and each row is in exactly one of them."""

    @property
    def num_windows(self) -> int: ...

    def read(self, epoch: int, number: int) -> Window: ...


@dataclass(frozen=True)
class Part:
    """The part of a step that lies in one window: rows `first` to `last`, and this rank's examples from them."""

    window: Window
    store: TokenStore | None  # None if this rank has no row of the window
    examples: Indices
    first: int
    last: int


@dataclass(frozen=True)
class StreamStep:
    """The parts of a step; the next step begins at `after`."""

    parts: list[Part]
    after: tuple[int, int, int]

    def rows(self) -> list[str]:
        return [part.window.place(row) for part in self.parts for row in range(part.first, part.last)]


@dataclass(frozen=True)
class StreamSampler:
    """Yields the steps of a stream in order, from any position; reads the next window while this one is in use."""

    windows: Windows
    batch_size: int
    rank: int = 0
    num_ranks: int = 1

    def steps(self, begin: tuple[int, int, int] = BEGINNING) -> Iterator[StreamStep]:
        epoch, number, first = begin
        needed, parts = self.batch_size, list[Part]()
        with ThreadPoolExecutor(1, "stream") as executor:
            ahead = executor.submit(self._parts, epoch, number, first, needed)
            while True:
                window_parts = ahead.result()
                num_rows = sum(part.last - part.first for part in window_parts)
                following = (epoch, number + 1) if number + 1 < self.windows.num_windows else (epoch + 1, 0)
                missing = (needed - num_rows) % self.batch_size or self.batch_size
                ahead = executor.submit(self._parts, *following, 0, missing)
                for part in window_parts:
                    parts.append(part)
                    needed -= part.last - part.first
                    if not needed:
                        is_end = part.last == window_parts[-1].last
                        yield StreamStep(parts, (*following, 0) if is_end else (epoch, number, part.last))
                        needed, parts = self.batch_size, []
                epoch, number = following

    def _parts(self, epoch: int, number: int, first: int, needed: int) -> list[Part]:
        """Divide a window into steps; the first takes `needed` rows, as it may have begun in the window before."""
        window = self.windows.read(epoch, number)
        num_rows = len(window.sizes)
        bounds = sorted({first, *range(first + needed, num_rows, self.batch_size), num_rows})
        shares = [self._share(np.arange(*bound), window.sizes) for bound in pairwise(bounds)]
        rank_rows = np.concatenate([np.zeros(0, dtype=np.int64), *shares])
        store = window.encode(rank_rows) if len(rank_rows) else None
        if store is None:
            example_bounds = np.zeros(len(bounds), dtype=int)
        else:  # a row may have several examples, or none
            example_bounds = np.searchsorted(store.rows, np.cumsum([0, *map(len, shares)]))
        parts = []
        for (start, end), example_bound in zip(pairwise(bounds), pairwise(example_bounds), strict=True):
            parts.append(Part(window, store, np.arange(*example_bound), start, end))
        return parts

    def _share(self, rows: Indices, sizes: np.ndarray) -> Indices:
        return shard_by_tokens(longest_first(rows, sizes), sizes, self.num_ranks)[self.rank]


@dataclass
class StreamPrefetcher(Prefetcher[Steps]):
    """Prefetches from a stream. `begin`: where the step `first_step` begins."""

    windows: Windows = field(kw_only=True)
    first_step: int = field(default=0, kw_only=True)
    begin: tuple[int, int, int] = field(default=BEGINNING, kw_only=True)
    _steps: Iterator[StreamStep] | None = field(default=None, repr=False)
    _following: int = field(default=0, repr=False)  # the step that `_steps` yields next
    _known: dict[int, StreamStep] = field(default_factory=dict, repr=False)

    def microbatch_examples(self, plan: Steps, step: int) -> list[tuple[TokenStore, Indices]]:
        chosen = []
        for part in self._step(plan, step).parts:
            if part.store is None:
                continue
            lengths = part.store.lengths
            order = longest_first(part.examples, lengths)
            for examples in split_by_budget(order, lengths, plan.tokens_per_microbatch, plan.padded):
                chosen.append((part.store, examples))
        return chosen

    def any_example(self, plan: Steps, step: int) -> tuple[TokenStore, Indices]:
        part = self._step(plan, step).parts[0]
        return part.window.encode(np.array([part.first])), np.array([0])

    def rows(self, plan: Steps, step: int) -> list[str]:
        return self._known[step].rows() if step in self._known else []  # none while the step is still being read

    def position(self, step: int) -> tuple[int, int, int]:
        return self._known[step - 1].after

    def _step(self, plan: Steps, step: int) -> StreamStep:
        if self._steps is None:
            sampler = StreamSampler(self.windows, plan.batch_size, self.rank, plan.num_ranks)
            self._steps, self._following = sampler.steps(self.begin), self.first_step
        while self._following <= step:
            self._known[self._following] = next(self._steps)
            self._following += 1
        # The step before may be repeated in smaller micro-batches although this one has already been prefetched.
        self._known = {number: known for number, known in self._known.items() if number >= step - 1}
        return self._known[step]

    def close(self) -> None:
        super().close()
        if isinstance(self._steps, Generator):
            self._steps.close()
