"""Trains one prepared run: runs the loop, saves checkpoints, notifies observers, rolls back if training diverges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fasttune.data.batching.plan import Plan, Steps
from fasttune.data.batching.prefetch import Prefetcher, StorePrefetcher
from fasttune.data.batching.stream import BEGINNING, StreamPrefetcher
from fasttune.data.problems import counted
from fasttune.data.reading import TRAIN, VALIDATION
from fasttune.data.row_stream import windows_of
from fasttune.errors import DivergedError
from fasttune.parallel.collectives import all_reduce_max, barrier, broadcast_tensors, is_main, raise_on_all_ranks
from fasttune.training import signals
from fasttune.training.callbacks import Observer
from fasttune.training.callbacks.early_stopping import EarlyStopping
from fasttune.training.callbacks.energy import EnergyMeter
from fasttune.training.callbacks.files import EventLog, TensorBoard, has_tensorboard
from fasttune.training.checkpoints import CheckpointManager
from fasttune.training.compiled import compiled
from fasttune.training.embedding import trained_rows
from fasttune.training.events import Event, Finished, RolledBack, RowSkipped, SaveDue, StepDone
from fasttune.training.frozen import FrozenLayers, is_kept
from fasttune.training.loop import Loop
from fasttune.training.memory import keeping_freed_memory
from fasttune.training.optimizer import make_optimizer, rates
from fasttune.training.resume import saved_state
from fasttune.training.run import TrainingRun
from fasttune.training.scoring import Evaluator
from fasttune.training.setup import set_up
from fasttune.training.watchdog import ASLEEP, PATIENCE, Watchdog
from fasttune.training.wrapping import FSDP2, state_of, wrap

# Batches skipped with training.divergence_policy=rollback: if a run diverges more often, skipping does not save it.
MAX_ROLLBACKS = 5


class Trainer:
    """Trains `run` from its state to the end. `signal` is the number of the signal that stopped it, if one did."""

    def __init__(self, run: TrainingRun):
        self.run = run
        self.evaluator = Evaluator(run)
        self.watchdog = ASLEEP
        self.observers: list[Observer] = []
        self.next_rows: Callable[[], list[str]] = list  # names of the rows in the next step
        self.signal: int | None = None

    def train(self, observers: Iterable[Observer]) -> Finished:
        """Train until the last step, a reason to stop, or DivergedError; afterwards the model is a plain one again."""
        with ExitStack() as stack:
            finished = self._train(stack, observers)
        self.signal = all_reduce_max(self.signal or signals.pending() or 0)[0] or None
        if self.run.parallel == FSDP2:
            self._gather_model()
        return finished

    def _train(self, stack: ExitStack, observers: Iterable[Observer]) -> Finished:
        run, setup, training = self.run, self.run.setup, self.run.recipe.training
        if setup.accelerator.device.type == "cpu":
            stack.enter_context(keeping_freed_memory())
        frozen: FrozenLayers | None = None
        if training.freeze_layers:
            frozen = stack.enter_context(FrozenLayers(setup.model, training.freeze_layers).applied())
        if run.used_rows is not None and run.parallel != FSDP2:
            stack.enter_context(trained_rows(setup.model, run.used_rows))
        stack.enter_context(compiled(run.recipe, setup, self.evaluator.task, run.stores[TRAIN]))
        # Dropout masks come from seeds per micro-batch; the caller's random state must not change.
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        stack.enter_context(signals.deferred())
        hang_report = run.folder.hang_report(setup.accelerator.process_index)
        self.watchdog = Watchdog(hang_report, self._position, is_steady=run.splits.stream is None)
        self.evaluator.watchdog = stack.enter_context(self.watchdog)
        self.observers = [*self._own_observers(stack), *observers]

        model = wrap(setup.model, setup.accelerator, run.parallel)
        adamw = make_optimizer(setup.model, training.learning_rate, training.weight_decay, rates(setup.model, training))
        optimizer = setup.accelerator.prepare_optimizer(adamw)
        checkpoints = stack.enter_context(CheckpointManager(run, optimizer, self.watchdog, self._notify))
        if run.checkpoint is not None:
            checkpoints.restore(run.checkpoint)
        elif training.divergence_policy == "rollback":  # there must be a checkpoint to return to
            checkpoints.save(0)
        stop_reason = self._keep_states(frozen) if frozen is not None else None
        while True:
            try:
                return self._run_loop(model, optimizer, checkpoints, stop_reason)
            except DivergedError as error:
                self.watchdog.expect(PATIENCE)
                checkpoints.flush()
                self._roll_back(error, checkpoints)

    def _keep_states(self, frozen: FrozenLayers) -> str | None:
        """Compute the output of the frozen layers for all epochs; returns the reason to stop, if a signal came."""
        run = self.run
        if not is_kept(run.setup.choices):
            return None
        if run.kept_states is None:
            begin = time.perf_counter()
            run.log(f"running the frozen layers once over {counted(len(run.stores[TRAIN]), 'example')}")
            try:
                run.kept_states = frozen.kept(run.setup, run.stores[TRAIN], self.watchdog.alive)
            except signals.Interrupted as stopped:
                return str(stopped)
            run.kept_seconds = time.perf_counter() - begin
        run.state.seconds += run.kept_seconds
        return None

    def _run_loop(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        checkpoints: CheckpointManager,
        stop_reason: str | None,
    ) -> Finished:
        run = self.run
        prefetcher, plan = self._batches()
        loop = Loop(
            recipe=run.recipe,
            task=self.evaluator.task,
            model=model,
            optimizer=optimizer,
            prefetcher=prefetcher,
            plan=plan,
            accelerator=run.setup.accelerator,
            metric=run.metric,
            state=run.state,
            evaluate=self._evaluate,
            replan=run.replan,
            stop_reason=stop_reason,
        )
        self.next_rows = lambda: prefetcher.rows(plan, run.state.step)
        with closing(prefetcher):
            for event in loop:
                self.watchdog.expect(PATIENCE)
                if isinstance(event, StepDone):
                    checkpoints.reserve()
                if isinstance(event, SaveDue):
                    checkpoints.save(event.step)
                if isinstance(event, Finished):
                    checkpoints.wait()
                checkpoints.report()
                self._report_bad_rows()
                reasons = [observer(event) for observer in self.observers]
                loop.stop_reason = loop.stop_reason or self._agreed_reason(next(filter(None, reasons), None))
                self.watchdog.step(event)
        assert isinstance(event, Finished), "the loop's last event"
        barrier()
        return event

    def _evaluate(self) -> dict[str, float]:
        # A second set of programs, without gradients, would not pay off.
        with torch.compiler.set_stance("force_eager") if self.run.recipe.training.compile is True else nullcontext():
            return self.evaluator.score(VALIDATION, self.run.state.step).metrics

    def _batches(self) -> tuple[Prefetcher[Any], Steps]:
        """The source of micro-batches, and the plan that divides each step into them."""
        run, setup, state = self.run, self.run.setup, self.run.state
        plan: dict[str, Any] = {
            "batch_size": run.recipe.training.batch_size,
            # A budget that ran out of memory before would do so again, whatever the recipe asks for.
            "tokens_per_microbatch": min(filter(None, (state.tokens_per_microbatch, setup.tokens_per_microbatch))),
            "padded": setup.padded,
            "num_ranks": setup.accelerator.num_processes,
        }
        device = (setup.padding, setup.accelerator.process_index, setup.accelerator.device.type == "cuda")
        if run.splits.stream is None:
            store = run.stores[TRAIN]
            return StorePrefetcher(*device, run.kept_states, store=store), Plan(
                lengths=store.lengths, seed=run.recipe.training.seed, **plan
            )
        windows = windows_of(run.splits.stream, run.splits.task, setup.tokenizer, setup.max_length)
        epoch, number, row = state.position or BEGINNING
        stream = StreamPrefetcher(*device, windows=windows, first_step=state.step, begin=(epoch, number, row))
        return stream, Steps(num_examples=run.num_examples, **plan)

    def _agreed_reason(self, reason: str | None) -> str | None:
        """The reason to stop if any rank has one, so that all ranks stop after the same step."""
        number, any_reason = all_reduce_max(signals.pending() or 0, reason is not None)
        if number:
            self.signal = number
            return signals.words(number)
        return (reason or "another process asked for it") if any_reason else None

    def _roll_back(self, error: DivergedError, checkpoints: CheckpointManager) -> None:
        """Return to the newest checkpoint and skip the batch that diverged.

        Raises `error` if the recipe says to stop, after MAX_ROLLBACKS, or if there is no checkpoint.
        """
        state = self.run.state
        skipped = [*state.skipped, state.step + 1]
        if self.run.recipe.training.divergence_policy == "stop" or len(skipped) > MAX_ROLLBACKS:
            raise error
        checkpoint = checkpoints.newest()
        if checkpoint is None:
            raise error
        checkpoints.restore(checkpoint)
        # In place, because observers hold this object.
        vars(state).update(vars(replace(saved_state(checkpoint), skipped=skipped)))
        self.evaluator.forget()
        self._notify(RolledBack(step=state.step, epoch=self.run.epoch_at(state.step), skipped=skipped[-1]))

    def _gather_model(self) -> None:
        """Replace the sharded model by a whole one: shards cannot be unwrapped in place."""
        run, old = self.run, self.run.setup
        weights = broadcast_tensors(state_of(old.model))
        new = raise_on_all_ranks(lambda: set_up(run.recipe, run.recipe.model, self.evaluator.task))
        new.model.load_state_dict(weights)
        run.setup = replace(new, choices=old.choices, tokens_per_microbatch=old.tokens_per_microbatch)

    # --- observers ----------------------------------------------------------------------------------------------

    def _own_observers(self, stack: ExitStack) -> list[Observer]:
        run, recipe = self.run, self.run.recipe
        log = EventLog(run.folder.events if is_main() else None, run.resumed_step, run.log)
        stack.callback(log.close)
        own: list[Observer] = [log, EnergyMeter(run.state)]
        report_to = recipe.tracking.report_to
        if is_main() and (report_to == ["tensorboard"] or (report_to == "auto" and has_tensorboard())):
            board = TensorBoard(run.folder.tensorboard, recipe.training.logging_steps, run.resumed_step, run.log)
            stack.callback(board.close)
            own.append(board)
        if recipe.evaluation.early_stopping_patience is not None:
            own.append(EarlyStopping(run.metric, recipe.evaluation.early_stopping_patience, run.state))
        return own

    def _notify(self, event: Event) -> None:
        for observer in self.observers:
            observer(event)

    def _report_bad_rows(self) -> None:
        """Notify observers once of each row that a stream skipped, also across epochs and resumes."""
        run, state = self.run, self.run.state
        if run.splits.stream is None:
            return
        for where, what in list(run.splits.stream.files.bad.found.items()):
            if where not in state.bad_rows:
                state.bad_rows[where] = what
                self._notify(RowSkipped(step=state.step, epoch=run.epoch_at(state.step), row=f"{where}: {what}"))

    def _position(self) -> str:
        """Where training is, for the report of a hang."""
        run = self.run
        return f"after step {run.state.step} of {run.folder.path}; rows of the next step: {', '.join(self.next_rows())}"
