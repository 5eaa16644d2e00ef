"""The training loop: a generator of events. It writes nothing, prints nothing and knows nothing of data or tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator

from fasttune.data.batching.collate import MicroBatch
from fasttune.data.batching.feed import Feed, Position
from fasttune.data.batching.plan import Steps
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
    SaveDue,
    Skipped,
    Started,
    StepDone,
)
from fasttune.training.memory import MicroBatchOOM, halved, out_of_step
from fasttune.training.optimizer import Schedule, set_learning_rate
from fasttune.training.signals import Interrupted
from fasttune.training.step import StepResult, run_step

# A loss is a spike above so many times the average of those before it, and above that of the first steps: near the end
# the average may be so low that any hard row exceeds it.
SPIKE, AVERAGED_STEPS = 10.0, 20
# A loss scaler halves its scale at each overflow: after so many in a row it has long been below any number.
MOST_OVERFLOWS = 100


@dataclass
class TrainState:
    """All that a run is besides weights and optimizer; numbers only, so that it is kept as JSON."""

    step: int = 0
    loss_sum: float = 0.0  # of the mean losses of all steps
    num_tokens: int = 0  # real tokens trained on
    seconds: float = 0.0  # from the first batch to the last step, evaluations and saves included
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    tokens_per_microbatch: int | None = None  # what fitted, where the budget of the start did not
    position: Position | None = None  # where the next step begins in a stream
    skipped: list[int] = field(default_factory=list)  # steps whose batch is left out, since training diverged on it
    spikes: list[int] = field(default_factory=list)  # steps whose loss was far above the others'
    bad_rows: dict[str, str] = field(default_factory=dict)  # of a stream, left out: where each stands -> why
    first_losses: float = 0.0  # the average of the first steps
    recent_losses: float = 0.0  # the same of later ones, fading

    def best(self, metric: str) -> dict[str, Any] | None:
        """The evaluation with the greatest `metric` (least of a loss or error); the earliest of equals."""
        return next(iter(self.best_first(metric)), None)

    def best_first(self, metric: str) -> list[dict[str, Any]]:
        """All evaluations; the earlier of equals is better, and one whose metric is not a number is worse than any."""
        sign = -1.0 if metric.removeprefix("eval_") in LESS_IS_BETTER else 1.0

        def key(evaluation: dict[str, Any]) -> tuple[bool, float]:
            value = evaluation[metric]
            is_number = value is not None and not math.isnan(value)  # None: as JSON brought it back
            return not is_number, -sign * value if is_number else 0.0

        return sorted(self.evaluations, key=key)

    @property
    def num_updates(self) -> int:
        return self.step - sum(step <= self.step for step in self.skipped)

    def note(self, loss: float) -> float | None:
        """Take in the loss of a step that was done; the average before it, where it is far above that."""
        self.loss_sum += loss
        if self.num_updates <= AVERAGED_STEPS:
            self.first_losses += (loss - self.first_losses) / self.num_updates
            self.recent_losses = self.first_losses
            return None
        average = self.recent_losses or loss
        is_spike = loss > SPIKE * average and loss > self.first_losses
        # A spike counts little, yet a loss that stays high is a spike for some steps only.
        self.recent_losses = average + (min(loss, SPIKE * average) - average) / AVERAGED_STEPS
        if not is_spike:
            return None
        self.spikes.append(self.step)
        return average


def num_training_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    if recipe.training.max_steps > 0:
        return recipe.training.max_steps
    return math.ceil(recipe.training.num_train_epochs * steps_per_epoch)


def times_due(strategy: str, every: int | None, num_steps: int, steps_per_epoch: int) -> int:
    """How often a run evaluates or saves by this strategy; the last step counts, as `Loop` has it."""
    return 0 if strategy == "no" else math.ceil(num_steps / (every or steps_per_epoch))


@dataclass
class Loop:
    """One run, from `state.step` to its last step. Iterate it; between two events `stop_reason` may be set.

    `model` and `optimizer` come prepared by `accelerator`; `evaluate` returns metrics with transformers' names.
    """

    recipe: Recipe
    task: Task
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    feed: Feed[Any]
    plan: Steps
    accelerator: Accelerator
    metric: str
    state: TrainState
    evaluate: Callable[[], dict[str, float]]
    stop_reason: str | None = None
    overflows: int = field(default=0, init=False)  # in a row, of a loss scaler

    @property
    def num_steps(self) -> int:
        return num_training_steps(self.recipe, self.plan.steps_per_epoch)

    @property
    def epoch(self) -> float:
        return self.state.step / self.plan.steps_per_epoch

    def __iter__(self) -> Iterator[Event]:
        training, state = self.recipe.training, self.state
        schedule = Schedule(training.lr_scheduler_type, training.learning_rate, training.warmup_steps, self.num_steps)
        yield Started(
            **self._now(),
            num_steps=self.num_steps,
            num_examples=self.plan.num_examples,
            batch_size=training.batch_size,
            num_processes=self.accelerator.num_processes,
        )
        begin = time.perf_counter() - state.seconds
        saved_at = state.step
        # A run that was stopped in an evaluation makes up for it first.
        while self.stop_reason is None and (state.step < self.num_steps or self._evaluation_is_due()):
            if not self._evaluation_is_due():
                yield from self._step(schedule(state.step))
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
        # A run that was stopped can go on from here, whatever the strategy.
        if saved_at != state.step and (self.stop_reason or self.recipe.output.save_strategy != "no"):
            yield SaveDue(**self._now())
        reason = self.stop_reason or f"all {self.num_steps} steps done"
        yield Finished(**self._now(), reason=reason)

    def _now(self) -> dict[str, Any]:
        return {"step": self.state.step, "epoch": round(self.epoch, 6)}

    def _step(self, learning_rate: float) -> Iterator[Event]:
        """One update; a step that does not fit into memory is done again in smaller micro-batches."""
        state = self.state
        if state.step + 1 in state.skipped:
            self.feed.microbatches(self.plan, state.step)  # a stream has to be read past them
            self._go_forward()
            yield Skipped(**self._now())
            return
        set_learning_rate(self.optimizer, learning_rate)
        while True:
            microbatches = self.feed.microbatches(self.plan, state.step)
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
        self._go_forward()
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

    def _go_forward(self) -> None:
        self.state.step += 1
        self.state.position = self.feed.position(self.state.step)

    def _halve(self, microbatches: list[MicroBatch], reason: str, is_here: bool) -> OutOfMemory:
        """`is_here`: in this process, of several; all go on with the same budget."""
        self.optimizer.zero_grad(set_to_none=True)
        budget = self.plan.tokens_per_microbatch
        failure: EnvironmentProblem | None = None
        if is_here:
            tokens, num_examples = max((batch.cost(self.plan.padded), len(batch.examples)) for batch in microbatches)
            try:
                budget = halved(budget, tokens, num_examples, reason)
            except EnvironmentProblem as error:
                failure, budget = error, 0
        budget = -all_reduce_max(-budget)[0]
        if not budget:  # nothing to halve, in one of them
            raise failure or out_of_step(self.plan.tokens_per_microbatch, reason)
        self.plan = replace(self.plan, tokens_per_microbatch=budget)
        self.state.tokens_per_microbatch = budget
        return OutOfMemory(**self._now(), tokens_per_microbatch=budget, reason=reason)

    def _check_finite(self, result: StepResult) -> Iterator[Diverged]:
        """DivergedError, after the event that says it; the update was not made. All ranks see the same sums."""
        has_scaler = self.accelerator.scaler is not None
        self.overflows = 0 if result.is_finite else self.overflows + 1
        if result.is_finite or (has_scaler and math.isfinite(result.loss) and self.overflows < MOST_OVERFLOWS):
            return
        rows = self.feed.rows(self.plan, self.state.step)
        yield Diverged(**self._now(), loss=result.loss, grad_norm=result.grad_norm, rows=rows)
        training = self.recipe.training
        where = f"step {self.state.step + 1}, training rows {', '.join(rows[:16])}"
        if math.isfinite(result.loss) and has_scaler:
            raise DivergedError(
                Problem(
                    where=where,
                    found=f"gradients too large for fp16 in {self.overflows} steps in a row",
                    expected="an update now and then, with whatever loss scale",
                    hint=f"a new run with training.precision=bf16, or training.learning_rate="
                    f"{training.learning_rate / 10:g}",
                    code="E602",
                )
            )
        raise DivergedError(
            Problem(
                where=where,
                found=f"loss {result.loss}, gradient norm {result.grad_norm}",
                expected="finite numbers; the weights of this step were not updated and not saved",
                hint=f"a new run with training.learning_rate={training.learning_rate / 10:g}, or with "
                "training.precision=fp32; training.divergence_policy=rollback leaves such a batch out",
                code="E601",
            )
        )

    def _evaluate(self) -> Evaluated:
        metrics = self.evaluate()
        entry = {"step": self.state.step, "epoch": round(self.epoch, 6), **metrics}
        self.state.evaluations.append(entry)
        return Evaluated(**self._now(), metrics=metrics, is_best=self.state.best(self.metric) is entry)

    def _evaluation_is_due(self) -> bool:
        """Also after a resume, where the evaluation of its step was not made."""
        state, evaluation = self.state, self.recipe.evaluation
        is_made = bool(state.evaluations) and state.evaluations[-1]["step"] == state.step
        return state.step > 0 and not is_made and self._is_due(evaluation.eval_strategy, evaluation.eval_steps)

    def _is_due(self, strategy: str, every: int | None) -> bool:
        """After the last step everything is due that is due at all."""
        if strategy == "no":
            return False
        period = self.plan.steps_per_epoch if strategy == "epoch" else every
        assert period is not None, "the recipe requires a number of steps with this strategy"
        return self.state.step % period == 0 or self.state.step == self.num_steps

    def _must_save(self, is_best: bool) -> bool:
        """The best weights so far are always on disk, unless nothing is to be saved."""
        output = self.recipe.output
        return output.save_strategy != "no" and (is_best or self._is_due(output.save_strategy, output.save_steps))
