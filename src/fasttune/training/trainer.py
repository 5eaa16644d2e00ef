"""One training run: steps, evaluations, checkpoints on the way. `start` makes it, `publish` ends it."""

from __future__ import annotations

import copy
import gc
import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn

from fasttune.data.audit import Audit
from fasttune.data.batching.feed import Feed, StoreFeed
from fasttune.data.batching.plan import Plan, Steps
from fasttune.data.batching.stream import BEGINNING, StreamFeed, Windows
from fasttune.data.pipeline import Splits
from fasttune.data.reading import TRAIN, VALIDATION
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import CheckpointError, DivergedError, Problem
from fasttune.parallel.collectives import all_reduce_max, barrier, broadcast_tensors, is_main, raise_on_all_ranks
from fasttune.recipe import Recipe, digest
from fasttune.runs.checkpoint import Checkpoint, Saved, Writer, newest_good
from fasttune.runs.folder import RunFolder
from fasttune.runs.mirror import Mirror, Sender
from fasttune.tasks import Task
from fasttune.training import signals
from fasttune.training.callbacks import Observer
from fasttune.training.callbacks.early_stopping import EarlyStopping
from fasttune.training.callbacks.files import EventLog, TensorBoard, has_tensorboard
from fasttune.training.embedding import moments_for, trained_rows
from fasttune.training.environment import code_fingerprint, versions
from fasttune.training.events import Finished, NotMirrored, RolledBack, RowSkipped, SaveDone, SaveDue, StepDone
from fasttune.training.loop import Loop, TrainState
from fasttune.training.memory import keeping_freed_memory
from fasttune.training.optimizer import load_optimizer_tensors, optimizer_tensors, prepare
from fasttune.training.resume import find_on_all_ranks, saved_state, tensors_of, trainer_state
from fasttune.training.scoring import Scored, score_split
from fasttune.training.setup import Setup, set_up
from fasttune.training.watchdog import ASLEEP, PATIENCE, Watchdog
from fasttune.training.wrapping import FSDP2, load_state, state_of, whole

# Batches that are left out with training.divergence_policy=rollback: a run that diverges more often is not saved by it.
MOST_ROLLBACKS = 5
SENDING, SENDING_WHEN_STOPPED = 600.0, 15.0  # seconds that the mirror gets at the end
Say = Callable[[str], None]


@dataclass
class Session:
    """A run that is ready to train. `recipe` is resolved: no field of it is left for the machine to choose."""

    recipe: Recipe
    folder: RunFolder
    run_id: str
    splits: Splits
    stores: dict[str, TokenStore]
    setup: Setup
    state: TrainState
    checkpoint: Checkpoint | None
    say: Say
    used_rows: np.ndarray | None = None  # of the word embeddings, where the others need no training
    audit: Audit = field(default_factory=Audit)  # what is doubtful about the rows
    windows: Windows | None = None  # the training rows, where they are a stream
    signal: int | None = None
    saved: deque[Saved] = field(default_factory=deque)  # reports of the thread that writes checkpoints
    blocking_seconds: dict[int, float] = field(default_factory=dict)  # by step
    sender: Sender | None = None  # to the mirror
    unsent: deque[str] = field(default_factory=deque)  # its reports
    watchdog: Watchdog = ASLEEP
    next_rows: Callable[[], list[str]] = list
    # The last scores of each split and the step of the weights they belong to, so that none is computed twice.
    scored: dict[str, tuple[int, Scored]] = field(default_factory=dict)

    task: Task = field(init=False)  # as the last validation tuned it
    trained: nn.Module = field(init=False)  # the model as it is wrapped for training

    def __post_init__(self) -> None:
        self.task = self.splits.task

    @property
    def metric(self) -> str:
        """The name in an evaluation's metrics of what decides which model is best."""
        return f"eval_{self.recipe.evaluation.metric_for_best_model or self.task.primary_metric}"

    @cached_property
    def mirror(self) -> Mirror | None:
        address = self.recipe.output.mirror
        return Mirror(address, self.folder) if address is not None else None

    @property
    def keeps_best(self) -> bool:
        return self.recipe.output.save_strategy != "no" and bool(self.state.evaluations)

    # --- training -----------------------------------------------------------------------------------------------

    def train(self, observers: Iterable[Observer]) -> Finished:
        """Run the loop to its end, to a reason to stop, or to a DivergedError; checkpoints are written on the way."""
        with ExitStack() as stack:
            if self.setup.accelerator.device.type == "cpu":
                stack.enter_context(keeping_freed_memory())
            if self.used_rows is not None and self.parallel != FSDP2:
                stack.enter_context(trained_rows(self.setup.model, self.used_rows))
            # Dropout masks are drawn from seeds of their own; the caller's random numbers stay as they were.
            stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
            stack.enter_context(signals.deferred())
            report = self.folder.hang_report(self.setup.accelerator.process_index)
            self.watchdog = stack.enter_context(Watchdog(report, self._at_hand, self.windows is None))
            log = EventLog(self.folder.events if is_main() else None, self._resumed_step, self.say)
            stack.callback(log.close)
            observers = [log, *self._own_observers(stack), *observers]
            if self.mirror is not None and is_main():
                self.sender = Sender(self.mirror, self.unsent.append)
                stack.callback(self._end_sending, observers)
            keep = self.recipe.output.save_total_limit
            writer = Writer(self.folder.checkpoints, self.run_id, keep, self.saved.append)
            stack.callback(writer.close)
            finished = self._run(writer, observers)
        self.signal = all_reduce_max(self.signal or signals.pending() or 0)[0] or None
        if self.parallel == FSDP2:
            self._put_together()
        return finished

    @property
    def parallel(self) -> str:
        return self.setup.choices["parallel"].value

    def _put_together(self) -> None:
        """What is in shares cannot be made whole in place: a new model takes the weights."""
        weights = broadcast_tensors(state_of(self.setup.model))
        del self.trained
        whole_again = raise_on_all_ranks(lambda: set_up(self.recipe, self.recipe.model, self.task))
        whole_again.model.load_state_dict(weights)
        budget = self.setup.tokens_per_microbatch
        self.setup = replace(whole_again, choices=self.setup.choices, tokens_per_microbatch=budget)

    def _run(self, writer: Writer, observers: list[Observer]) -> Finished:
        setup, recipe = self.setup, self.recipe
        self.trained, optimizer = prepare(setup.model, setup.accelerator, self.parallel, recipe.training)
        if self.checkpoint is not None:
            self._restore(self.checkpoint, optimizer)
        elif recipe.training.divergence_policy == "rollback":  # there has to be something to go back to
            self._save(SaveDue(step=0, epoch=0.0), optimizer, writer)
        while True:
            try:
                return self._iterate(optimizer, writer, observers)
            except DivergedError as error:
                self.watchdog.expect(PATIENCE)
                writer.close()
                barrier()
                self._tell_of_saves(observers)
                self._roll_back(error, optimizer, observers)

    def _iterate(self, optimizer: torch.optim.Optimizer, writer: Writer, observers: list[Observer]) -> Finished:
        feed, plan = self._feed()
        loop = Loop(
            recipe=self.recipe,
            task=self.task,
            model=self.trained,
            optimizer=optimizer,
            feed=feed,
            plan=plan,
            accelerator=self.setup.accelerator,
            metric=self.metric,
            state=self.state,
            evaluate=lambda: self.score(VALIDATION, self.state.step).metrics,
        )
        self.next_rows = lambda: feed.rows(plan, self.state.step)
        is_reserved = False
        with closing(feed):
            for event in loop:
                self.watchdog.expect(PATIENCE)
                if isinstance(event, StepDone) and not is_reserved:
                    is_reserved = True
                    if is_main():
                        writer.reserve(self._tensors(optimizer))
                if isinstance(event, SaveDue):
                    self._save(event, optimizer, writer)
                if isinstance(event, Finished):
                    writer.wait()
                self._tell_of_saves(observers)
                self._tell_of_bad_rows(observers)
                reasons = [observer(event) for observer in observers]
                loop.stop_reason = loop.stop_reason or self._agreed(next(filter(None, reasons), None))
                self.watchdog.step(event)
        assert isinstance(event, Finished), "the loop's last event"
        barrier()
        return event

    def _agreed(self, reason: str | None) -> str | None:
        """The reason to stop, where any process has one: all of them stop after the same step."""
        number, anything_else = all_reduce_max(signals.pending() or 0, reason is not None)
        if number:
            self.signal = number
            return signals.words(number)
        return (reason or "another process asked for it") if anything_else else None

    def _at_hand(self) -> str:
        """What a hang interrupted, for its report."""
        return f"after step {self.state.step} of {self.folder.path}; rows of the next: {', '.join(self.next_rows())}"

    @property
    def _resumed_step(self) -> int | None:
        return self.state.step if self.checkpoint else None

    def _feed(self) -> tuple[Feed[Any], Steps]:
        """The micro-batches of each step, and the plan that cuts them."""
        setup, state, store = self.setup, self.state, self.stores[TRAIN]
        rank, pinned = setup.accelerator.process_index, setup.accelerator.device.type == "cuda"
        how: dict[str, Any] = {
            "batch_size": self.recipe.training.batch_size,
            # What did not fit before will not now, whatever is asked for.
            "tokens_per_microbatch": min(filter(None, (state.tokens_per_microbatch, setup.tokens_per_microbatch))),
            "padded": setup.padded,
            "num_ranks": setup.accelerator.num_processes,
        }
        into = (setup.padding, rank, pinned)
        if self.windows is None:
            return StoreFeed(*into, store=store), Plan(lengths=store.lengths, seed=self.recipe.training.seed, **how)
        epoch, number, row = state.position or BEGINNING
        feed = StreamFeed(*into, windows=self.windows, first_step=state.step, begin=(epoch, number, row))
        return feed, Steps(num_examples=self.num_examples, **how)

    @property
    def num_examples(self) -> int:
        """Of an epoch."""
        return self.splits.num_training_examples(self.stores[TRAIN])

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.recipe.training.batch_size)

    def _epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 6)

    @property
    def training_examples(self) -> str:
        """A digest of everything that training sees."""
        own = self.stores[TRAIN].fingerprint
        return own if self.splits.stream is None else f"{self.splits.stream.files.fingerprint}-{own}"

    def _own_observers(self, stack: ExitStack) -> list[Observer]:
        recipe, own = self.recipe, list[Observer]()
        report_to = recipe.tracking.report_to
        if is_main() and (report_to == ["tensorboard"] or (report_to == "auto" and has_tensorboard())):
            board = TensorBoard(self.folder.tensorboard, recipe.training.logging_steps, self._resumed_step, self.say)
            stack.callback(board.close)
            own.append(board)
        if recipe.evaluation.early_stopping_patience is not None:
            own.append(EarlyStopping(self.metric, recipe.evaluation.early_stopping_patience, self.state))
        return own

    def _save(self, event: SaveDue, optimizer: torch.optim.Optimizer, writer: Writer) -> None:
        setup = self.setup
        tensors = {stem: whole(named) for stem, named in self._tensors(optimizer).items()}
        self.watchdog.expect(PATIENCE)  # the main process may wait for the disk, the others for it
        if not is_main():
            return
        scaler = setup.accelerator.scaler
        best = self.state.best(self.metric)
        self.blocking_seconds[event.step] = writer.save(
            event.step,
            tensors=tensors,
            state={**copy.deepcopy(asdict(self.state)), "scaler": scaler.state_dict() if scaler else None},
            about=self._about,
            keep_steps={best["step"]} if best else set(),
        )

    def _tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
        """File of a checkpoint -> its tensors, of which this process may have a share."""
        model = self.setup.model
        return {"model": model.state_dict(), "optimizer": optimizer_tensors(model, optimizer)}

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the run."""
        return {
            "data": self.training_examples,
            "recipe": digest(self.recipe),
            "code": code_fingerprint(),
            "versions": versions(),
            "num_processes": self.setup.accelerator.num_processes,
        }

    def _tell_of_saves(self, observers: list[Observer]) -> None:
        """What the thread that writes has to say, said by this one."""
        while self.saved:
            saved = self.saved.popleft()
            event = SaveDone(
                step=saved.step,
                epoch=self._epoch(saved.step),
                seconds=round(saved.seconds, 3),
                blocking_seconds=round(self.blocking_seconds[saved.step], 3),
                failure=saved.failure,
            )
            for observer in observers:
                observer(event)
            if self.sender is not None and saved.failure is None:
                self.sender.send()
        while self.unsent:
            step, failure = self.state.step, self.unsent.popleft()
            unsent = NotMirrored(step=step, epoch=self._epoch(step), failure=failure)
            for observer in observers:
                observer(unsent)

    def _end_sending(self, observers: list[Observer]) -> None:
        """The last checkpoint gets its time, of which a scheduler that stops the run gives little."""
        assert self.sender is not None
        self.sender.close(SENDING if signals.pending() is None else SENDING_WHEN_STOPPED, self.watchdog.alive)
        self._tell_of_saves(observers)

    def _tell_of_bad_rows(self, observers: list[Observer]) -> None:
        """Each once, whatever epoch or start it is met in."""
        if self.splits.stream is None:
            return
        for where, what in list(self.splits.stream.files.bad.found.items()):
            if where not in self.state.bad_rows:
                self.state.bad_rows[where] = what
                for observer in observers:
                    observer(
                        RowSkipped(step=self.state.step, epoch=self._epoch(self.state.step), row=f"{where}: {what}")
                    )

    def _restore(self, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        model, moments = self.setup.model, tensors_of(checkpoint, "optimizer")
        load_state(model, tensors_of(checkpoint, "model"))
        if self.used_rows is not None:
            moments = moments_for(model, self.used_rows, self.parallel != FSDP2, moments)
        try:
            load_optimizer_tensors(model, optimizer, moments)
        except KeyError as error:
            raise CheckpointError(
                Problem(
                    where=f"checkpoint {checkpoint.path}",
                    found=f"moments of {error.args[0]}, which is not trained here",
                    expected="the parameters of the start, which fasttune's version decides",
                    hint="resume as the run was started, or start a new run with another --output",
                    code="E521",
                )
            ) from None
        scaler = trainer_state(checkpoint)["scaler"]
        if scaler and self.setup.accelerator.scaler:
            self.setup.accelerator.scaler.load_state_dict(scaler)

    def _roll_back(self, error: DivergedError, optimizer: torch.optim.Optimizer, observers: list[Observer]) -> None:
        """Weights, optimizer and state of the last checkpoint, and one batch less to learn from; the error itself where
        the recipe or the number of times forbids it.
        """
        skipped = [*self.state.skipped, self.state.step + 1]
        if self.recipe.training.divergence_policy == "stop" or len(skipped) > MOST_ROLLBACKS:
            raise error
        checkpoint = find_on_all_ranks(lambda: newest_good(self.folder.checkpoints, self.run_id)[0])
        if checkpoint is None:  # the one of the beginning could not be written
            raise error
        self._restore(checkpoint, optimizer)
        # Observers hold this very object.
        vars(self.state).update(vars(replace(saved_state(checkpoint), skipped=skipped)))
        # What was scored after the step gone back to belongs to weights that are no more.
        self.scored.clear()
        for observer in observers:
            observer(RolledBack(step=self.state.step, epoch=self._epoch(self.state.step), skipped=skipped[-1]))

    # --- scoring ------------------------------------------------------------------------------------------------

    def score(self, name: str, step: int) -> Scored:
        """One split by the weights of `step`; metrics with transformers' names."""
        if self.scored.get(name, (None,))[0] != step:
            split = next(split for split in self.splits.all() if split.name == name)
            budget = self.setup.tokens_per_microbatch
            found = score_split(
                self.setup, self.task, split, self.stores[name], tune=name == VALIDATION, watchdog=self.watchdog
            )
            self.task = found.task
            self.scored[name] = (step, found)
            if (fits := self.setup.tokens_per_microbatch) < budget:
                self.say(f"out of memory in evaluation: going on with {fits:,} tokens a micro-batch")
        return self.scored[name][1]

    def close(self) -> None:
        """Free the device's memory."""
        del self.setup
        self.__dict__.pop("trained", None)
        gc.collect()  # the model and its hooks refer to each other
        clear_device_cache()
