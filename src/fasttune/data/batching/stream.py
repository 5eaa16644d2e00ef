"""Steps over rows that are read window by window, for data that do not fit into memory.

Rows come in one endless order, epoch after epoch, which is that of the windows and shuffled within each. A step takes
the next `batch_size` of them, wherever windows and epochs end, and shares them over the ranks by their sizes, so that
its rows are the same on any number of ranks; each rank tokenises its own. Where a step begins is three numbers: resume
reads the window it begins in, and nothing before.
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

BEGINNING = (0, 0, 0)  # epoch, window of it, row of that in shuffled order


class Window(Protocol):
    """Rows in the order in which they are used."""

    @property
    def sizes(self) -> np.ndarray:
        """(N,) about how long each row is, in any unit: ranks get rows of nearly equal sums."""
        ...

    def encode(self, rows: Indices) -> TokenStore:
        """The examples of these rows; in its `rows` the first of them is 0, and they ascend."""
        ...

    def place(self, row: int) -> str:
        """Where a row stands in the data, in words."""
        ...


class Windows(Protocol):
    """All windows of a stream; `num_windows` make an epoch, each row in one of them."""

    @property
    def num_windows(self) -> int: ...

    def read(self, epoch: int, number: int) -> Window: ...


@dataclass(frozen=True)
class Part:
    """What a step takes from one window: rows `first` to `last`, and this rank's examples of them."""

    window: Window
    store: TokenStore | None  # None where no row is this rank's
    examples: Indices
    first: int
    last: int


@dataclass(frozen=True)
class StreamStep:
    """`after`: where the next step begins."""

    parts: list[Part]
    after: tuple[int, int, int]

    def rows(self) -> list[str]:
        return [part.window.place(row) for part in self.parts for row in range(part.first, part.last)]


@dataclass(frozen=True)
class StreamSampler:
    """Steps in order, from any place of a stream; the next window is read while this one is used."""

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
                found = ahead.result()
                num_rows = sum(part.last - part.first for part in found)
                following = (epoch, number + 1) if number + 1 < self.windows.num_windows else (epoch + 1, 0)
                missing = (needed - num_rows) % self.batch_size or self.batch_size
                ahead = executor.submit(self._parts, *following, 0, missing)
                for part in found:
                    parts.append(part)
                    needed -= part.last - part.first
                    if not needed:
                        is_end = part.last == found[-1].last
                        yield StreamStep(parts, (*following, 0) if is_end else (epoch, number, part.last))
                        needed, parts = self.batch_size, []
                epoch, number = following

    def _parts(self, epoch: int, number: int, first: int, needed: int) -> list[Part]:
        """A window cut into what steps take of it; `needed` rows, at first, for a step that may have begun before."""
        window = self.windows.read(epoch, number)
        num_rows = len(window.sizes)
        bounds = sorted({first, *range(first + needed, num_rows, self.batch_size), num_rows})
        shares = [self._share(np.arange(*bound), window.sizes) for bound in pairwise(bounds)]
        mine = np.concatenate([np.zeros(0, dtype=np.int64), *shares])
        store = window.encode(mine) if len(mine) else None
        places = np.searchsorted(store.rows, np.cumsum([0, *map(len, shares)])) if store else np.zeros(len(bounds), int)
        examples = [np.arange(*bound) for bound in pairwise(places)]
        return [
            Part(window, store, own, start, end) for own, (start, end) in zip(examples, pairwise(bounds), strict=True)
        ]

    def _share(self, rows: Indices, sizes: np.ndarray) -> Indices:
        return shard_by_tokens(longest_first(rows, sizes), sizes, self.num_ranks)[self.rank]


@dataclass
class StreamPrefetcher(Prefetcher[Steps]):
    """`begin`: where the step `first_step` begins."""

    windows: Windows = field(kw_only=True)
    first_step: int = field(default=0, kw_only=True)
    begin: tuple[int, int, int] = field(default=BEGINNING, kw_only=True)
    _steps: Iterator[StreamStep] | None = field(default=None, repr=False)
    _following: int = field(default=0, repr=False)  # the step that comes next out of these
    _known: dict[int, StreamStep] = field(default_factory=dict, repr=False)

    def microbatch_examples(self, plan: Steps, step: int) -> list[tuple[TokenStore, Indices]]:
        found = []
        for part in self._step(plan, step).parts:
            if part.store is not None:
                lengths = part.store.lengths
                order = longest_first(part.examples, lengths)
                found += [
                    (part.store, one)
                    for one in split_by_budget(order, lengths, plan.tokens_per_microbatch, plan.padded)
                ]
        return found

    def filler(self, plan: Steps, step: int) -> tuple[TokenStore, Indices]:
        part = self._step(plan, step).parts[0]
        return part.window.encode(np.array([part.first])), np.array([0])

    def rows(self, plan: Steps, step: int) -> list[str]:
        return self._known[step].rows() if step in self._known else []  # it is still being read

    def position(self, step: int) -> tuple[int, int, int]:
        return self._known[step - 1].after

    def _step(self, plan: Steps, step: int) -> StreamStep:
        if self._steps is None:
            sampler = StreamSampler(self.windows, plan.batch_size, self.rank, plan.num_ranks)
            self._steps, self._following = sampler.steps(self.begin), self.first_step
        while self._following <= step:
            self._known[self._following] = next(self._steps)
            self._following += 1
        # The step before may be done again, while the one after it is here already.
        self._known = {number: one for number, one in self._known.items() if number >= step - 1}
        return self._known[step]

    def close(self) -> None:
        super().close()
        if isinstance(self._steps, Generator):
            self._steps.close()
