"""The end of a run: its best weights as a plain Hugging Face model, their scores, predictions, results and card."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from fasttune.data.reading import TRAIN, VALIDATION
from fasttune.errors import CheckpointError
from fasttune.parallel.collectives import is_main
from fasttune.runs.checkpoint import open_checkpoint
from fasttune.runs.checkpoint.write import path_of
from fasttune.runs.folder import RESULT_PREFIX, read_json, write_json, write_json_lines, write_text
from fasttune.training.card import card
from fasttune.training.environment import peak_memory_bytes
from fasttune.training.flops import MEASURABLE_FLOPS, peak_flops, training_flops
from fasttune.training.model import checksums, save_model
from fasttune.training.resume import find_on_all_ranks, tensors_of
from fasttune.training.trainer import Session


def publish(session: Session) -> int:
    """Put the best weights (or the last, where none were kept) at the root; returns the step they are from."""
    step, setup = session.state.step, session.setup
    if session.keeps_best:
        step = _take_best(session)
    if session.signal is None:
        why = f", the best by {session.metric.removeprefix('eval_')}" if session.keeps_best else ""
        session.say(f"scoring the weights of step {step}{why}")
        session.score(VALIDATION, step)  # tunes the task by these weights
    if is_main():
        for name, value in session.task.state().items():
            setattr(setup.model.config, name, value)
        session.folder.checksums.unlink(missing_ok=True)  # of an earlier stop
        save_model(session.folder.path, setup.model, setup.tokenizer)
        write_json(session.folder.checksums, checksums(session.folder.path))
    return step


def _take_best(session: Session) -> int:
    """Load the weights of the best evaluation whose checkpoint is whole, or keep the last ones; returns their step."""
    last = session.state.step
    for evaluation in session.state.best_first(session.metric):
        step = int(evaluation["step"])
        if step == last:
            break
        path = path_of(session.folder.checkpoints, step)
        try:
            chosen = find_on_all_ranks(partial(open_checkpoint, path, session.run_id))
        except CheckpointError as error:
            if evaluation is session.state.best(session.metric):
                session.say(f"the best weights, of step {step}, are not used: {error.problems[0].found}")
            continue
        assert chosen is not None, "opened, or an error"
        session.setup.model.load_state_dict(tensors_of(chosen, "model"))
        return step
    return last


def finish(session: Session, step: int) -> dict[str, Any]:
    """Score the published weights, those of `step`, on the held-out splits; write results, predictions, card."""
    results = {"train": train_results(session)}
    for split in session.splits.all():
        if split.name == TRAIN:
            continue
        scored, store, task = session.score(split.name, step), session.stores[split.name], session.task
        prefix = RESULT_PREFIX[split.name]
        results[prefix] = {key.replace("eval_", f"{prefix}_", 1): value for key, value in scored.metrics.items()}
        if is_main():
            predictions = task.decode(scored.results, store, split.rows)
            write_json_lines(session.folder.predictions(split.name), predictions)
            for name, content in task.files(scored.results, store, split.rows).items():
                write_json(session.folder.predictions_as(prefix, name), content)
    everything = {key: value for metrics in results.values() for key, value in metrics.items()}
    if is_main():
        _write_card(session, everything)
        session.folder.write_results(results)
        if session.mirror is not None:
            session.mirror.send_all()
    return everything


def _write_card(session: Session, results: dict[str, Any]) -> None:
    """A card that cannot be made costs the card alone: weights and scores are what the run was for."""
    folder = session.folder
    try:
        text = card(
            name=folder.path.name,
            recipe=session.recipe,
            label_names=list(session.task.state().get("label2id", ())),
            results=results,
            data_report=read_json(folder.data_report),
            environment=read_json(folder.environment),
            incidents=list(incidents(session)),
        )
    except Exception as error:
        session.say(f"warning: no model card, its code failed: {type(error).__name__}: {error}")
    else:
        write_text(folder.card, text)


def incidents(session: Session) -> Iterator[str]:
    """What did not go smoothly in training, in words."""
    state = session.state
    if state.spikes:
        steps = ", ".join(map(str, state.spikes[:10])) + (" ..." if len(state.spikes) > 10 else "")
        yield f"the loss was far above the average of the steps before in {len(state.spikes)} steps ({steps})"
    if state.bad_rows:
        where, what = next(iter(state.bad_rows.items()))
        yield f"{len(state.bad_rows)} rows were left out, such as {where}: {what}"
    if state.skipped:
        steps = ", ".join(map(str, state.skipped))
        yield f"training diverged at steps {steps} and went on from a checkpoint before, without these batches"


def train_results(session: Session) -> dict[str, float]:
    state, store, setup = session.state, session.stores[TRAIN], session.setup
    passes = state.num_tokens / store.num_tokens  # over the store, which of a stream is a sample
    epochs = passes * len(store) / session.num_examples
    seconds = max(state.seconds, 1e-9)
    flops = training_flops(setup.model, store.sequence_lengths) * passes
    results = {
        "epoch": round(epochs, 6),
        "train_loss": state.loss_sum / max(state.num_updates, 1),
        "train_runtime": state.seconds,
        "train_samples": session.num_examples,
        "train_samples_per_second": len(store) * passes / seconds,
        "train_steps_per_second": state.step / seconds,
        "train_tokens_per_second": state.num_tokens / seconds,
        "total_flos": flops,
        "peak_memory_bytes": peak_memory_bytes(setup.accelerator.device),
    }
    if flops >= MEASURABLE_FLOPS:
        accelerator = setup.accelerator
        peak = peak_flops(accelerator.device, session.recipe.training.precision) * accelerator.num_processes
        results["train_mfu"] = flops / seconds / peak
    return results
