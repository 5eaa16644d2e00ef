"""The end of a run: its best weights as a plain Hugging Face model, their scores, predictions, results and card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import mean
from typing import Any

import numpy as np

from fasttune.analysis.findings import analyse
from fasttune.analysis.scored import Scored
from fasttune.data.pipeline import Split
from fasttune.data.reading import TEST, TRAIN, VALIDATION
from fasttune.errors import CheckpointError
from fasttune.parallel.collectives import is_main
from fasttune.recipe import Recipe
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.runs.checkpoint import open_checkpoint
from fasttune.runs.checkpoint.write import path_of
from fasttune.runs.folder import (
    RESULT_PREFIX,
    RunFolder,
    read_events,
    read_json,
    staged_bytes,
    write_json,
    write_json_lines,
    write_text,
)
from fasttune.security.cache import note_scoring
from fasttune.tasks.metrics.sums import RowSums
from fasttune.training import signals
from fasttune.training.baselines import baselines, lines
from fasttune.training.card import card
from fasttune.training.environment import peak_memory_bytes
from fasttune.training.events import StepDone
from fasttune.training.flops import MEASURABLE_FLOPS, frozen_flops, peak_flops, training_flops
from fasttune.training.frozen import is_kept
from fasttune.training.loop import TrainState
from fasttune.training.model import checksums, save_model
from fasttune.training.resume import find_on_all_ranks, tensors_of
from fasttune.training.run import TrainingRun
from fasttune.training.scoring import with_intervals
from fasttune.training.trainer import Trainer

STEPS_TO_JUDGE = 30


def save_best_weights(trainer: Trainer) -> int:
    """Save the best weights as a model at the root of the run folder, or the last ones if no best were kept.

    Returns the step they are from. A run that was not stopped also calibrates its task on them.
    """
    run, setup = trainer.run, trainer.run.setup
    keeps_best = run.recipe.output.save_strategy != "no" and bool(run.state.evaluations)
    step = _load_best(run) if keeps_best else run.state.step
    if trainer.signal is None:
        reason = f", the best by {run.metric.removeprefix('eval_')}" if keeps_best else ""
        run.log(f"scoring the weights of step {step}{reason}")
        scored = trainer.evaluator.score(VALIDATION, step)
        if run.recipe.evaluation.calibrate:
            _calibrate(trainer, scored.results)
        if run.recipe.evaluation.min_precision is not None:
            _abstain(trainer, scored.results, run.recipe.evaluation.min_precision)
            trainer.evaluator.forget()  # the scores of the validation rows gain the share that is predicted
    if is_main():
        for name, value in trainer.evaluator.task.state().items():
            setattr(setup.model.config, name, value)
        run.folder.checksums.unlink(missing_ok=True)  # those of an earlier stop
        save_model(run.folder.path, setup.model, setup.tokenizer)
        write_json(run.folder.checksums, checksums(run.folder.path))
    return step


def _calibrate(trainer: Trainer, results: np.ndarray) -> None:
    """Let the task show calibrated probabilities, and keep the temperature in calibration.json."""
    run, evaluator = trainer.run, trainer.evaluator
    found = evaluator.task.calibration(results, run.stores[VALIDATION])
    if found is None:
        return
    evaluator.task = evaluator.task.with_temperature(found.temperature)
    run.log(
        f"probabilities calibrated on the validation rows: temperature {found.temperature:.2f}, "
        f"expected calibration error {found.before:.3f} -> {found.after:.3f}"
    )
    if is_main():
        write_json(run.folder.calibration, found.as_json())


def _abstain(trainer: Trainer, results: np.ndarray, precision: float) -> None:
    run, evaluator = trainer.run, trainer.evaluator
    found = evaluator.task.abstaining(results, run.stores[VALIDATION], precision)
    if found is None:
        run.log(
            f"warning: no confidence gives a precision of {precision:g} on the validation rows; nothing is withheld"
        )
        return
    evaluator.task = found
    limit = found.state()["min_confidence"]
    run.log(f"predictions below a probability of {limit:.3f} are withheld: the others are right in {precision:.0%}")


def _load_best(run: TrainingRun) -> int:
    """Load the best weights that an intact checkpoint holds, or keep the current ones; returns their step."""
    for evaluation in run.state.best_first(run.metric):
        step = int(evaluation["step"])
        if step == run.state.step:
            break
        path = path_of(run.folder.checkpoints, step)
        try:
            checkpoint = find_on_all_ranks(partial(open_checkpoint, path, run.run_id))
        except CheckpointError as error:
            if evaluation is run.state.best(run.metric):
                run.log(f"cannot use the best weights, those of step {step}: {error.problems[0].found}")
            continue
        assert checkpoint is not None, "open_checkpoint returns one or raises"
        run.setup.model.load_state_dict(tensors_of(checkpoint, "model"))
        return step
    return run.state.step


def write_results(trainer: Trainer, step: int) -> dict[str, Any]:
    """Score the weights of `step` on the held-out splits; write metrics, predictions and the model card."""
    run, task = trainer.run, trainer.evaluator.task
    results = {"train": train_results(run)}
    last: Scored | None = None  # of the test rows if there are any
    for split in run.splits.all():
        if split.name == TRAIN or (split.name == TEST and not run.scores_test):
            continue
        scored, store = trainer.evaluator.score(split.name, step), run.stores[split.name]
        for remark in task.remarks(scored.results, store, split.name):
            run.log(remark)
        prefix = RESULT_PREFIX[split.name]
        sums = task.row_sums(scored.results, store, split.rows)
        last = last if sums is None else Scored(task, split, store, scored.results, sums)
        metrics = with_intervals(scored.metrics, sums)
        results[prefix] = {key.replace("eval_", f"{prefix}_", 1): value for key, value in metrics.items()}
        if is_main():
            if sums is not None:
                with staged_bytes(run.folder.row_sums(split.name)) as file:
                    sums.save(file)
            predictions = task.decode(scored.results, store, split.rows)
            write_json_lines(run.folder.predictions(split.name), predictions)
            for name, content in task.files(scored.results, store, split.rows).items():
                write_json(run.folder.predictions_as(prefix, name), content)
    all_results = {key: value for metrics in results.values() for key, value in metrics.items()}
    found = _baselines(run, last.split, last.sums) if last is not None and run.scores_test else []
    for line in lines(found):
        run.log(line)
    if is_main():
        if last is not None and run.scores_test:
            _analyse(run, last)
        if found:
            write_json(run.folder.baselines, found)
        for line in flat_loss(step_losses(run.folder), run.recipe.training.learning_rate):
            run.log(line)
        for line in past_the_best(run.state, run.metric, run.recipe):
            run.log(line)
        _write_card(run, list(task.state().get("label2id", ())), all_results)
        run.folder.write_results(results)
        if run.mirror is not None:
            run.mirror.send_all()
    return all_results


def _baselines(run: TrainingRun, split: Split, sums: RowSums) -> list[dict[str, Any]]:
    """A failure costs the baselines alone, such as texts without a single word; it is the same on all ranks."""
    try:
        return baselines(run, split, sums)
    except signals.Interrupted:
        raise
    except Exception as error:
        run.log(f"warning: could not compute the baselines: {type(error).__name__}: {error}")
        return []


def _analyse(run: TrainingRun, scored: Scored) -> None:
    """A failure costs the analysis alone."""
    splits, unknown = run.splits, run.setup.tokenizer.unk_token_id
    path, metric = run.folder.path, run.metric.removeprefix("eval_")
    # The runs of several seeds are one: no choice among other models was made by their test scores.
    owner = str(path.parent.parent.resolve()) if path.parent.name == "seeds" else str(run.run_id)
    try:
        is_test = scored.split.name == TEST
        earlier = note_scoring(scored.split.sha256(type(splits.task)), owner) if is_test else 0
        found = {"earlier_scorings": earlier} | analyse(scored, splits.train, splits.all(), run.stores, unknown, metric)
    except signals.Interrupted:
        raise
    except Exception as error:
        run.log(f"warning: could not analyse the {scored.split.name} rows: {type(error).__name__}: {error}")
    else:
        write_json(run.folder.analysis, found)


def _write_card(run: TrainingRun, label_names: list[str], results: dict[str, Any]) -> None:
    """A failure costs the card alone: the weights and scores are what the run was for."""
    folder = run.folder
    try:
        text = card(
            name=folder.path.name,
            recipe=run.recipe,
            label_names=label_names,
            results=results,
            data_report=read_json(folder.data_report),
            environment=read_json(folder.environment),
            incidents=list(incidents(run.state)),
            calibration=read_json(folder.calibration) if folder.calibration.exists() else None,
            baselines=read_json(folder.baselines) if folder.baselines.exists() else (),
        )
    except Exception as error:
        run.log(f"warning: could not write the model card: {type(error).__name__}: {error}")
    else:
        write_text(folder.card, text)


def step_losses(folder: RunFolder) -> list[float]:
    """The training loss of each step, in order; empty if the file of events is not there."""
    losses = {
        event["step"]: event["loss"]
        for event in read_events(folder)
        if event["event"] == StepDone.name and isinstance(event["loss"], float)  # not "nan", after an overflow
    }
    return [losses[step] for step in sorted(losses)]


def flat_loss(losses: Sequence[float], learning_rate: float) -> Iterator[str]:
    """A warning if the loss oscillates or stays where it was; too few steps tell nothing."""
    third = len(losses) // 3
    if len(losses) < STEPS_TO_JUDGE:
        return
    first, last = mean(losses[:third]), mean(losses[-third:])
    if last >= first:
        yield (
            f"warning: the training loss did not fall: {first:.4f} on average in the first third of the steps, "
            f"{last:.4f} in the last. Try training.learning_rate={learning_rate / 10:g}, a larger "
            "training.batch_size or more epochs, and check that the labels belong to the texts"
        )


def past_the_best(state: TrainState, metric: str, recipe: Recipe) -> Iterator[str]:
    """What the training after the best evaluation cost, if there was any: time, and what the weights lost."""
    best = state.best(metric)
    if best is None or best is state.evaluations[-1]:
        return
    last, name = state.evaluations[-1], metric.removeprefix("eval_")
    num_evaluations = sum(evaluation["step"] > best["step"] for evaluation in state.evaluations)
    epochs = last["epoch"] - best["epoch"]
    spent = duration(state.seconds * (last["step"] - best["step"]) / state.step)
    lost = abs(best[metric] - last[metric])
    if name in LESS_IS_BETTER:
        change = f"raised {name} by {lost:.4g}"
    else:
        points = lost if recipe.task == "question-answering" else 100 * lost
        change = f"cost {points:.1f} points of {name}"
    rest = "the last epoch" if epochs == 1 else f"the last {epochs:.3g} epochs"
    after = f"{rest} took {spent} and {change if lost else f'did not improve {name}'}"
    kept = "" if recipe.output.save_strategy != "no" else "; output.save_strategy=no has kept only the last weights"
    hint = ""
    if recipe.evaluation.early_stopping_patience is None and num_evaluations > 1:
        hint = "; evaluation.early_stopping_patience=2 would stop such a run earlier"
    yield f"{name} was best at epoch {best['epoch']:.3g}: {after}{kept}{hint}"


def duration(seconds: float) -> str:
    """Two units at most, such as 45 s, 12 min 30 s or 3 h 20 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{rest} s"


def incidents(state: TrainState) -> Iterator[str]:
    """What did not go smoothly in training, as sentences for the card."""
    if state.spikes:
        steps = ", ".join(map(str, state.spikes[:10])) + (" ..." if len(state.spikes) > 10 else "")
        yield f"the loss was far above the running average in {len(state.spikes)} steps ({steps})"
    if state.bad_rows:
        where, what = next(iter(state.bad_rows.items()))
        yield f"{len(state.bad_rows)} rows were skipped, such as {where}: {what}"
    if state.skipped:
        steps = ", ".join(map(str, state.skipped))
        yield f"training diverged at steps {steps} and resumed from an earlier checkpoint without these batches"
    if state.replanned:
        yield (
            f"to end in time at the speed that training had, the number of steps was changed {len(state.replanned)} "
            f"times, at last to {state.replanned[-1][1]:,}"
        )


def train_results(run: TrainingRun) -> dict[str, float]:
    """The metrics of training itself, named as transformers names them; times in seconds."""
    state, store, setup = run.state, run.stores[TRAIN], run.setup
    passes = state.num_tokens / store.num_tokens  # over the store, which holds only a sample of a stream
    epochs = passes * len(store) / run.num_examples
    seconds = max(state.seconds, 1e-9)
    frozen = frozen_flops(setup.model, store.sequence_lengths, run.recipe.training.freeze_layers)
    flops = (training_flops(setup.model, store.sequence_lengths) - frozen) * passes
    # A forward pass is a third of forward and backward.
    flops += frozen / 3 * (1 if is_kept(setup.choices) else passes)
    results = {
        "epoch": round(epochs, 6),
        "train_loss": state.loss_sum / max(state.num_updates, 1),
        "train_runtime": state.seconds,
        "train_samples": run.num_examples,
        "train_samples_per_second": len(store) * passes / seconds,
        "train_steps_per_second": state.step / seconds,
        "train_tokens_per_second": state.num_tokens / seconds,
        "total_flos": flops,
        "peak_memory_bytes": peak_memory_bytes(setup.accelerator.device),
    }
    if state.joules:
        results["train_energy_joules"] = state.joules
    if flops >= MEASURABLE_FLOPS:
        accelerator = setup.accelerator
        peak = peak_flops(accelerator.device, run.recipe.training.precision) * accelerator.num_processes
        results["train_mfu"] = flops / seconds / peak
    return results
