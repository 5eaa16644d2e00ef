"""Answers many small requests together: a queue, and one thread that takes what waits up to a budget of tokens.

While the model computes a batch, further requests wait and become the next one, so the size of batches follows the
load and a lonely request never waits for others. Sequences of a batch do not see each other (padding-free execution),
so an answer does not depend on who shares the batch.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fasttune.data.tokens.store import TokenStore, joined
from fasttune.evaluation.predictor import Predictor
from fasttune.tasks import Prediction, Rows
from fasttune.training.scoring import predict_split

MOST_TOKENS = 16_384  # of a batch, as in text-embeddings-inference
MOST_WAITING = 512  # requests


class QueueFull(Exception):
    """As many requests wait as may."""


class NotFinite(Exception):
    """The model gave NaN or an infinite number for a request."""


@dataclass(frozen=True)
class Timing:
    """When a request came, left the queue and was tokenised, and when the model computed its batch.

    In seconds of `time.perf_counter`. Between `tokenized` and `begin` others of the batch are tokenised.
    """

    came: float
    taken: float
    tokenized: float
    begin: float
    end: float
    batch_tokens: int
    batch_requests: int

    @property
    def queue(self) -> float:
        return self.taken - self.came

    @property
    def tokenization(self) -> float:
        return self.tokenized - self.taken

    @property
    def inference(self) -> float:
        return self.end - self.begin


@dataclass
class _Job:
    rows: Rows
    future: Future[tuple[list[Prediction], Timing]] = field(default_factory=Future)
    came: float = field(default_factory=time.perf_counter)
    taken: float = 0.0
    tokenized: float = 0.0
    store: TokenStore | None = None


class Batcher:
    """`submit` rows from any thread; one thread computes. `close` answers what waits, and ends it."""

    def __init__(self, predictor: Predictor, most_tokens: int = MOST_TOKENS, most_waiting: int = MOST_WAITING):
        self.predictor = predictor
        self.most_tokens, self.most_waiting = most_tokens, most_waiting
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: set[Future[Any]] = set()  # those in the queue that were not cancelled
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="fasttune-batcher", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def submit(self, rows: Rows) -> Future[tuple[list[Prediction], Timing]]:
        """The predictions of these rows, later; a cancelled future is not computed. Raises QueueFull."""
        if self._closed or self.num_waiting >= self.most_waiting:
            raise QueueFull
        job = _Job(rows)
        self._waiting.add(job.future)
        job.future.add_done_callback(self._waiting.discard)  # also when it is cancelled
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Answer what waits, then end; new requests are refused from now on."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        job = self._jobs.get()
        while job is not None:
            batch: list[_Job] = []
            num_tokens = 0
            while job is not None:
                self._waiting.discard(job.future)
                if job.future.set_running_or_notify_cancel() and self._encode(job):
                    assert job.store is not None
                    batch.append(job)
                    num_tokens += job.store.num_tokens
                if num_tokens >= self.most_tokens or self._jobs.empty():
                    break
                job = self._jobs.get()
            if batch:
                self._answer(batch, num_tokens)
            if job is not None:
                job = self._jobs.get()

    def _encode(self, job: _Job) -> bool:
        """Tokenise the rows of a job; False if they cannot be, and the job has its error."""
        job.taken = time.perf_counter()
        predictor = self.predictor
        try:
            with predictor.lock:
                job.store = predictor.task.encode(
                    job.rows, predictor.setup.tokenizer, predictor.setup.max_length, "the request"
                )
        except Exception as error:
            job.future.set_exception(error)
            return False
        job.tokenized = time.perf_counter()
        return True

    def _answer(self, batch: list[_Job], num_tokens: int) -> None:
        predictor, begin = self.predictor, time.perf_counter()
        stores = [job.store for job in batch if job.store is not None]
        try:
            with predictor.lock:
                results = predict_split(predictor.setup, predictor.task, joined(stores)).results
        except Exception as error:  # a model that fails for a batch fails for each of its requests
            for job in batch:
                job.future.set_exception(error)
            return
        end = time.perf_counter()
        first = 0
        for job, store in zip(batch, stores, strict=True):
            number = store.num_tokens if predictor.task.result_per_token else len(store)
            own = results[first : first + number]
            first += number
            timing = Timing(job.came, job.taken, job.tokenized, begin, end, num_tokens, len(batch))
            try:
                # Scores of spans that do not exist are minus infinity, so NaN is what a broken model gives.
                if np.isnan(own).any():
                    raise NotFinite
                job.future.set_result((list(predictor.task.decode(own, store, job.rows)), timing))
            except Exception as error:
                job.future.set_exception(error)
