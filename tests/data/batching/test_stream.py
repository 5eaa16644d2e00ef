"""Steps get every row of a stream exactly once per epoch, wherever a run stops and on however many ranks it resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data.batching.collate import NO_MORE_THAN_NEEDED
from fasttune.data.batching.plan import Indices, Steps
from fasttune.data.batching.stream import BEGINNING, StreamPrefetcher, StreamSampler, StreamStep
from fasttune.data.tokens.store import TokenStore


@dataclass(frozen=True)
class Rows:
    """`names` of rows; every row has as many tokens as its number says, and every seventh has two examples."""

    names: list[int]

    @property
    def sizes(self) -> np.ndarray:
        return np.array([1 + name % 13 for name in self.names], dtype=np.int64)

    def encode(self, rows: Indices) -> TokenStore:
        number, lengths, tokens = [], [], []
        for place, row in enumerate(rows.tolist()):
            for _ in range(2 if self.names[row] % 7 == 0 else 1):
                number.append(place)
                lengths.append(1 + self.names[row] % 13)
                tokens += [self.names[row]] * lengths[-1]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return TokenStore({"input_ids": np.array(tokens, np.int32)}, starts, np.array(number), np.zeros(len(rows), int))

    def place(self, row: int) -> str:
        return str(self.names[row])


@dataclass
class Epochs:
    """Windows of these sizes; `read_` says which were read."""

    sizes: list[int]
    read_: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_windows(self) -> int:
        return len(self.sizes)

    @property
    def num_rows(self) -> int:
        return sum(self.sizes)

    def read(self, epoch: int, number: int) -> Rows:
        self.read_.append((epoch, number))
        first = sum(self.sizes[:number])
        return Rows([epoch * 1000 + first + row for row in range(self.sizes[number])])


def names_of(step: StreamStep) -> list[int]:
    """The rows of a step, by the tokens of its examples: what would be trained on."""
    found = []
    for part in step.parts:
        if part.store is not None:
            for example in part.examples:
                found.append(int(part.store.inputs["input_ids"][part.store.starts[example]]))
    return found


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any)


@given(sizes, st.integers(1, 12), st.integers(1, 3))
def test_every_row_once_an_epoch_over_all_ranks(sizes: list[int], batch_size: int, ranks: int) -> None:
    windows = Epochs(sizes)
    num_steps = -(-2 * windows.num_rows // batch_size)
    seen: Counter[str] = Counter()
    trained: Counter[int] = Counter()
    for rank in range(ranks):
        for step in islice(StreamSampler(windows, batch_size, rank, ranks).steps(), num_steps):
            trained.update(names_of(step))
            seen.update(step.rows())
            assert len(step.rows()) == batch_size
    expected = [epoch * 1000 + row for epoch in range(2) for row in range(windows.num_rows)]
    assert all(seen[str(name)] == ranks for name in expected)  # what a step holds, every rank knows
    assert all(trained[name] == (2 if name % 7 == 0 else 1) for name in expected)


@given(sizes, st.integers(1, 12), st.integers(0, 40), st.integers(1, 3), st.integers(1, 3))
def test_a_stream_goes_on_where_it_stopped_on_other_ranks_too(
    sizes: list[int], batch_size: int, stop: int, before: int, after: int
) -> None:
    whole = list(islice(StreamSampler(Epochs(sizes), batch_size).steps(), stop + 5))
    begin = (
        BEGINNING
        if stop == 0
        else list(islice(StreamSampler(Epochs(sizes), batch_size, 0, before).steps(), stop))[-1].after
    )
    shares = [
        list(islice(StreamSampler(Epochs(sizes), batch_size, rank, after).steps(begin), 5)) for rank in range(after)
    ]
    for place, expected in enumerate(whole[stop:]):
        found = [name for share in shares for name in names_of(share[place])]
        assert sorted(found) == sorted(names_of(expected))
        assert sorted(shares[0][place].rows()) == sorted(expected.rows())


def test_going_on_reads_the_window_it_stopped_in_and_none_before() -> None:
    sizes = [10, 10, 10]
    begin = list(islice(StreamSampler(Epochs(sizes), 4).steps(), 4))[-1].after
    windows = Epochs(sizes)
    next(StreamSampler(windows, 4).steps(begin))
    assert begin == (0, 1, 6) and windows.read_[0] == (0, 1)
    # At the very end of a window nothing of it is read again.
    assert list(islice(StreamSampler(Epochs(sizes), 5).steps(), 4))[-1].after == (0, 2, 0)


def test_ranks_get_nearly_equal_sizes() -> None:
    windows = Epochs([500, 500])
    for step in zip(*(islice(StreamSampler(windows, 100, rank, 4).steps(), 10) for rank in range(4)), strict=True):
        loads = [sum(1 + name % 13 for name in set(names_of(share))) for share in step]
        assert max(loads) < 1.2 * min(loads)


def prefetcher_of(windows: Epochs, **where: object) -> StreamPrefetcher:
    return StreamPrefetcher(NO_MORE_THAN_NEEDED, windows=windows, **where)  # type: ignore[arg-type]


PLAN = Steps(num_examples=60, batch_size=8, tokens_per_microbatch=20)


def tokens_of(prefetcher: StreamPrefetcher, plan: Steps, step: int) -> list[list[int]]:
    return [batch.inputs["input_ids"].flatten().tolist() for batch in prefetcher.microbatches(plan, step)]


@pytest.fixture
def prefetcher() -> Iterator[StreamPrefetcher]:
    one = prefetcher_of(Epochs([25, 3, 32]))
    yield one
    one.close()


def test_a_step_done_again_in_smaller_parts_has_the_same_rows(prefetcher: StreamPrefetcher) -> None:
    smaller = replace(PLAN, tokens_per_microbatch=5)
    for step in range(20):
        once, again = prefetcher.microbatches(PLAN, step), prefetcher.microbatches(smaller, step)
        assert len(again) > len(once)
        assert sum(batch.num_tokens for batch in again) == sum(batch.num_tokens for batch in once)
        assert prefetcher.rows(PLAN, step) == prefetcher.rows(smaller, step) and len(prefetcher.rows(PLAN, step)) == 8


def test_a_prefetcher_resumes_from_its_position(prefetcher: StreamPrefetcher) -> None:
    expected = [tokens_of(prefetcher, PLAN, step) for step in range(12)]
    for step in range(12):
        other = prefetcher_of(Epochs([25, 3, 32]))
        for done in range(step):
            other.microbatches(PLAN, done)
        begin = other.position(step) if step else BEGINNING
        resumed = prefetcher_of(Epochs([25, 3, 32]), first_step=step, begin=begin)
        assert tokens_of(resumed, PLAN, step) == expected[step]
        other.close()
        resumed.close()


def test_a_fault_of_a_row_is_raised_where_its_window_is_needed() -> None:
    class Broken(Epochs):
        def read(self, epoch: int, number: int) -> Rows:
            if number == 1:
                raise ValueError("row 26")
            return super().read(epoch, number)

    prefetcher = prefetcher_of(Broken([24, 8]))
    for step in range(3):
        prefetcher.microbatches(PLAN, step)
    with pytest.raises(ValueError, match="row 26"):
        prefetcher.microbatches(PLAN, 3)
    prefetcher.close()


def test_a_step_that_is_still_being_read_has_no_rows_yet(prefetcher: StreamPrefetcher) -> None:
    """The watchdog asks for them in the very case that a window does not come."""
    assert prefetcher.rows(Steps(num_examples=30, batch_size=4, tokens_per_microbatch=100), 7) == []
