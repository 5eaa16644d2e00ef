"""Checkpoints written beside training: it waits only while the tensors are copied."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fasttune.errors import CheckpointError, EnvironmentProblem, Problem
from fasttune.runs.checkpoint.resume import newest_good
from fasttune.runs.checkpoint.retention import prune
from fasttune.runs.checkpoint.write import in_words, path_of, write

FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0  # seconds
Tensors = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Saved:
    """What became of a save. `seconds`: from the copy to the rename and the deletion of older ones.

    `failure` in words where it could not be written; it is tried again until a newer one takes its place.
    """

    step: int
    seconds: float
    failure: str | None = None


class Writer:
    """Writes one checkpoint at a time. `report` is called in the thread that writes."""

    def __init__(self, checkpoints: Path, run_id: str, keep_newest: int | None, report: Callable[[Saved], None]):
        self.checkpoints, self.run_id, self.keep_newest, self.report = checkpoints, run_id, keep_newest, report
        self.buffers: Tensors = {}
        self.thread: threading.Thread | None = None
        self.no_more_tries = threading.Event()
        self.failed: Saved | None = None
        self.crash: BaseException | None = None

    def reserve(self, tensors: Tensors) -> None:
        """Get the memory for copies of these while training goes on: to be given it takes longer than to fill it."""
        if self.buffers or self.thread is not None:
            return
        like = {stem: {name: (one.shape, one.dtype) for name, one in named.items()} for stem, named in tensors.items()}

        def work() -> None:
            with suppress(MemoryError, RuntimeError):  # the first save will find it out, too
                self.buffers = {
                    stem: {name: torch.empty(shape, dtype=dtype).fill_(0) for name, (shape, dtype) in named.items()}
                    for stem, named in like.items()
                }

        thread = threading.Thread(target=work, daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self.thread = thread

    def save(
        self, step: int, tensors: Tensors, state: Mapping[str, Any], about: Mapping[str, Any], keep_steps: set[int]
    ) -> float:
        """Copy the tensors and begin to write; returns the seconds that took, an unfinished write before included.

        `state`, `about`, `keep_steps`: as `write` and `prune` have them. Where there is no memory for copies it waits.
        """
        begin = time.perf_counter()
        self._finish()
        self.no_more_tries.clear()
        job = (begin, step, state, {"run_id": self.run_id, **about}, keep_steps)
        try:
            self.buffers = {
                stem: {name: self._copied(stem, name, tensor) for name, tensor in named.items()}
                for stem, named in tensors.items()
            }
            self.thread = threading.Thread(
                target=self._work, args=(self.buffers, *job), name="checkpoint writer", daemon=True
            )
            self.thread.start()
        except (MemoryError, RuntimeError):  # torch's own words for no memory, and the thread's: written as they lie
            self.buffers, self.thread = {}, None
            self.no_more_tries.set()
            self._work(tensors, *job)
        return time.perf_counter() - begin

    def close(self) -> None:
        """Until what is being written is on the disk, or has failed once more."""
        self._finish()
        self.buffers = {}

    def wait(self) -> None:
        """Until the last checkpoint is on the disk; EnvironmentProblem when it could not be written."""
        self._finish()
        if self.failed is not None:
            raise EnvironmentProblem(
                Problem(
                    where=str(path_of(self.checkpoints, self.failed.step)),
                    found=self.failed.failure or "",
                    expected="a place for the checkpoint",
                    hint=f"make room or mend the disk, then go on from {self._last_good()}: the same command, --resume",
                    code="E522",
                )
            )

    def _copied(self, stem: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """In memory of its own, which is used again by the next checkpoint."""
        before = self.buffers.get(stem, {}).get(name)
        if before is None or (before.shape, before.dtype) != (tensor.shape, tensor.dtype):
            before = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return before.copy_(tensor.detach())

    def _finish(self) -> None:
        """A write that fails gets one more try, then no other."""
        if self.thread is not None:
            self.no_more_tries.set()
            self.thread.join()
            self.thread = None
        if self.crash is not None:
            raise self.crash

    def _work(self, *job: Any) -> None:
        try:
            self._write(*job)
        except BaseException as error:  # a bug of ours: told by the thread that trains
            self.crash = error

    def _write(
        self,
        tensors: Tensors,
        begin: float,
        step: int,
        state: Mapping[str, Any],
        about: Mapping[str, Any],
        keep_steps: set[int],
    ) -> None:
        pause = FIRST_RETRY
        while True:
            is_last_try = self.no_more_tries.is_set()
            try:
                write(self.checkpoints, step, tensors, state, about)
                prune(self.checkpoints, self.keep_newest, keep_steps, self.run_id)
            except OSError as error:
                self.failed = Saved(step, time.perf_counter() - begin, in_words(error))
                self.report(self.failed)
            else:
                self.failed = None
                self.report(Saved(step, time.perf_counter() - begin))
                return
            if is_last_try:
                return
            self.no_more_tries.wait(pause)
            pause = min(2 * pause, LONGEST_RETRY)

    def _last_good(self) -> str:
        try:
            found, _ = newest_good(self.checkpoints, self.run_id)
        except (CheckpointError, OSError):
            return "the beginning"
        return found.path.name if found is not None else "the beginning"
