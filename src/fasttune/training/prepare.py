"""How a run begins: read the data, load the model, resolve the recipe; then start a run folder or resume one."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from fasttune.data.audit import Audit, audit_rows, audit_tokens
from fasttune.data.formats import hub
from fasttune.data.pipeline import Split, Splits, encode, read_splits, report
from fasttune.data.problems import counted
from fasttune.data.reading import TRAIN
from fasttune.data.starter.model import EMBEDDED_MODEL
from fasttune.data.tokens.mapped import release_pages
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import DataError, Problem, RecipeError
from fasttune.parallel.collectives import (
    all_reduce_max,
    assert_equal_on_all_ranks,
    broadcast_object,
    is_main,
    raise_on_all_ranks,
)
from fasttune.parallel.rendezvous import LAUNCH_KEY, has_unsigned_messages
from fasttune.recipe import Recipe, digest, dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.messages import nested
from fasttune.runs.checkpoint.space import check_space, needed_bytes
from fasttune.runs.folder import RunFolder, write_json, write_text
from fasttune.security.cache import mark_as_made_here
from fasttune.security.secrets import noted_command
from fasttune.tasks import TASKS
from fasttune.tasks.preview import decided
from fasttune.tasks.text_classification import TEACHER
from fasttune.training import signals
from fasttune.training.compiled import YES, choose_compile
from fasttune.training.embedding import rows_in_use
from fasttune.training.environment import versions
from fasttune.training.frozen import FROZEN, choose_frozen
from fasttune.training.lineage import LINEAGE, lineage_of
from fasttune.training.loop import num_training_steps, times_due
from fasttune.training.memory_probe import probe
from fasttune.training.model import file_of, load_config, pinned
from fasttune.training.optimizer import num_warmup_steps
from fasttune.training.precision import REQUESTED, Choice, choose_device
from fasttune.training.presets import PRESET, with_preset
from fasttune.training.resume import find_checkpoint, pin, reconciled_on_all_ranks
from fasttune.training.run import Log, TrainingRun
from fasttune.training.setup import Setup, set_up
from fasttune.training.teacher import ask_teacher
from fasttune.training.time_budget import fit_into_time
from fasttune.training.wrapping import ALONE, FSDP2

START_OF_TWO_TEXTS = "microsoft/xtremedistil-l6-h384-uncased"
# For an estimate of tokens per step: English has about 4.5 bytes per token, Chinese by characters 3.
TEXTS_MEASURED, BYTES_PER_TOKEN = 1000, 4.5
ROWS_TO_TRUST = 300  # held-out rows; fewer leave more than 5 points of doubt
MLM, COMPILE = "masked_words", "compile"  # names of choices
MAX_VALUE_WIDTH = 14  # characters, of a column in the start-up log


def prepare(
    recipe: Recipe, folder: RunFolder, log: Log, allow_changes: bool = False, begin: float | None = None
) -> TrainingRun:
    """Read the data, load the model and resolve the recipe; then write a new run folder, or load the checkpoint of one.

    `allow_changes`: accept changed settings that make a resumed run end elsewhere, such as another learning rate.
    `begin`: when the time of training.max_time began, by `time.perf_counter`; by default now.
    """
    begin = time.perf_counter() if begin is None else begin
    is_resume = broadcast_object(folder.is_run)
    if is_resume:
        recipe = reconciled_on_all_ranks(recipe, folder, log if allow_changes else None)
    splits = raise_on_all_ranks(lambda: read_splits(recipe, TASKS), local_rank_first=True)
    signals.check()
    # Rank 0 audits and stores the result; the others need not spend the time and memory.
    audit = raise_on_all_ranks(lambda: audit_rows(splits.all(), splits.task) if is_main() else Audit())
    run = build_run(recipe, splits, folder, log, audit)
    signals.check()
    if not is_resume:
        fit_into_time(run, begin)
    run.run_id = broadcast_object(run.run_id)
    assert_equal_on_all_ranks(
        {
            "training examples": run.training_examples,
            "recipe": digest(run.recipe),
            "kernel": run.setup.choices["kernel"].value,
            "parallel": run.parallel,
            **versions(()),
        },
        "use the same files, recipe and accelerate configuration on every machine",
    )
    for warning in audit.warnings:
        log(f"warning: {warning}")
    if has_unsigned_messages():
        log(f"warning: other machines on this network can send messages to this run; set {LAUNCH_KEY} to a secret")
    if is_resume:
        find_checkpoint(run)
    else:
        raise_on_all_ranks(lambda: write_new_run(run, audit) if is_main() else None)
    return run


def build_run(
    recipe: Recipe, splits: Splits, folder: RunFolder, log: Log, audit: Audit, num_rows: int | None = None
) -> TrainingRun:
    """Load the model, tokenize the splits and resolve the recipe; writes nothing. Adds what tokens show to `audit`.

    `num_rows`: of the training data, if `splits` holds only a sample.
    """
    taught = ask_teacher(recipe, splits)
    if taught is not None:
        splits = taught.splits
    if num_rows is None:
        num_rows = len(splits.train.rows) if splits.stream is None else splits.stream.files.num_rows
    recipe, preset = raise_on_all_ranks(
        lambda: with_preset(recipe, num_rows, load_config(recipe.model)), local_rank_first=True
    )
    _check_batch(splits.train.where, num_rows, recipe.training.batch_size)
    setup = raise_on_all_ranks(
        lambda: set_up(recipe, recipe.model, splits.task, tokens_per_step(recipe, splits)), local_rank_first=True
    )
    if recipe.training.mlm_epochs:
        setup.choices[MLM] = _masked_words_first(recipe, setup)
    stores = raise_on_all_ranks(
        lambda: {split.name: encode(split, splits.task, setup.tokenizer, setup.max_length) for split in splits.all()},
        local_rank_first=True,
    )
    if taught is not None:
        stores[TRAIN], setup.choices[TEACHER] = taught.added_to(stores[TRAIN]), taught.choice
    used_rows = None if recipe.data.streaming else choose_trained_rows(recipe, setup, stores[TRAIN])
    if setup.accelerator.device.type == "cuda" and recipe.training.tokens_per_microbatch == "auto":
        probed = probe(setup, splits.task, stores[TRAIN])
        if probed is not None:
            setup.choices["tokens_per_microbatch"] = probed
            setup.tokens_per_microbatch = int(probed.value)
    # The largest budget that fits into the memory of every rank.
    setup.tokens_per_microbatch = -all_reduce_max(-setup.tokens_per_microbatch)[0]
    num_examples = splits.num_training_examples(stores[TRAIN])
    num_steps = num_training_steps(recipe, math.ceil(num_examples / recipe.training.batch_size))
    if preset is not None:
        setup.choices[PRESET] = preset
    advice = raise_on_all_ranks(lambda: better_start(recipe, splits), local_rank_first=True)
    if advice is not None and recipe.model != EMBEDDED_MODEL:
        log(f"warning: model {recipe.model} {advice}")
    elif advice is not None:
        setup.choices["model"] = Choice(recipe.model, f"{setup.choices['model'].reason}; {advice}")
    frozen = raise_on_all_ranks(lambda: choose_frozen(recipe, setup, stores[TRAIN], num_steps))
    if frozen is not None:
        setup.choices[FROZEN] = frozen
    share = 1.0 if splits.stream is not None else len(splits.train.rows) / num_rows  # `check` has a sample
    compiles = choose_compile(recipe, setup, splits.task, stores[TRAIN], num_steps / share)
    if compiles.value == YES or setup.accelerator.device.type == "cuda":
        setup.choices[COMPILE] = compiles
    setup.choices |= pins(recipe)
    recipe = resolved(recipe, splits, setup, folder, compiles.value == YES)
    for line in decisions(recipe, splits, stores, setup):
        log(line)
    for split in splits.all():
        audit_tokens(audit, split, stores[split.name], splits.task, setup.tokenizer)
    release_pages()  # of the texts, which are tokens from here on
    return TrainingRun(recipe, folder, uuid.uuid4().hex, splits, stores, setup, log, used_rows)


def _masked_words_first(recipe: Recipe, setup: Setup) -> Choice:
    epochs, where = recipe.training.mlm_epochs, "training.mlm_epochs"
    if setup.tokenizer.mask_token_id is None:
        found = f"the tokenizer of {recipe.model} has no mask token"
        raise RecipeError(Problem(where=where, found=found, hint=f"{where}=0", code="E417"))
    return Choice(counted(epochs, "epoch"), "masked language modeling before the fine-tuning, in RUN/mlm")


def _check_batch(where: str, number: int, batch_size: int) -> None:
    if number < batch_size:
        raise DataError(
            Problem(
                code="E252",
                where=where,
                found=f"{number:,} training rows are fewer than training.batch_size={batch_size:,}",
                hint=f"training.batch_size={number}",
            )
        )


def decisions(recipe: Recipe, splits: Splits, stores: dict[str, TokenStore], setup: Setup) -> Iterator[str]:
    """The start-up log: splits, notes on the data, settings without effect, automatic choices with reasons."""
    yield "data"
    for split in splits.all():
        yield f"  {split.name:<12}{described(split, stores[split.name])}"
    for split in splits.all():
        if split.name != TRAIN and len(split.rows) < ROWS_TO_TRUST:
            yield f"  {split.name:<12}{uncertainty(len(split.rows))}"
    for name, line in decided(splits.task, splits.columns).items():
        yield f"  {name:<12}{line}"
    for note in splits.notes:
        yield f"  {note}"
    for line in without_effect(recipe, splits.num_training_examples(stores[TRAIN])):
        yield f"  no effect: {line}"
    yield "settings"
    shown = {
        name: choice for name, choice in setup.choices.items() if choice.reason != REQUESTED and choice.value != ALONE
    }
    widths = max(map(len, shown)), min(max(len(choice.value) for choice in shown.values()), MAX_VALUE_WIDTH)
    for name, choice in shown.items():
        yield f"  {name:<{widths[0]}}  {choice.value:<{widths[1]}}  {choice.reason}"
    yield from long_warmup(recipe, splits.num_training_examples(stores[TRAIN]))


def uncertainty(num_rows: int) -> str:
    """What a share of `num_rows` rows says at most: the normal interval of a proportion of one half."""
    points = 100 * 1.96 * math.sqrt(0.25 / num_rows)
    return (
        f"a score on {counted(num_rows, 'row')} is uncertain, by up to {points:.0f} points either way (95 % interval)"
    )


def better_start(recipe: Recipe, splits: Splits) -> str | None:
    """Advice against a sentence embedder for pairs and questions; None for other models and data.

    Its weights were tuned to represent texts one by one. Fine-tuned on MRPC, bodies of the same size that were not
    reach 86 to 90 % (docs/guides/start-models.md), the embedded one 80 %.
    """
    reads_two = splits.task.name == "question-answering" or splits.columns.get("text_pair") is not None
    if not reads_two or (recipe.model != EMBEDDED_MODEL and file_of(recipe.model, "1_Pooling/config.json") is None):
        return None
    return f"is a sentence embedder; for two texts at once {START_OF_TWO_TEXTS} learns more, at the same speed"


def long_warmup(recipe: Recipe, num_examples: int) -> Iterator[str]:
    """A warning if the run ends before its warm-up does."""
    training = recipe.training
    num_steps = num_training_steps(recipe, math.ceil(num_examples / training.batch_size))
    warmup = num_warmup_steps(training.warmup_steps, num_steps)
    if warmup >= num_steps:
        yield (
            f"warning: the warm-up takes {counted(warmup, 'step')} and the run {counted(num_steps, 'step')}, so the "
            f"learning rate never reaches {training.learning_rate:g}; try training.warmup_steps=0.1 or more steps"
        )


def num_saves(run: TrainingRun) -> int:
    """The maximum number of checkpoints: every evaluation may be the best so far."""
    output, evaluation, per_epoch = run.recipe.output, run.recipe.evaluation, run.steps_per_epoch
    num_steps = num_training_steps(run.recipe, per_epoch)
    saves = times_due(output.save_strategy, output.save_steps, num_steps, per_epoch)
    if not saves:
        return 0
    return max(saves, times_due(evaluation.eval_strategy, evaluation.eval_steps, num_steps, per_epoch))


def tokens_per_step(recipe: Recipe, splits: Splits) -> float:
    """An estimate before there is a tokenizer, from the bytes of some texts."""
    texts = list(islice(splits.task.input_texts(splits.train.rows), TEXTS_MEASURED))
    return recipe.training.batch_size * sum(len(text.encode()) for text in texts) / len(texts) / BYTES_PER_TOKEN


def choose_trained_rows(recipe: Recipe, setup: Setup, store: TokenStore) -> np.ndarray | None:
    """The rows of the word embeddings that training can change, if it need not train all; adds the choice to `setup`.

    With weight decay every step changes every row, so all are trained; with frozen layers none is.
    """
    if recipe.training.weight_decay > 0 or recipe.training.freeze_layers:
        return None
    used = rows_in_use(setup.model, store.inputs["input_ids"], setup.padding.token_id)
    if used is not None and setup.choices["parallel"].value != FSDP2:
        setup.choices["word_embeddings"] = Choice(
            f"{len(used):,} of {setup.model.config.vocab_size:,} rows trained",
            "the rest never occur in the training texts",
        )
    return used


def without_effect(recipe: Recipe, num_examples: int) -> list[str]:
    """Settings in the recipe that change nothing in this run, each with the reason."""
    data, preprocessing, training = recipe.data, recipe.preprocessing, recipe.training
    evaluation, output = recipe.evaluation, recipe.output
    default = Recipe.model_validate({"data": {"train": "-"}})
    steps_per_epoch = math.ceil(num_examples / training.batch_size)
    num_steps = num_training_steps(recipe, steps_per_epoch)
    period = steps_per_epoch if evaluation.eval_strategy == "epoch" else evaluation.eval_steps or num_steps
    num_evaluations = math.ceil(num_steps / period)
    holds_nothing_out = data.validation is not None and (data.test is not None or not data.test_fraction)
    lines = []
    patience = evaluation.early_stopping_patience
    if patience is not None and patience >= num_evaluations:
        lines.append(
            f"evaluation.early_stopping_patience={patience}, because there are only {num_evaluations} evaluations"
        )
    if training.max_steps > 0 and training.num_train_epochs != default.training.num_train_epochs:
        lines.append("training.num_train_epochs, because training.max_steps is set")
    if preprocessing.long_text != "windows" and preprocessing.window_pooling != default.preprocessing.window_pooling:
        lines.append("preprocessing.window_pooling, because preprocessing.long_text is not windows")
    if data.validation is not None and data.validation_fraction != default.data.validation_fraction:
        lines.append("data.validation_fraction, because data.validation is set")
    if data.test is not None and data.test_fraction:
        lines.append("data.test_fraction, because data.test is set")
    if holds_nothing_out and data.columns.group is not None:
        lines.append("data.columns.group, because data.validation is set and no rows are held out")
    if holds_nothing_out and data.columns.time is not None:
        lines.append("data.columns.time, because data.validation is set and no rows are held out")
    if data.max_bad_rows > 0 and not data.streaming:
        lines.append("data.max_bad_rows, because data.streaming is false and all rows are checked first")
    if training.deterministic and choose_device(training.device).value == "cpu":
        lines.append("training.deterministic, because runs on a CPU repeat to the byte anyway")
    if recipe.search != default.search:
        lines.append("search, because only fasttune search makes trials")
    if output.save_strategy == "no" and output.save_total_limit != default.output.save_total_limit:
        lines.append("output.save_total_limit, because output.save_strategy is no")
    return lines


def described(split: Split, store: TokenStore) -> str:
    """One line: where the rows come from, how many there are, and how long."""
    sample = "a sample of " if split.is_sample else ""
    parts = [
        f"{sample}{len(split.rows):,} rows of {split.where}",
        f"{store.lengths.mean():.0f} tokens on average",
        f"{store.lengths.max()} at most",
    ]
    num_cut = int((store.num_tokens_cut > 0).sum())
    if num_cut:
        parts.append(f"{num_cut:,} truncated ({int(store.num_tokens_cut.sum()):,} tokens dropped)")
    in_windows = int((store.num_windows > 1).sum())
    if in_windows:
        parts.append(f"{in_windows:,} divided into windows ({int(store.num_windows.sum()):,} windows in all)")
    return ", ".join(parts)


def pins(recipe: Recipe) -> dict[str, Choice]:
    """For a model and splits from the hub: field of the recipe -> the same name at the commit that was read."""
    fields = {f"data.{name}": getattr(recipe.data, name) for name in ("train", "validation", "test")}
    choices = {field: pin(name, hub.pinned(name)) for field, name in fields.items() if isinstance(name, str)}
    choices["model"] = pin(recipe.model, pinned(recipe.model))
    fields["model"] = recipe.model
    return {field: choice for field, choice in choices.items() if choice.value != fields[field]}


def resolved(recipe: Recipe, splits: Splits, setup: Setup, folder: RunFolder, compiles: bool) -> Recipe:
    """The recipe with every automatic choice filled in."""
    choices = setup.choices
    return load_recipe(
        splits.filled(recipe),
        {
            **nested({tuple(path.split(".")): choice.value for path, choice in pins(recipe).items()}),
            "preprocessing": {"max_length": setup.max_length},
            "training": {
                "precision": choices["precision"].value,
                "attention_dropout": float(choices["attention_dropout"].value),
                "tokens_per_microbatch": setup.tokens_per_microbatch,
                "compile": compiles,
            },
            "evaluation": {
                "metric_for_best_model": recipe.evaluation.metric_for_best_model or splits.task.primary_metric,
            },
            "output": {"dir": str(folder.path)},
        },
    )


def write_new_run(run: TrainingRun, audit: Audit) -> None:
    """Create the run folder. The recipe is written last: a folder with a recipe is a run."""
    folder, setup = run.folder, run.setup
    check_space(folder.path, needed_bytes(setup.model, num_saves(run), run.recipe.output.save_total_limit))
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(
        folder.environment,
        {
            "run_id": run.run_id,
            "command": noted_command(),
            "versions": versions(),
            "num_processes": setup.accelerator.num_processes,
            **({LINEAGE: ancestors} if (ancestors := lineage_of(run.recipe)) else {}),
            **{name: asdict(choice) for name, choice in setup.choices.items()},
        },
    )
    write_json(folder.data_report, data_report(run, audit))
    if run.mirror is not None:
        run.mirror.claim(run.run_id)
    mark_as_made_here(run.run_id)
    write_text(folder.recipe, dump(run.recipe))


def data_report(run: TrainingRun, audit: Audit) -> dict[str, Any]:
    """The content of data_report.json."""
    task = run.splits.task
    return {
        "columns": run.splits.columns,
        "notes": run.splits.notes,
        "training_examples": run.training_examples,
        "splits": {split.name: report(split, run.stores[split.name], task) for split in run.splits.all()},
        "warnings": audit.entries,
        "observations": audit.observations,
    }
