"""`training.mlm_epochs`: the encoder first learns to fill in masked words of the texts it will classify.

Gururangan et al. (2020) call it task-adaptive pretraining. It is a run of its own in RUN/mlm, with the same loop, so it
resumes like any other. The fine-tuning then begins with its encoder; pooler and head are those it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fasttune.data.audit import Audit
from fasttune.data.pipeline import Split, Splits
from fasttune.data.problems import counted
from fasttune.data.reading import VALIDATION
from fasttune.parallel.collectives import barrier, broadcast_object, broadcast_tensors, is_main, raise_on_all_ranks
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, read_json
from fasttune.tasks import Rows
from fasttune.tasks.masked_language_modeling import MaskedLanguageModeling
from fasttune.training import signals
from fasttune.training.callbacks import Observer
from fasttune.training.finalize import save_best_weights, train_results
from fasttune.training.model import load_model
from fasttune.training.prepare import build_run, write_new_run
from fasttune.training.resume import find_checkpoint
from fasttune.training.run import TrainingRun
from fasttune.training.trainer import Trainer

# The rates of Gururangan et al. (2020), table 13. Their batches of 256 would leave few rows a handful of steps.
LEARNING_RATE, WARMUP, BATCH_SIZE = 1e-4, 0.06, 32
MOST_COPIES = 10  # ways in which a text is masked, as in BERT; more passes repeat them
MAX_LOGITS = 2**27  # of a micro-batch, one per token and word of the vocabulary: half a GiB in fp32


def adapt(run: TrainingRun, observers: Sequence[Observer]) -> None:
    """Train an encoder in RUN/mlm, or take the finished one, and load it into the model of `run`, at its first step.

    signals.Stopped if a signal stopped it; a resume continues it.
    """
    folder = RunFolder(run.folder.path / "mlm")
    if not broadcast_object(folder.is_finished):
        _train(run, folder, observers)
    accuracy = broadcast_object(read_json(folder.all_results)["eval_accuracy"] if is_main() else None)
    run.log(f"{folder.path}: {accuracy:.1%} of the masked words in the validation texts filled in correctly")

    def encoder() -> dict[str, Any]:
        auto_class, seed = MaskedLanguageModeling.auto_class, run.recipe.training.seed
        model = load_model(str(folder.path), auto_class, {}, seed).model
        return {f"{model.base_model_prefix}.{name}": value for name, value in model.base_model.state_dict().items()}

    weights = broadcast_tensors(raise_on_all_ranks(lambda: encoder() if is_main() else {}))
    unexpected = run.setup.model.load_state_dict(weights, strict=False).unexpected_keys
    assert not unexpected, f"the same encoder has the same weights, but not {unexpected}"


def _train(run: TrainingRun, folder: RunFolder, observers: Sequence[Observer]) -> None:
    task = MaskedLanguageModeling(run.splits.task, run.recipe.training.seed)
    copies = min(run.recipe.training.mlm_epochs, MOST_COPIES)
    splits = _splits(run.splits, task, copies)
    recipe = _recipe(run.recipe, folder, len(splits.train.rows), copies, len(run.setup.tokenizer))
    inner = build_run(recipe, splits, folder, lambda line: None, Audit())  # the log repeats what `run` has reported
    inner.log = run.log
    epochs, texts = counted(run.recipe.training.mlm_epochs, "epoch"), counted(len(splits.train.rows) // copies, "text")
    run.log(f"masked language modeling first: {epochs} over {texts}, in {folder.path}")
    try:
        inner.run_id = broadcast_object(inner.run_id)
        if broadcast_object(folder.is_run):
            find_checkpoint(inner)
        else:
            raise_on_all_ranks(lambda: write_new_run(inner, Audit()) if is_main() else None)
        trainer = Trainer(inner)
        trainer.train(observers)
        step = save_best_weights(trainer)
        if trainer.signal is not None:
            barrier()  # launchers kill the other ranks once one has ended, and rank 0 may still be writing
            raise signals.Stopped(trainer.signal)
        metrics = trainer.evaluator.score(VALIDATION, step).metrics
        if is_main():
            folder.write_results({"train": train_results(inner), "eval": metrics})
        barrier()
    finally:
        inner.close()


def _splits(splits: Splits, task: MaskedLanguageModeling, copies: int) -> Splits:
    """The texts of training and unlabelled rows, `copies` times, and of the validation rows; never of the test rows."""
    assert splits.validation is not None
    train = task.texts_of(splits.train.rows)
    if splits.unlabelled is not None:  # a teacher has added them already
        more = task.texts_of(splits.unlabelled.rows)
        values = {role: [*cells, *more.values[role]] for role, cells in train.values.items()}
        train = Rows([*train.ids, *more.ids], values)
    rows = train.take(np.tile(np.arange(len(train)), copies))
    validation = task.texts_of(splits.validation.rows)
    return replace(
        splits,
        task=task,
        train=_with(splits.train, rows),
        validation=_with(splits.validation, validation),
        test=None,
        unlabelled=None,
        settings={},
    )


def _with(split: Split, rows: Rows) -> Split:
    return replace(split, rows=rows, positions=None)


def _recipe(recipe: Recipe, folder: RunFolder, num_rows: int, copies: int, num_words: int) -> Recipe:
    training = recipe.training
    plain = Recipe.model_validate({"data": {"train": "-"}})
    inner = recipe.model_copy(update={"training": plain.training, "evaluation": plain.evaluation})
    kept = ("seed", "precision", "device", "gradient_checkpointing", "compile", "logging_steps", "attention_dropout")
    changes = {
        "model_head": "default",
        "training": {
            **{name: getattr(training, name) for name in kept},
            "preset": "tutorial",
            "num_train_epochs": training.mlm_epochs / copies,
            "batch_size": min(BATCH_SIZE, num_rows),
            "learning_rate": LEARNING_RATE,
            "warmup_steps": WARMUP,
            "tokens_per_microbatch": min(int(training.tokens_per_microbatch), max(MAX_LOGITS // num_words, 1)),
        },
        "evaluation": {"metric_for_best_model": "loss"},
        "data": {"unlabelled": None},
        "output": {"dir": str(folder.path), "mirror": None},
    }
    return load_recipe(inner, changes)
