"""The training loop: a generator of events, with no I/O. training/step.py has the computation of one step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator

from fasttune.data.batching.collate import MicroBatch
from fasttune.data.batching.plan import Steps
from fasttune.data.batching.prefetch import Position, Prefetcher
from fasttune.errors import DivergedError, EnvironmentProblem, Problem
from fasttune.parallel.collectives import all_reduce_max
from fasttune.recipe import Recipe
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.tasks import Task
from fasttune.training.events import (
    Diverged,
    Evaluated,
    Event,
    Finished,
    LossSpike,
    OutOfMemory,
    Replanned,
    SaveDue,
    Skipped,
    Started,
    StepDone,
)
from fasttune.training.memory import MicroBatchOOM, oom_while_ranks_wait, smaller_budget
from fasttune.training.optimizer import Schedule, progress, set_learning_rate
from fasttune.training.signals import Interrupted
from fasttune.training.step import StepResult, run_step

# A loss is a spike if it is SPIKE times the running average, and above the average of the first steps: near the end the
# running average may be so low that any hard row exceeds it.
SPIKE, AVERAGED_STEPS = 10.0, 20
# A loss scaler halves its scale at each overflow; after this many in a row no scale is left.
MAX_OVERFLOWS = 100


@dataclass
class TrainState:
    """The state of a run besides weights and optimizer: numbers only, so that JSON can hold it."""

    step: int = 0
    loss_sum: float = 0.0  # over the steps, of their mean losses
    num_tokens: int = 0  # real tokens trained on
    seconds: float = 0.0  # from the first batch to the last step, evaluations and saves included
    joules: float = 0.0  # of the processors in these seconds; 0 if it is not known
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    tokens_per_microbatch: int | None = None  # the reduced budget, after memory ran out
    position: Position | None = None  # in a stream, where the next step begins
    skipped: list[int] = field(default_factory=list)  # steps whose batch is skipped, because training diverged on it
    spikes: list[int] = field(default_factory=list)  # steps whose loss was far above the running average
    bad_rows: dict[str, str] = field(default_factory=dict)  # skipped rows of a stream: place -> reason
    # Each (step, number of steps): what remained was planned again after that step, to end in training.max_time.
    replanned: list[tuple[int, int]] = field(default_factory=list)
    first_losses: float = 0.0  # mean over the first AVERAGED_STEPS
    recent_losses: float = 0.0  # exponential moving average

    def best(self, metric: str) -> dict[str, Any] | None:
        """The evaluation with the best `metric` (lowest for losses and errors); ties go to the earliest."""
        return next(iter(self.best_first(metric)), None)

    def best_first(self, metric: str) -> list[dict[str, Any]]:
        """All evaluations, best first. Ties go to the earlier one; NaN is worse than any number."""
        sign = -1.0 if metric.removeprefix("eval_") in LESS_IS_BETTER else 1.0

        def key(evaluation: dict[str, Any]) -> tuple[bool, float]:
            value = evaluation[metric]
            is_number = value is not None and not math.isnan(value)  # NaN becomes None in JSON
            return not is_number, -sign * value if is_number else 0.0

        return sorted(self.evaluations, key=key)

    @property
    def num_updates(self) -> int:
        return self.step - sum(step <= self.step for step in self.skipped)

    def note(self, loss: float) -> float | None:
        """Record the loss of a finished step. If it is a spike, returns the running average before it."""
        self.loss_sum += loss
        if self.num_updates <= AVERAGED_STEPS:
            self.first_losses += (loss - self.first_losses) / self.num_updates
            self.recent_losses = self.first_losses
            return None
        average = self.recent_losses or loss
        is_spike = loss > SPIKE * average and loss > self.first_losses
        # A spike is capped, yet a loss that stays high soon raises the average and is no spike any more.
        self.recent_losses = average + (min(loss, SPIKE * average) - average) / AVERAGED_STEPS
        if not is_spike:
            return None
        self.spikes.append(self.step)
        return average


Replan = Callable[[TrainState], int | None]


def keep_plan(state: TrainState) -> None:
    """The `Replan` of a run whose number of steps is fixed."""


def num_training_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    if recipe.training.max_steps > 0:
        return recipe.training.max_steps
    return math.ceil(recipe.training.num_train_epochs * steps_per_epoch)


def times_due(strategy: str, every: int | None, num_steps: int, steps_per_epoch: int) -> int:
    """How often a run evaluates or saves with this strategy; it always does after the last step."""
    return 0 if strategy == "no" else math.ceil(num_steps / (every or steps_per_epoch))


@dataclass
class Loop:
    """One run, from `state.step` to its last step. Iterate over its events; set `stop_reason` between two to stop it.

    `model` and `optimizer` are wrapped for training; `evaluate` returns metrics with transformers' names. `replan` is
    asked after each step whether the run shall have another number of steps, and returns it or None.
    """

    recipe: Recipe
    task: Task
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    prefetcher: Prefetcher[Any]
    plan: Steps
    accelerator: Accelerator
    metric: str
    state: TrainState
    evaluate: Callable[[], dict[str, float]]
    replan: Replan = keep_plan
    stop_reason: str | None = None
    overflows: int = field(default=0, init=False)  # consecutive ones, of a loss scaler

    @property
    def num_steps(self) -> int:
        planned = num_training_steps(self.recipe, self.plan.steps_per_epoch)
        return self.state.replanned[-1][1] if self.state.replanned else planned

    @property
    def epoch(self) -> float:
        return self.state.step / self.plan.steps_per_epoch

    def __iter__(self) -> Iterator[Event]:
        training, state = self.recipe.training, self.state
        planned = num_training_steps(self.recipe, self.plan.steps_per_epoch)
        schedule = Schedule(training.lr_scheduler_type, training.learning_rate, training.warmup_steps, planned)
        yield Started(
            **self._now(),
            num_steps=self.num_steps,
            num_examples=self.plan.num_examples,
            batch_size=training.batch_size,
            num_processes=self.accelerator.num_processes,
        )
        begin = time.perf_counter() - state.seconds
        saved_at = state.step
        # A run that was stopped during an evaluation starts with that evaluation.
        while self.stop_reason is None and (state.step < self.num_steps or self._evaluation_is_due()):
            if not self._evaluation_is_due():
                yield from self._step(schedule(progress(state.step, planned, state.replanned)))
                yield from self._replan()
            is_best = False
            if self._evaluation_is_due():
                try:
                    evaluated = self._evaluate()
                except Interrupted as stopped:
                    self.stop_reason = str(stopped)
                    break
                is_best = evaluated.is_best
                yield evaluated
            if self._must_save(is_best):
                saved_at = state.step
                state.seconds = time.perf_counter() - begin
                yield SaveDue(**self._now())
        state.seconds = time.perf_counter() - begin
        # A run that was stopped must be able to resume, whatever the save strategy.
        if saved_at != state.step and (self.stop_reason or self.recipe.output.save_strategy != "no"):
            yield SaveDue(**self._now())
        reason = self.stop_reason or f"all {self.num_steps} steps done"
        yield Finished(**self._now(), reason=reason)

    def _now(self) -> dict[str, Any]:
        return {"step": self.state.step, "epoch": round(self.epoch, 6)}

    def _step(self, learning_rate: float) -> Iterator[Event]:
        """One optimizer step; if memory runs out, it is repeated in smaller micro-batches."""
        state = self.state
        if state.step + 1 in state.skipped:
            self.prefetcher.microbatches(self.plan, state.step)  # a stream must be read past them
            self._advance()
            yield Skipped(**self._now())
            return
        set_learning_rate(self.optimizer, learning_rate)
        while True:
            microbatches = self.prefetcher.microbatches(self.plan, state.step)
            try:
                result = run_step(
                    model=self.model,
                    optimizer=self.optimizer,
                    task=self.task,
                    microbatches=microbatches,
                    accelerator=self.accelerator,
                    max_grad_norm=self.recipe.training.max_grad_norm,
                    seed=(self.recipe.training.seed, state.step, self.accelerator.process_index),
                )
                break
            except MicroBatchOOM as error:
                reason, is_here = str(error), error.is_here
            yield self._halve(microbatches, reason, is_here)
        yield from self._check_finite(result)
        self._advance()
        average = state.note(result.loss)
        state.num_tokens += result.num_tokens
        yield StepDone(
            **self._now(),
            loss=result.loss,
            learning_rate=learning_rate,
            grad_norm=result.grad_norm,
            num_tokens=result.num_tokens,
            num_microbatches=len(microbatches),
            seconds=round(result.seconds, 4),
        )
        if average is not None:
            yield LossSpike(**self._now(), loss=result.loss, average=average)

    def _replan(self) -> Iterator[Replanned]:
        num_steps = self.replan(self.state)
        if num_steps is not None and num_steps != self.num_steps:
            self.state.replanned.append((self.state.step, num_steps))
            yield Replanned(**self._now(), num_steps=num_steps)

    def _advance(self) -> None:
        self.state.step += 1
        self.state.position = self.prefetcher.position(self.state.step)

    def _halve(self, microbatches: list[MicroBatch], reason: str, is_here: bool) -> OutOfMemory:
        """Halve the budget on all ranks, because this rank (`is_here`) or another one ran out of memory."""
        self.optimizer.zero_grad(set_to_none=True)
        budget = self.plan.tokens_per_microbatch
        failure: EnvironmentProblem | None = None
        if is_here:
            tokens, num_examples = max((batch.cost(self.plan.padded), len(batch.examples)) for batch in microbatches)
            try:
                budget = smaller_budget(budget, tokens, num_examples, reason)
            except EnvironmentProblem as error:
                failure, budget = error, 0
        budget = -all_reduce_max(-budget)[0]
        if not budget:  # nothing left to halve on one of the ranks
            raise failure or oom_while_ranks_wait(self.plan.tokens_per_microbatch, reason)
        self.plan = replace(self.plan, tokens_per_microbatch=budget)
        self.state.tokens_per_microbatch = budget
        return OutOfMemory(**self._now(), tokens_per_microbatch=budget, reason=reason)

    def _check_finite(self, result: StepResult) -> Iterator[Diverged]:
        """Raise DivergedError, after its event, if loss or gradients are not finite; all ranks see the same sums."""
        has_scaler = self.accelerator.scaler is not None
        self.overflows = 0 if result.is_finite else self.overflows + 1
        if result.is_finite or (has_scaler and math.isfinite(result.loss) and self.overflows < MAX_OVERFLOWS):
            return
        rows = self.prefetcher.rows(self.plan, self.state.step)
        yield Diverged(**self._now(), loss=result.loss, grad_norm=result.grad_norm, rows=rows)
        training = self.recipe.training
        where = f"step {self.state.step + 1}, training rows {', '.join(rows[:16])}"
        if math.isfinite(result.loss) and has_scaler:
            raise DivergedError(
                Problem(
                    where=where,
                    found=f"gradients overflowed fp16 in {self.overflows} consecutive steps, at every loss scale",
                    hint="start a new run with training.precision=bf16, or with "
                    f"training.learning_rate={training.learning_rate / 10:g}",
                    code="E602",
                )
            )
        raise DivergedError(
            Problem(
                where=where,
                found=f"training diverged: loss {result.loss}, gradient norm {result.grad_norm}; this step was neither "
                "applied nor saved",
                hint=f"start a new run with training.learning_rate={training.learning_rate / 10:g} or "
                "training.precision=fp32; training.divergence_policy=rollback skips such a batch",
                code="E601",
            )
        )

    def _evaluate(self) -> Evaluated:
        metrics = self.evaluate()
        entry = {"step": self.state.step, "epoch": round(self.epoch, 6), **metrics}
        self.state.evaluations.append(entry)
        return Evaluated(**self._now(), metrics=metrics, is_best=self.state.best(self.metric) is entry)

    def _evaluation_is_due(self) -> bool:
        """Whether the current step still needs its evaluation, also after a resume."""
        state, evaluation = self.state, self.recipe.evaluation
        is_done = bool(state.evaluations) and state.evaluations[-1]["step"] == state.step
        return state.step > 0 and not is_done and self._is_due(evaluation.eval_strategy, evaluation.eval_steps)

    def _is_due(self, strategy: str, every: int | None) -> bool:
        """Whether the strategy is due at the current step; after the last step it always is, except for "no"."""
        if strategy == "no":
            return False
        period = self.plan.steps_per_epoch if strategy == "epoch" else every
        assert period is not None, "the recipe requires a number of steps with this strategy"
        return self.state.step % period == 0 or self.state.step == self.num_steps

    def _must_save(self, is_best: bool) -> bool:
        """Whether to save now: when due, and whenever these are the best weights so far."""
        output = self.recipe.output
        return output.save_strategy != "no" and (is_best or self._is_due(output.save_strategy, output.save_steps))
