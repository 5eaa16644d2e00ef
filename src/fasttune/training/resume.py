"""Resuming a run: what may change, which checkpoint is loaded, and how every rank gets the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.errors import DataError, Problem, RecipeError
from fasttune.parallel.collectives import broadcast_object, broadcast_tensors, is_main, raise_on_all_ranks
from fasttune.recipe import Columns, Recipe, differences, dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.messages import nested
from fasttune.runs.checkpoint import Checkpoint, newest_good, prune
from fasttune.runs.folder import RunFolder, read_json, write_text
from fasttune.training.environment import versions
from fasttune.training.loop import TrainState
from fasttune.training.precision import Choice
from fasttune.training.presets import FILLED

if TYPE_CHECKING:
    import torch

    from fasttune.training.run import Log, TrainingRun

# Settings that a resume may change without changing what the model learns.
RESUME_SAFE = (
    "output.save_total_limit",
    "training.logging_steps",
    "tracking.report_to",
    "output.dir",
    "output.mirror",
    "output.report",
    "training.gradient_checkpointing",
    "evaluation.baselines",
)
# Settings that a resume may change with --allow-changes: the run then ends elsewhere than it would have.
RESUME_WITH_FLAG = (
    *(
        f"training.{name}"
        for name in (
            "num_train_epochs",
            "max_steps",
            "learning_rate",
            "head_learning_rate",
            "layer_decay",
            "warmup_steps",
            "lr_scheduler_type",
            "max_grad_norm",
            "label_smoothing_factor",
            "attention_dropout",
            "precision",
            "device",
            "tokens_per_microbatch",
            "compile",
            "divergence_policy",
        )
    ),
    "evaluation.eval_strategy",
    "evaluation.eval_steps",
    "evaluation.early_stopping_patience",
    "output.save_strategy",
    "output.save_steps",
)
# Choices that change numbers only by rounding.
ROUNDING = ("device", "kernel", "attention")
# Settings that `prepare.resolved` fills in: if the recipe of a resume leaves one open, the saved value stays.
FILLED_IN = (
    "problem",
    "data.label_separator",
    "data.header",
    "data.drop_empty",
    "training.class_weights",
    *(f"data.columns.{role}" for role in Columns.model_fields),
    "preprocessing.max_length",
    "preprocessing.word_boundaries",
    "training.precision",
    "training.attention_dropout",
    "training.tokens_per_microbatch",
    "training.compile",
    "evaluation.metric_for_best_model",
    "output.dir",
)


def reconciled_on_all_ranks(asked: Recipe, folder: RunFolder, allow: Log | None) -> Recipe:
    """`reconciled` on rank 0, which can read the folder; broadcast to all."""
    recipe = raise_on_all_ranks(
        lambda: reconciled(load_recipe(folder.recipe), asked, folder, allow) if is_main() else asked
    )
    return load_recipe(broadcast_object(recipe.model_dump(mode="json")))


def reconciled(saved: Recipe, asked: Recipe, folder: RunFolder, allow: Log | None = None) -> Recipe:
    """The saved recipe with the changes that a resume may make; RecipeError for any other change.

    `allow` is called with a description of each RESUME_WITH_FLAG change; without it they are refused too.
    """
    changes, problems = {}, []
    choices = read_json(folder.environment) if folder.environment.exists() else {}
    # training.max_time has become a number of steps when the run started.
    is_same_time = asked.training.max_time == choices.get("max_time", {}).get("value")
    fitted = ("training.max_time", "training.max_steps") if asked.training.max_time and is_same_time else ()
    # The saved recipe holds what the preset filled in.
    from_preset = [f"training.{name}" for name in FILLED if name not in asked.training.model_fields_set]
    for path, (old, new) in differences(saved, asked).items():
        if path in (*fitted, *from_preset):
            continue
        if path in RESUME_SAFE:
            changes[path] = new
        elif (path in FILLED_IN and new in ("auto", "balanced", None)) or choices.get(path) == asdict(
            pin(str(new), str(old))
        ):
            continue
        elif path in RESUME_WITH_FLAG and allow is not None:
            changes[path] = new
            allow(f"{path}: {new} from now on, {old} before")
        else:
            hint = "start a new run with another --output, or resume with the recipe as it was"
            if path in RESUME_WITH_FLAG and not folder.is_finished:
                hint += "; --allow-changes resumes with the new value"
            problems.append(
                Problem(
                    where=f"resume of {folder.path}: {path}",
                    found=str(new),
                    expected=f"{old}, as in {folder.recipe}",
                    hint=hint,
                    code="E530",
                )
            )
    if problems:
        raise RecipeError(*problems)
    changes["output.dir"] = str(folder.path)
    return load_recipe(saved, nested({tuple(path.split(".")): value for path, value in changes.items()}))


def pin(asked: str, at_commit: str) -> Choice:
    """The choice that pins `asked`, a name on the hub, to the commit that was read."""
    return Choice(at_commit, f"the commit of {asked} when the run started")


def find_checkpoint(run: TrainingRun) -> None:
    """Take run id, state and checkpoint from the folder; DataError if the training examples have changed."""
    folder = run.folder
    environment = broadcast_object(read_json(folder.environment) if is_main() else None)
    before = broadcast_object(read_json(folder.data_report)["training_examples"] if is_main() else None)
    run.run_id = environment["run_id"]
    if run.mirror is not None:
        raise_on_all_ranks(lambda: run.mirror.claim(run.run_id) if run.mirror and is_main() else None)
    for line in _differences(environment, run):
        run.log(f"{line}; the resumed run will differ from an uninterrupted one by rounding")
    if before != run.training_examples:
        raise DataError(
            Problem(
                where=f"resume of {folder.path}: {run.splits.train.where}",
                found="the training examples are not those that the run started with (rows, labels or tokenizer)",
                hint="restore the file, or start a new run with another --output",
                code="E531",
            )
        )

    def newest() -> Checkpoint | None:
        checkpoint, skipped = newest_good(folder.checkpoints, run.run_id)
        for line in skipped:
            run.log(line)
        return checkpoint

    run.checkpoint = find_on_all_ranks(newest)
    if is_main():
        # Last, when nothing can be refused any more: a refused resume changes no file.
        write_text(folder.recipe, dump(run.recipe))
        prune(folder.checkpoints, None, set(), run.run_id)  # the remains of a save that was killed
    if run.checkpoint is None:
        run.log("no checkpoint yet: starting from the beginning")
        return
    run.state = saved_state(run.checkpoint)
    if run.splits.stream is not None:
        run.splits.stream.files.bad.found.update(run.state.bad_rows)
    run.log(f"resuming from {run.checkpoint.path}")


def _differences(environment: Mapping[str, Any], run: TrainingRun) -> Iterator[str]:
    """What has changed since the run started and may round numbers differently."""
    for name in ROUNDING:
        before, now = environment.get(name, {}).get("value"), run.setup.choices[name].value
        if before not in (None, now):
            yield f"{name}: {now} now, {before} before"
    num_processes = run.setup.accelerator.num_processes
    if environment["num_processes"] != num_processes:
        yield f"processes: {num_processes} now, {environment['num_processes']} before"
    installed = versions()
    for package, before in environment["versions"].items():
        if installed.get(package) != before:
            yield f"{package}: {installed.get(package, 'none')} now, {before} before"


def find_on_all_ranks(find: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """The checkpoint that `find` returns on rank 0, or the CheckpointError that it raises there, on all ranks."""
    checkpoint = raise_on_all_ranks(lambda: find() if is_main() else None)
    fields = broadcast_object({**asdict(checkpoint), "path": str(checkpoint.path)} if checkpoint else None)
    return Checkpoint(**{**fields, "path": Path(fields["path"])}) if fields else None


def tensors_of(checkpoint: Checkpoint, stem: str) -> dict[str, torch.Tensor]:
    """The tensors of STEM.safetensors on every rank, on the CPU; rank 0 reads the file."""
    return broadcast_tensors(checkpoint.tensors(stem) if is_main() else {})


def trainer_state(checkpoint: Checkpoint) -> dict[str, Any]:
    return broadcast_object(checkpoint.state() if is_main() else None)


def saved_state(checkpoint: Checkpoint) -> TrainState:
    saved = trainer_state(checkpoint)
    saved.pop("scaler")
    return TrainState(**saved)
