"""Write checkpoints in a background thread: training waits only while the tensors are copied."""

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
from fasttune.runs.checkpoint.find import newest_good
from fasttune.runs.checkpoint.retention import prune
from fasttune.runs.checkpoint.write import in_words, path_of, write

FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0  # seconds
Tensors = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Saved:
    """The outcome of a save. `seconds`: from the copy to the rename, including the deletion of older checkpoints.

    `failure`: why the checkpoint could not be written, in words. The write is retried until a newer one replaces it.
    """

    step: int
    seconds: float
    failure: str | None = None


class Writer:
    """Writes one checkpoint at a time. `report` is called in the writing thread."""

    def __init__(self, checkpoints: Path, run_id: str, keep_newest: int | None, report: Callable[[Saved], None]):
        self.checkpoints, self.run_id, self.keep_newest, self.report = checkpoints, run_id, keep_newest, report
        self.buffers: Tensors = {}
        self.thread: threading.Thread | None = None
        self.no_more_tries = threading.Event()
        self.failed: Saved | None = None
        self.crash: BaseException | None = None

    def reserve(self, tensors: Tensors) -> None:
        """Allocate buffers for copies of these tensors while training runs: allocating takes longer than filling."""
        if self.buffers or self.thread is not None:
            return
        layouts = {
            stem: {name: (tensor.shape, tensor.dtype) for name, tensor in named.items()}
            for stem, named in tensors.items()
        }

        def work() -> None:
            with suppress(MemoryError, RuntimeError):  # the first save runs into the same error and handles it
                self.buffers = {
                    stem: {name: torch.empty(shape, dtype=dtype).fill_(0) for name, (shape, dtype) in named.items()}
                    for stem, named in layouts.items()
                }

        thread = threading.Thread(target=work, daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self.thread = thread

    def save(
        self, step: int, tensors: Tensors, state: Mapping[str, Any], about: Mapping[str, Any], keep_steps: set[int]
    ) -> float:
        """Copy the tensors and start writing; return the seconds that training waited, also for a previous write.

        `state` and `about` go to `write`, `keep_steps` to `prune`. Without memory for copies, the write blocks.
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
        except (MemoryError, RuntimeError):  # no memory for the copies or the thread: write without copying
            self.buffers, self.thread = {}, None
            self.no_more_tries.set()
            self._work(tensors, *job)
        return time.perf_counter() - begin

    def close(self) -> None:
        """Wait until the current write is on the disk or has failed a last time."""
        self._finish()
        self.buffers = {}

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk; EnvironmentProblem if it could not be written."""
        self._finish()
        if self.failed is not None:
            raise EnvironmentProblem(
                Problem(
                    where=str(path_of(self.checkpoints, self.failed.step)),
                    found=f"the checkpoint could not be written: {self.failed.failure}",
                    hint="free disk space or fix the disk, then rerun the same command with --resume; "
                    f"it resumes from {self._last_good()}",
                    code="E522",
                )
            )

    def _copied(self, stem: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Copy the tensor into a buffer that later checkpoints reuse."""
        buffer = self.buffers.get(stem, {}).get(name)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return buffer.copy_(tensor.detach())

    def _finish(self) -> None:
        """Wait for the current write; if it keeps failing, it gets one last try."""
        if self.thread is not None:
            self.no_more_tries.set()
            self.thread.join()
            self.thread = None
        if self.crash is not None:
            raise self.crash

    def _work(self, *job: Any) -> None:
        try:
            self._write(*job)
        except BaseException as error:  # a bug: `_finish` raises it in the training thread
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
            checkpoint, _ = newest_good(self.checkpoints, self.run_id)
        except (CheckpointError, OSError):
            return "the beginning"
        return checkpoint.path.name if checkpoint is not None else "the beginning"
