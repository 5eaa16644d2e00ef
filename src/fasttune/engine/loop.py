"""The training loop: a generator of events. It writes nothing, prints nothing and knows nothing of data or tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator

from fasttune.batching.collate import MicroBatch
from fasttune.batching.feed import Feed, Position
from fasttune.batching.plan import Steps
from fasttune.engine.events import Evaluated, Event, Finished, OutOfMemory, SaveDue, Started, StepDone
from fasttune.engine.memory import TooLarge, halved
from fasttune.engine.optimizer import Schedule, set_learning_rate
from fasttune.engine.step import run_step
from fasttune.errors import DivergedError, Problem
from fasttune.recipe import Recipe
from fasttune.recipe.values import LESS_IS_BETTER
from fasttune.tasks import Task


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

    def best(self, metric: str) -> dict[str, Any] | None:
        """The evaluation with the greatest `metric` (least of a loss or error); the earliest of equals."""
        sign = -1.0 if metric.removeprefix("eval_") in LESS_IS_BETTER else 1.0
        return max(self.evaluations, key=lambda evaluation: sign * evaluation[metric], default=None)


def num_training_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    if recipe.training.max_steps > 0:
        return recipe.training.max_steps
    return math.ceil(recipe.training.num_train_epochs * steps_per_epoch)


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
        while state.step < self.num_steps and self.stop_reason is None:
            yield from self._step(schedule(state.step))
            is_best = False
            if self._is_due(self.recipe.evaluation.eval_strategy, self.recipe.evaluation.eval_steps):
                evaluated = self._evaluate()
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

    def _step(self, learning_rate: float) -> Iterator[OutOfMemory | StepDone]:
        """One update; a step that does not fit into memory is done again in smaller micro-batches."""
        state = self.state
        rank = self.accelerator.process_index
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
                    seed=(self.recipe.training.seed, state.step, rank),
                )
                break
            except TooLarge as error:
                reason = str(error)
            yield self._halve(microbatches, reason)
        if not math.isfinite(result.loss) or (self.accelerator.scaler is None and not result.is_finite):
            raise self._diverged(result.loss, result.grad_norm)
        state.step += 1
        state.loss_sum += result.loss
        state.num_tokens += result.num_tokens
        state.position = self.feed.position(state.step)
        yield StepDone(
            **self._now(),
            loss=result.loss,
            learning_rate=learning_rate,
            grad_norm=result.grad_norm,
            num_tokens=result.num_tokens,
            num_microbatches=len(microbatches),
            seconds=round(result.seconds, 4),
        )

    def _halve(self, microbatches: list[MicroBatch], reason: str) -> OutOfMemory:
        self.optimizer.zero_grad(set_to_none=True)
        if self.accelerator.num_processes > 1:  # the other ranks wait for gradients that will not come
            raise RuntimeError(f"out of memory on rank {self.accelerator.process_index}: {reason}")
        tokens, num_examples = max((batch.cost(self.plan.padded), len(batch.examples)) for batch in microbatches)
        budget = halved(self.plan.tokens_per_microbatch, tokens, num_examples, reason)
        self.plan = replace(self.plan, tokens_per_microbatch=budget)
        self.state.tokens_per_microbatch = budget
        return OutOfMemory(**self._now(), tokens_per_microbatch=budget, reason=reason)

    def _diverged(self, loss: float, grad_norm: float) -> DivergedError:
        rows = self.feed.rows(self.plan, self.state.step)
        return DivergedError(
            Problem(
                where=f"step {self.state.step + 1}, training rows {', '.join(rows[:16])}",
                found=f"loss {loss}, gradient norm {grad_norm}",
                expected="finite numbers; the weights of this step were not updated and not saved",
                hint=f"a new run with training.learning_rate={self.recipe.training.learning_rate / 10:g}, "
                "or with training.precision=fp32",
                code="E601",
            )
        )

    def _evaluate(self) -> Evaluated:
        metrics = self.evaluate()
        entry = {"step": self.state.step, "epoch": round(self.epoch, 6), **metrics}
        self.state.evaluations.append(entry)
        return Evaluated(**self._now(), metrics=metrics, is_best=self.state.best(self.metric) is entry)

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
