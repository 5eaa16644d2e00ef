"""A split scored by one state of the weights: the forward pass, the loss, the task's metrics."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from fasttune.data.batching.collate import MicroBatch, Padding, collate, token_positions
from fasttune.data.batching.plan import evaluation_microbatches, num_tokens, split_by_budget
from fasttune.data.pipeline import Split
from fasttune.data.reading import VALIDATION
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import EnvironmentProblem
from fasttune.parallel.collectives import all_reduce_max
from fasttune.tasks import Task
from fasttune.tasks.metrics.intervals import intervals
from fasttune.tasks.metrics.sums import RowSums
from fasttune.training import signals
from fasttune.training.memory import (
    CPU_EVALUATION_TOKENS,
    MicroBatchOOM,
    as_micro_batch_oom,
    give_back_freed_memory,
    oom_while_ranks_wait,
    smaller_budget,
)
from fasttune.training.setup import Setup
from fasttune.training.step import run_model
from fasttune.training.watchdog import ASLEEP, PATIENCE, Watchdog
from fasttune.training.wrapping import is_sharded

if TYPE_CHECKING:
    from fasttune.training.run import TrainingRun

# Micro-batches between two returns of freed memory to the system, which then costs about 1 % of the time.
GIVEN_BACK_EVERY = 16
# The watchdog's allowance for metrics in Python; thresholds for a million questions take about an hour.
SECONDS_PER_ROW = 0.02


@dataclass(frozen=True)
class Scored:
    """A scored split: metrics named eval_..., the results that predictions are decoded from, and the task.

    `task` is calibrated on this split if that was asked for.
    """

    metrics: dict[str, float]
    results: np.ndarray
    task: Task


class Evaluator:
    """Scores the splits of a run, each once per state of the weights.

    `task` is the task as the last validation calibrated it.
    """

    def __init__(self, run: TrainingRun):
        self.run = run
        self.task = run.splits.task
        self.watchdog = ASLEEP
        self._scored: dict[str, tuple[int, Scored]] = {}  # by split: the step of the weights, and the scores

    def score(self, name: str, step: int) -> Scored:
        """Score split `name` with the weights of `step`; validation also calibrates the task."""
        if self._scored.get(name, (None,))[0] != step:
            run, setup = self.run, self.run.setup
            split = next(split for split in run.splits.all() if split.name == name)
            budget = setup.tokens_per_microbatch
            scored = score_split(
                setup, self.task, split, run.stores[name], calibrate=name == VALIDATION, watchdog=self.watchdog
            )
            self.task = scored.task
            self._scored[name] = (step, scored)
            if setup.tokens_per_microbatch < budget:
                run.log(
                    "evaluation ran out of memory: continuing with "
                    f"{setup.tokens_per_microbatch:,} tokens per micro-batch"
                )
        return self._scored[name][1]

    def forget(self) -> None:
        """Drop all scores, when the weights they belong to are gone."""
        self._scored.clear()


def score_split(
    setup: Setup,
    task: Task,
    split: Split,
    store: TokenStore,
    calibrate: bool = False,
    watchdog: Watchdog = ASLEEP,
) -> Scored:
    """Metrics of a labelled split; with `calibrate` the task first chooses its thresholds on it."""
    watchdog.expect(PATIENCE)
    import sklearn.metrics  # noqa: F401  imported here so that its half second is not counted as the model's

    begin = time.perf_counter()
    outputs = predict_split(setup, task, store, watchdog.alive)
    watchdog.expect(PATIENCE + SECONDS_PER_ROW * len(split.rows))
    assert outputs.loss is not None, "a split that is scored has labels"
    if calibrate:
        task = task.calibrated(outputs.results, store, split.rows)
    metrics = {f"eval_{name}": value for name, value in task.score(outputs.results, store, split.rows).items()}
    runtime = time.perf_counter() - begin
    counts = {
        "eval_samples": len(split.rows),
        "eval_runtime": runtime,
        "eval_samples_per_second": len(split.rows) / runtime,
    }
    return Scored({"eval_loss": outputs.loss, **metrics, **counts}, outputs.results, task)


def with_intervals(metrics: Mapping[str, float], sums: RowSums | None) -> dict[str, float]:
    """Metrics named eval_..., each followed by the ends of its 95 % interval, eval_..._low and eval_..._high."""
    if sums is None:
        return dict(metrics)
    found = intervals(sums)
    named: dict[str, float] = {}
    for name, value in metrics.items():
        named[name] = value
        if name.removeprefix("eval_") in found:
            named[f"{name}_low"], named[f"{name}_high"] = found[name.removeprefix("eval_")]
    return named


def predict_split(setup: Setup, task: Task, store: TokenStore, alive: Callable[[], None] = lambda: None) -> Outputs:
    """`run_split` with the model and the micro-batches of `setup`, which keeps a smaller budget if memory ran out."""
    on_cpu = setup.accelerator.device.type == "cpu"
    budget = min(setup.tokens_per_microbatch, CPU_EVALUATION_TOKENS) if on_cpu else setup.tokens_per_microbatch
    outputs = run_split(
        model=setup.model,
        task=task,
        store=store,
        accelerator=setup.accelerator,
        padding=setup.padding,
        tokens_per_microbatch=budget,
        padded=setup.padded,
        alive=alive,
    )
    if outputs.tokens_per_microbatch < budget:
        setup.tokens_per_microbatch = outputs.tokens_per_microbatch
    return outputs


@dataclass(frozen=True)
class Outputs:
    """What a forward pass over a split leaves.

    `results`: what the task keeps of each example (N, ...), or of each token (T, ...). `loss`: the mean over the
    weight, None without targets. `tokens_per_microbatch`: as given, or smaller if that ran out of memory.
    """

    results: np.ndarray
    loss: float | None
    tokens_per_microbatch: int


@torch.no_grad()
def run_split(
    *,
    model: torch.nn.Module,
    task: Task,
    store: TokenStore,
    accelerator: Accelerator,
    padding: Padding,
    tokens_per_microbatch: int,
    padded: bool,
    alive: Callable[[], None] = lambda: None,
) -> Outputs:
    """Run a split through the model, longest examples first; results are in input order.

    Ranks share the micro-batches, and each gets all results. A micro-batch that runs out of memory is repeated in
    smaller ones, and so are those that follow. `alive` is called between micro-batches. The model is left in evaluation
    mode. Raises Interrupted when a signal was noted.
    """
    if model.training:
        model.eval()  # takes a millisecond, a tenth of a short request to a server
    results: np.ndarray | None = None
    loss_sum, weight_sum = 0.0, 0.0
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    tokens_per_microbatch = -all_reduce_max(-tokens_per_microbatch)[0]  # all ranks divide the split alike
    pending = deque(evaluation_microbatches(store.lengths, tokens_per_microbatch, padded)[rank::num_ranks])
    counts = itertools.count(1)
    while any_rank_has_more(bool(pending)):
        alive()
        if not pending:  # other ranks have more
            if is_sharded(model):  # and gather weights from this rank in every forward pass
                _forward(model, task, collate(store, np.array([0]), padding).to(accelerator.device), False)
            continue
        if next(counts) % GIVEN_BACK_EVERY == 0:
            give_back_freed_memory()
        examples = pending.popleft()
        try:
            with as_micro_batch_oom():
                batch = collate(store, examples, padding)
                weight = task.weight(batch.targets) if store.is_labelled else 0.0
                batch_results, loss = _forward(model, task, batch.to(accelerator.device), store.is_labelled)
        except MicroBatchOOM as error:
            reason = str(error)  # the exception itself keeps tensors alive
            if is_sharded(model):
                raise oom_while_ranks_wait(num_tokens(examples, store.lengths, padded), reason) from None
        else:
            where: np.ndarray = examples
            if task.result_per_token:
                where, is_real = token_positions(store, examples, padding)
                batch_results = batch_results[is_real]
            if results is None:
                length = store.num_tokens if task.result_per_token else len(store)
                results = np.zeros((length, *batch_results.shape[1:]), dtype=np.float32)
            results[where] = batch_results
            loss_sum, weight_sum = loss_sum + loss, weight_sum + weight
            continue
        tokens = num_tokens(examples, store.lengths, padded)
        tokens_per_microbatch = _smaller_budget(tokens_per_microbatch, tokens, len(examples), reason)
        left = np.concatenate([examples, *pending])
        pending = deque(split_by_budget(left, store.lengths, tokens_per_microbatch, padded))
    if num_ranks > 1:
        results, loss_sum, weight_sum = _reduce(accelerator, results, loss_sum, weight_sum)
    assert results is not None, "an empty split was refused when it was read"
    return Outputs(results, loss_sum / weight_sum if store.is_labelled else None, tokens_per_microbatch)


def _forward(model: torch.nn.Module, task: Task, batch: MicroBatch, is_labelled: bool) -> tuple[np.ndarray, float]:
    """The results of a micro-batch, and the sum of its losses, 0 without labels."""
    outputs = run_model(model, batch)
    results = task.result(outputs, batch)
    loss = task.loss(outputs, batch, training=False).item() if is_labelled else 0.0
    return results.float().cpu().numpy(), loss


def _smaller_budget(tokens_per_microbatch: int, tokens: int, num_sequences: int, reason: str) -> int:
    """As `smaller_budget`; if nothing is left to halve, the other ranks fail too."""
    try:
        return smaller_budget(tokens_per_microbatch, tokens, num_sequences, reason)
    except EnvironmentProblem:
        all_reduce_max(0, 0, True)  # the other ranks are in any_rank_has_more
        raise


def any_rank_has_more(has_more: bool) -> bool:
    """Whether any rank has micro-batches left; Interrupted on all ranks if one of them noted a signal."""
    some_have_more, number, has_failed = all_reduce_max(has_more, signals.pending() or 0, False)
    if has_failed:
        raise oom_while_ranks_wait(CPU_EVALUATION_TOKENS, "one text did not fit into the memory of another process")
    if number:
        raise signals.Interrupted(signals.words(number))
    return bool(some_have_more)


def _reduce(
    accelerator: Accelerator, results: np.ndarray | None, loss_sum: float, weight_sum: float
) -> tuple[np.ndarray, float, float]:
    """The sums over all ranks. Each example was computed by one rank, and the others hold zeros for it."""
    shape = next(shape for shape in gather_object([None if results is None else results.shape]) if shape is not None)
    local = torch.zeros(shape) if results is None else torch.from_numpy(results)
    sums = torch.tensor([loss_sum, weight_sum], dtype=torch.float64)
    total: torch.Tensor = accelerator.reduce(local.to(accelerator.device), "sum")
    loss_sum, weight_sum = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    return total.cpu().numpy(), loss_sum, weight_sum
