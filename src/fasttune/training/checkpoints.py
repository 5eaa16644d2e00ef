"""The checkpoints of a run while it trains: written in the background, copied to a mirror, restored."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from types import TracebackType
from typing import Any

import torch

from fasttune.errors import CheckpointError, Problem
from fasttune.parallel.collectives import barrier, is_main
from fasttune.recipe import digest
from fasttune.runs.checkpoint import Checkpoint, Saved, Writer, newest_good
from fasttune.runs.mirror import Sender
from fasttune.training import signals
from fasttune.training.embedding import moments_for
from fasttune.training.environment import code_fingerprint, versions
from fasttune.training.events import Event, NotMirrored, SaveDone
from fasttune.training.optimizer import load_optimizer_tensors, optimizer_tensors
from fasttune.training.resume import find_on_all_ranks, tensors_of, trainer_state
from fasttune.training.run import TrainingRun
from fasttune.training.watchdog import PATIENCE, Watchdog
from fasttune.training.wrapping import FSDP2, load_state, whole

# Seconds that the mirror gets at the end of a run; a scheduler that stops it grants little time.
MIRROR_SECONDS, MIRROR_SECONDS_WHEN_STOPPED = 600.0, 15.0


class CheckpointManager:
    """Saves and restores model, optimizer and training state. Enter it before saving; leaving it waits for the writer.

    Rank 0 writes. With FSDP2 all ranks gather the tensors, so all ranks call `save` and `restore`.
    """

    def __init__(
        self,
        run: TrainingRun,
        optimizer: torch.optim.Optimizer,
        watchdog: Watchdog,
        notify: Callable[[Event], None],
    ):
        self.run, self.optimizer, self.watchdog, self.notify = run, optimizer, watchdog, notify
        # The writer and the sender report from threads of their own; `report` passes it on in this one.
        self.saved: deque[Saved] = deque()
        self.mirror_failures: deque[str] = deque()
        self.blocking_seconds: dict[int, float] = {}  # by step
        self.writer = Writer(run.folder.checkpoints, run.run_id, run.recipe.output.save_total_limit, self.saved.append)
        self.sender: Sender | None = None
        self.is_reserved = False

    def __enter__(self) -> CheckpointManager:
        if self.run.mirror is not None and is_main():
            self.sender = Sender(self.run.mirror, self.mirror_failures.append)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.writer.close()
        finally:
            if self.sender is not None:
                seconds = MIRROR_SECONDS if signals.pending() is None else MIRROR_SECONDS_WHEN_STOPPED
                self.sender.close(seconds, self.watchdog.alive)
                self.report()

    # --- saving -------------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Allocate the memory for copies while training continues; the first call does it."""
        if is_main() and not self.is_reserved:
            self.is_reserved = True
            self.writer.reserve(self._tensors())

    def save(self, step: int) -> None:
        """Copy all tensors and start to write them as the checkpoint of `step`."""
        run = self.run
        tensors = {stem: whole(named) for stem, named in self._tensors().items()}
        self.watchdog.expect(PATIENCE)  # rank 0 may wait for the disk, and the others for rank 0
        if not is_main():
            return
        scaler = run.setup.accelerator.scaler
        best = run.state.best(run.metric)
        self.blocking_seconds[step] = self.writer.save(
            step,
            tensors=tensors,
            state={**copy.deepcopy(asdict(run.state)), "scaler": scaler.state_dict() if scaler else None},
            about=self._manifest,
            keep_steps={best["step"]} if best else set(),
        )

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk; EnvironmentProblem if it could not be written."""
        self.writer.wait()

    def flush(self) -> None:
        """Wait until the write in progress has succeeded or failed, and report it."""
        self.writer.close()
        barrier()
        self.report()

    def report(self) -> None:
        """Notify observers of saves that have ended and of copies that failed."""
        run = self.run
        while self.saved:
            saved = self.saved.popleft()
            self.notify(
                SaveDone(
                    step=saved.step,
                    epoch=run.epoch_at(saved.step),
                    seconds=round(saved.seconds, 3),
                    blocking_seconds=round(self.blocking_seconds[saved.step], 3),
                    failure=saved.failure,
                )
            )
            if self.sender is not None and saved.failure is None:
                self.sender.send()
        while self.mirror_failures:
            failure = self.mirror_failures.popleft()
            self.notify(NotMirrored(step=run.state.step, epoch=run.epoch_at(run.state.step), failure=failure))

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """File stem -> named tensors, which with FSDP2 are this rank's shards."""
        model = self.run.setup.model
        return {"model": model.state_dict(), "optimizer": optimizer_tensors(model, self.optimizer)}

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        """What a checkpoint's manifest records about the run."""
        return {
            "data": self.run.training_examples,
            "recipe": digest(self.run.recipe),
            "code": code_fingerprint(),
            "versions": versions(),
            "num_processes": self.run.setup.accelerator.num_processes,
        }

    # --- restoring ----------------------------------------------------------------------------------------------

    def newest(self) -> Checkpoint | None:
        """The newest intact checkpoint, the same on all ranks."""
        return find_on_all_ranks(lambda: newest_good(self.run.folder.checkpoints, self.run.run_id)[0])

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load model, optimizer and loss scale; CheckpointError if the optimizer trains other parameters."""
        run, model = self.run, self.run.setup.model
        load_state(model, tensors_of(checkpoint, "model"))
        moments = tensors_of(checkpoint, "optimizer")
        if run.used_rows is not None:
            moments = moments_for(model, run.used_rows, run.parallel != FSDP2, moments)
        try:
            load_optimizer_tensors(model, self.optimizer, moments)
        except KeyError as error:
            raise CheckpointError(
                Problem(
                    where=f"checkpoint {checkpoint.path}",
                    found=f"it holds optimizer state of {error.args[0]}, which this version of fasttune does not train",
                    hint="resume with the version that started the run, or start a new run with another --output",
                    code="E521",
                )
            ) from None
        scale = trainer_state(checkpoint)["scaler"]
        if scale and run.setup.accelerator.scaler:
            run.setup.accelerator.scaler.load_state_dict(scale)
