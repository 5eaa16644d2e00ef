"""One training run: train, publish the best weights, score them. `start` makes it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from fasttune.batching.feed import Feed, StoreFeed
from fasttune.batching.plan import Plan, Steps
from fasttune.batching.stream import BEGINNING, StreamFeed, Windows
from fasttune.checkpoint import Checkpoint, prune
from fasttune.checkpoint import write as write_checkpoint
from fasttune.checkpoint.resume import open_checkpoint
from fasttune.checkpoint.write import path_of
from fasttune.data.token_store import TokenStore
from fasttune.engine.embedding import trained_rows
from fasttune.engine.events import Event, Finished, SaveDue
from fasttune.engine.flops import measured_peak, training_flops
from fasttune.engine.loop import Loop, TrainState
from fasttune.engine.memory import keeping_freed_memory
from fasttune.engine.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors
from fasttune.engine.pretrained import save_model
from fasttune.engine.setup import Setup
from fasttune.environment import peak_memory_bytes, versions
from fasttune.errors import CheckpointError, DivergedError, Problem
from fasttune.observers import Observer
from fasttune.observers.files import EventLog, TensorBoard, has_tensorboard
from fasttune.observers.stopping import EarlyStopping, StopOnSignal
from fasttune.recipe import Recipe
from fasttune.report.card import card
from fasttune.run_folder import RESULT_PREFIX, RunFolder, read_json, write_json, write_json_lines, write_text
from fasttune.tasks import Task
from fasttune.tasks.audit import Audit
from fasttune.tasks.prepare import Split, Splits
from fasttune.tasks.reading import TRAIN, VALIDATION

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
    used_rows: np.ndarray | None = None  # of the word embeddings, where only these are trained
    audit: Audit = field(default_factory=Audit)  # what is doubtful about the rows
    windows: Windows | None = None  # the training rows, where they are a stream
    signal: int | None = None
    # The last scores of each split and the step of the weights they belong to, so that none is computed twice.
    scored: dict[str, tuple[int, Scored]] = field(default_factory=dict)

    task: Task = field(init=False)  # as the last validation tuned it

    def __post_init__(self) -> None:
        self.task = self.splits.task

    @property
    def metric(self) -> str:
        """The name in an evaluation's metrics of what decides which model is best."""
        return f"eval_{self.recipe.evaluation.metric_for_best_model or self.task.primary_metric}"

    @property
    def keeps_best(self) -> bool:
        return self.recipe.output.save_strategy != "no" and bool(self.state.evaluations)

    # --- training -----------------------------------------------------------------------------------------------

    def train(self, observers: Iterable[Observer]) -> Finished:
        """Run the loop to its end, to a reason to stop, or to a DivergedError; checkpoints are written on the way."""
        with ExitStack() as stack:
            if self.setup.accelerator.device.type == "cpu":
                stack.enter_context(keeping_freed_memory())
            if self.used_rows is not None:
                stack.enter_context(trained_rows(self.setup.model, self.used_rows))
            # Dropout masks are drawn from seeds of their own; the caller's random numbers stay as they were.
            stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
            signals = stack.enter_context(StopOnSignal())
            log = EventLog(self.folder.events, self.state.step if self.checkpoint else None)
            stack.callback(log.close)
            try:
                finished = self._run(stack, [log, *self._own_observers(stack), *observers, signals])
            except DivergedError as error:
                log.write({"event": "error", "step": self.state.step, "error": str(error)})
                raise
        self.signal = signals.number
        return finished

    def _run(self, stack: ExitStack, observers: list[Observer]) -> Finished:
        setup, recipe, state = self.setup, self.recipe, self.state
        optimizer = make_optimizer(setup.model, recipe.training.learning_rate, recipe.training.weight_decay)
        optimizer = setup.accelerator.prepare_optimizer(optimizer)
        if self.checkpoint is not None:
            self._restore(optimizer)
        feed, plan = self._feed()
        stack.callback(feed.close)
        loop = Loop(
            recipe=recipe,
            task=self.task,
            model=setup.prepared,
            optimizer=optimizer,
            feed=feed,
            plan=plan,
            accelerator=setup.accelerator,
            metric=self.metric,
            state=state,
            evaluate=lambda: self.score(VALIDATION, state.step).metrics,
        )
        for event in loop:
            if isinstance(event, SaveDue):
                self._save(event, optimizer)
            for observer in observers:
                loop.stop_reason = observer(event) or loop.stop_reason
        assert isinstance(event, Finished), "the loop's last event"
        return event

    def _feed(self) -> tuple[Feed[Any], Steps]:
        """The micro-batches of each step, and the plan that cuts them."""
        setup, state, store = self.setup, self.state, self.stores[TRAIN]
        rank, pinned = setup.accelerator.process_index, setup.accelerator.device.type == "cuda"
        how: dict[str, Any] = {
            "batch_size": self.recipe.training.batch_size,
            "tokens_per_microbatch": state.tokens_per_microbatch or setup.tokens_per_microbatch,
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
    def training_examples(self) -> str:
        """A digest of everything that training sees."""
        own = self.stores[TRAIN].fingerprint
        return own if self.splits.stream is None else f"{self.splits.stream.files.fingerprint}-{own}"

    def _own_observers(self, stack: ExitStack) -> list[Observer]:
        recipe, own = self.recipe, list[Observer]()
        report_to = recipe.tracking.report_to
        if report_to == ["tensorboard"] or (report_to == "auto" and has_tensorboard()):
            board = TensorBoard(
                self.folder.tensorboard,
                recipe.training.logging_steps,
                self.state.step if self.checkpoint else None,
            )
            stack.callback(board.close)
            own.append(board)
        if recipe.evaluation.early_stopping_patience is not None:
            own.append(EarlyStopping(self.metric, recipe.evaluation.early_stopping_patience, self.state))
        return own

    def _save(self, event: Event, optimizer: torch.optim.Optimizer) -> None:
        setup = self.setup
        scaler = setup.accelerator.scaler
        best = self.state.best(self.metric)
        write_checkpoint(
            self.folder.checkpoints,
            event.step,
            tensors={
                "model": setup.accelerator.get_state_dict(setup.prepared),
                "optimizer": optimizer_tensors(setup.model, optimizer),
            },
            state={**asdict(self.state), "scaler": scaler.state_dict() if scaler else None},
            about={"run_id": self.run_id, "data": self.training_examples, "versions": versions()},
        )
        keep = {best["step"]} if best else set()
        prune(self.folder.checkpoints, self.recipe.output.save_total_limit, keep, self.run_id)

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.checkpoint is not None
        self.setup.model.load_state_dict(self.checkpoint.tensors("model"))
        try:
            load_optimizer_tensors(self.setup.model, optimizer, self.checkpoint.tensors("optimizer"))
        except KeyError as error:
            raise CheckpointError(
                Problem(
                    where=f"checkpoint {self.checkpoint.path}",
                    found=f"moments of {error.args[0]}, which is not trained here",
                    expected="the parameters of the start (fasttune's version and the number of processes decide them)",
                    hint="resume as the run was started, or start a new run with another --output",
                    code="E521",
                )
            ) from None
        scaler = self.checkpoint.state()["scaler"]
        if scaler and self.setup.accelerator.scaler:
            self.setup.accelerator.scaler.load_state_dict(scaler)

    # --- after the last step ------------------------------------------------------------------------------------

    def publish(self) -> int:
        """Put the best weights (or the last, where none were kept) at the root; returns the step they are from."""
        step = self.state.step
        if self.keeps_best:
            best = self.state.best(self.metric)
            assert best is not None
            if best["step"] != step:
                step = best["step"]
                chosen = open_checkpoint(path_of(self.folder.checkpoints, step), self.run_id)
                self.setup.model.load_state_dict(chosen.tensors("model"))
        if self.signal is None:
            why = f", the best by {self.metric.removeprefix('eval_')}" if self.keeps_best else ""
            self.say(f"scoring the weights of step {step}{why}")
            self.score(VALIDATION, step)  # tunes the task by these weights
        for name, value in self.task.state().items():
            setattr(self.setup.model.config, name, value)
        save_model(self.folder.path, self.setup.model, self.setup.tokenizer)
        return step

    def score(self, name: str, step: int) -> Scored:
        """One split by the weights of `step`; metrics with transformers' names."""
        if self.scored.get(name, (None,))[0] != step:
            split = next(split for split in self.splits.all() if split.name == name)
            budget = self.setup.tokens_per_microbatch
            found = score_split(self.setup, self.task, split, self.stores[name], tune=name == VALIDATION)
            self.task = found.task
            self.scored[name] = (step, found)
            if self.setup.tokens_per_microbatch < budget:
                fits = self.setup.tokens_per_microbatch
                self.say(f"out of memory in evaluation: going on with {fits:,} tokens a micro-batch")
        return self.scored[name][1]

    def finish(self, step: int) -> dict[str, Any]:
        """Score the published weights, those of `step`, on the held-out splits; write results, predictions, card."""
        results = {"train": self.train_results()}
        for split in self.splits.all():
            if split.name != TRAIN:
                scored = self.score(split.name, step)
                prefix = RESULT_PREFIX[split.name]
                results[prefix] = {
                    key.replace("eval_", f"{prefix}_", 1): value for key, value in scored.metrics.items()
                }
                predictions = self.task.decode(scored.results, self.stores[split.name], split.rows)
                write_json_lines(self.folder.predictions(split.name), predictions)
                for name, content in self.task.files(scored.results, self.stores[split.name], split.rows).items():
                    write_json(self.folder.predictions_as(prefix, name), content)
        everything = {key: value for metrics in results.values() for key, value in metrics.items()}
        write_text(
            self.folder.card,
            card(
                name=self.folder.path.name,
                recipe=self.recipe,
                label_names=list(self.task.state().get("label2id", ())),
                results=everything,
                data_report=read_json(self.folder.data_report),
                environment=read_json(self.folder.environment),
            ),
        )
        self.folder.write_results(results)
        return everything

    def train_results(self) -> dict[str, float]:
        state, store, setup = self.state, self.stores[TRAIN], self.setup
        passes = state.num_tokens / store.num_tokens  # over the store, which of a stream is a sample
        epochs = passes * len(store) / self.num_examples
        seconds = max(state.seconds, 1e-9)
        flops = training_flops(setup.model, store.sequence_lengths) * passes
        peak = measured_peak(setup.accelerator.device, self.recipe.training.precision)
        return {
            "epoch": round(epochs, 6),
            "train_loss": state.loss_sum / max(state.step, 1),
            "train_runtime": state.seconds,
            "train_samples": self.num_examples,
            "train_samples_per_second": len(store) * passes / seconds,
            "train_steps_per_second": state.step / seconds,
            "train_tokens_per_second": state.num_tokens / seconds,
            "total_flos": flops,
            "train_mfu": flops / seconds / peak,
            "peak_memory_bytes": peak_memory_bytes(setup.accelerator.device),
        }

    def close(self) -> None:
        """Free the device's memory."""
        self.setup.accelerator.free_memory()
        del self.setup
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Scored:
    """A labelled split by one state of the weights: metrics named eval_..., and what its predictions are made from.

    `task`: as it scored, tuned by this split where that was asked for.
    """

    metrics: dict[str, float]
    results: np.ndarray
    task: Task


def score_split(setup: Setup, task: Task, split: Split, store: TokenStore, tune: bool = False) -> Scored:
    import sklearn.metrics  # noqa: F401  half a second that is not the model's

    begin = time.perf_counter()
    outputs = setup.run(task, store)
    assert outputs.loss is not None, "a split that is scored has labels"
    if tune:
        task = task.tuned(outputs.results, store, split.rows)
    metrics = {f"eval_{name}": value for name, value in task.score(outputs.results, store, split.rows).items()}
    runtime = time.perf_counter() - begin
    timing = {"eval_runtime": runtime, "eval_samples_per_second": len(split.rows) / runtime}
    return Scored({"eval_loss": outputs.loss, **metrics, **timing}, outputs.results, task)
