"""How a run begins: read the data, load the model, decide what is left to the machine; or go on where it stopped."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from fasttune.cache import MADE_HERE, cache_folder
from fasttune.checkpoint import Checkpoint, in_all_processes, newest_good, prune
from fasttune.checkpoint.space import check_space, needed_bytes
from fasttune.data import hub
from fasttune.data.mapped import let_go
from fasttune.data.token_store import TokenStore
from fasttune.distributed import LAUNCH_KEY, agreed, from_main, greatest, has_open_messages, is_main, same_everywhere
from fasttune.engine.embedding import rows_in_use
from fasttune.engine.loop import TrainState, num_training_steps, times_due
from fasttune.engine.parallel import FSDP2, ZERO
from fasttune.engine.precision import Choice
from fasttune.engine.pretrained import pinned
from fasttune.engine.probe import probe
from fasttune.engine.setup import Setup, set_up
from fasttune.environment import versions
from fasttune.errors import DataError, Problem, RecipeError
from fasttune.recipe import Columns, Recipe, differences, digest, dump
from fasttune.recipe import load as load_recipe
from fasttune.run_folder import RunFolder, read_json, write_json, write_text
from fasttune.security.secrets import noted_command
from fasttune.session import Say, Session, saved_state
from fasttune.tasks.audit import Audit, audit_rows, audit_tokens
from fasttune.tasks.prepare import Split, Splits, encode, read_splits, report
from fasttune.tasks.reading import TRAIN
from fasttune.tasks.streaming import windows_of

# What may change between a start and its resume without changing what is learned.
MAY_CHANGE = (
    "output.save_total_limit",
    "training.logging_steps",
    "tracking.report_to",
    "output.dir",
    "output.mirror",
    "training.gradient_checkpointing",
)
# What a run can go on with, though not to where it would have come.
MAY_BE_ALLOWED = (
    *(
        f"training.{name}"
        for name in (
            "num_train_epochs",
            "max_steps",
            "learning_rate",
            "warmup_steps",
            "lr_scheduler_type",
            "max_grad_norm",
            "label_smoothing_factor",
            "attention_dropout",
            "precision",
            "device",
            "tokens_per_microbatch",
            "divergence_policy",
        )
    ),
    "evaluation.eval_strategy",
    "evaluation.eval_steps",
    "evaluation.early_stopping_patience",
    "output.save_strategy",
    "output.save_steps",
)
# Choices that change no number but its rounding.
ROUNDING = ("device", "kernel", "attention")
TEXTS_MEASURED, BYTES_PER_TOKEN = 1000, 4.5  # English has about 4.5, Chinese by characters 3
# What `resolved` fills in: left open by the recipe of a resume, it stays as it was decided at the start.
FILLED_IN = (
    "problem",
    "data.label_separator",
    "training.class_weights",
    *(f"data.columns.{role}" for role in Columns.model_fields),
    "preprocessing.max_length",
    "preprocessing.word_boundaries",
    "training.precision",
    "training.attention_dropout",
    "training.tokens_per_microbatch",
    "evaluation.metric_for_best_model",
    "output.dir",
)


def start(recipe: Recipe, folder: RunFolder, say: Say, allow_changes: bool = False) -> Session:
    """Read the data, load the model, decide what is left to the machine, and make the folder or go on in it.

    `allow_changes`: of settings that a run can go on with, though not to where it would have come.
    """
    is_resume = from_main(folder.is_run)
    if is_resume:
        recipe = _reconciled(recipe, folder, say if allow_changes else None)
    session = prepared(recipe, agreed(lambda: read_splits(recipe), in_turn=True), folder, say)
    session.run_id = from_main(session.run_id)
    same_everywhere(
        {
            "training examples": session.training_examples,
            "recipe": digest(session.recipe),
            "kernel": session.setup.choices["kernel"].value,
            "parallel": session.parallel,
            **versions(("deepspeed",) if session.parallel in ZERO else ()),
        },
        "the same files, recipe and accelerate configuration on every machine",
    )
    for warning in session.audit.warnings:
        say(f"warning: {warning}")
    if has_open_messages():
        say(f"warning: other machines on this network can send messages to this run; set {LAUNCH_KEY} to a secret")
    if is_resume:
        _go_on(session)
    else:
        agreed(lambda: _begin(session) if is_main() else None)
    return session


def num_saves(session: Session) -> int:
    """At most: every evaluation may be the best so far."""
    recipe, per_epoch = session.recipe, session.steps_per_epoch
    output, evaluation, num_steps = recipe.output, recipe.evaluation, num_training_steps(recipe, per_epoch)
    saves = times_due(output.save_strategy, output.save_steps, num_steps, per_epoch)
    return saves and max(saves, times_due(evaluation.eval_strategy, evaluation.eval_steps, num_steps, per_epoch))


def prepared(recipe: Recipe, splits: Splits, folder: RunFolder, say: Say, audit: Audit | None = None) -> Session:
    """Everything that comes before the first step, except writing. `audit`: of the rows, where it was made before."""
    # One process tells and stores it, and the others have no need of the time and memory that it takes.
    audit = audit or agreed(lambda: audit_rows(splits.all(), splits.task) if is_main() else Audit())
    setup = agreed(lambda: set_up(recipe, recipe.model, splits.task, tokens_per_step(recipe, splits)), in_turn=True)

    def encoded() -> dict[str, TokenStore]:
        return {split.name: encode(split, splits.task, setup.tokenizer, setup.max_length) for split in splits.all()}

    stores = agreed(encoded, in_turn=True)
    used_rows = None if recipe.data.streaming else choose_trained_rows(recipe, setup, stores[TRAIN])
    if setup.accelerator.device.type == "cuda" and recipe.training.tokens_per_microbatch == "auto":
        probed = probe(setup, splits.task, stores[TRAIN])
        if probed is not None:
            setup.choices["tokens_per_microbatch"] = probed
            setup.tokens_per_microbatch = int(probed.value)
    setup.tokens_per_microbatch = -greatest(-setup.tokens_per_microbatch)[0]  # what fits into the memory of all
    setup.choices |= pins(recipe)
    recipe = resolved(recipe, splits, setup, folder)
    for split in splits.all():
        say(described(split, stores[split.name]))
    for note in splits.notes:
        say(f"  {note}")
    for line in without_effect(recipe, splits.num_training_examples(stores[TRAIN])):
        say(line)
    for name, choice in setup.choices.items():
        say(f"{name}: {choice.value} ({choice.reason})")
    for split in splits.all():
        audit_tokens(audit, split, stores[split.name], splits.task, setup.tokenizer.unk_token_id)
    session = Session(
        recipe, folder, uuid.uuid4().hex, splits, stores, setup, TrainState(), None, say, used_rows, audit
    )
    if splits.stream is not None:
        session.windows = windows_of(splits.stream, splits.task, setup.tokenizer, setup.max_length)
    let_go()  # of texts: from here on there are tokens
    return session


def tokens_per_step(recipe: Recipe, splits: Splits) -> float:
    """About: before there is a tokenizer, by the bytes of some texts."""
    texts = list(islice(splits.task.input_texts(splits.train.rows), TEXTS_MEASURED))
    return recipe.training.batch_size * sum(len(text.encode()) for text in texts) / len(texts) / BYTES_PER_TOKEN


def choose_trained_rows(recipe: Recipe, setup: Setup, store: TokenStore) -> np.ndarray | None:
    """Which rows of the word embeddings to train, where all would come to the same; the choice is kept with the others.

    With weight decay every row moves in every step.
    """
    if recipe.training.weight_decay > 0:
        return None
    used = rows_in_use(setup.model, store.inputs["input_ids"], setup.padding.token_id)
    if used is not None and setup.choices["parallel"].value != FSDP2:
        reason = "the others occur in no training text, so no gradient ever reaches them"
        setup.choices["word_embeddings"] = Choice(
            f"training {len(used):,} of {setup.model.config.vocab_size:,} rows", reason
        )
    return used


def without_effect(recipe: Recipe, num_examples: int) -> list[str]:
    """Settings that somebody wrote and that change nothing in this run, each with the reason."""
    training, evaluation, default = recipe.training, recipe.evaluation, Recipe.model_validate({"data": {"train": "-"}})
    steps_per_epoch = math.ceil(num_examples / training.batch_size)
    num_steps = num_training_steps(recipe, steps_per_epoch)
    period = steps_per_epoch if evaluation.eval_strategy == "epoch" else evaluation.eval_steps or num_steps
    num_evaluations = math.ceil(num_steps / period)
    patience = evaluation.early_stopping_patience
    settings = {
        f"evaluation.early_stopping_patience={patience}: there are {num_evaluations} evaluations in all": patience
        is not None
        and patience >= num_evaluations,
        "training.num_train_epochs: training.max_steps decides": training.max_steps > 0
        and training.num_train_epochs != default.training.num_train_epochs,
        "preprocessing.window_pooling: preprocessing.long_text is not windows": recipe.preprocessing.long_text
        != "windows"
        and recipe.preprocessing.window_pooling != default.preprocessing.window_pooling,
        "data.validation_fraction: data.validation is given": recipe.data.validation is not None
        and recipe.data.validation_fraction != default.data.validation_fraction,
        "data.test_fraction: data.test is given": recipe.data.test is not None and bool(recipe.data.test_fraction),
        "data.columns.group: data.validation is given, and no rows are held out": _splits_nothing(recipe)
        and recipe.data.columns.group is not None,
        "data.columns.time: data.validation is given, and no rows are held out": _splits_nothing(recipe)
        and recipe.data.columns.time is not None,
        "data.max_bad_rows: data.streaming is false, so all rows are checked first": recipe.data.max_bad_rows > 0
        and not recipe.data.streaming,
        "output.save_total_limit: output.save_strategy is no": recipe.output.save_strategy == "no"
        and recipe.output.save_total_limit != default.output.save_total_limit,
    }
    return [f"no effect: {text}" for text, applies in settings.items() if applies]


def _splits_nothing(recipe: Recipe) -> bool:
    """Whether every split has a file of its own, so that none is held out of the training rows."""
    return recipe.data.validation is not None and (recipe.data.test is not None or not recipe.data.test_fraction)


def described(split: Split, store: TokenStore) -> str:
    lengths = store.lengths
    cut = int((store.num_tokens_cut > 0).sum())
    truncated = f", {cut:,} cut to the maximum ({int(store.num_tokens_cut.sum()):,} tokens lost)" if cut else ""
    several = int((store.num_windows > 1).sum())
    if several:
        truncated += f", {several:,} read in several windows ({int(store.num_windows.sum()):,} in all)"
    sample = "a sample of " if split.is_sample else ""
    return (
        f"{split.name}: {sample}{len(split.rows):,} rows of {split.where}, {lengths.mean():.0f} tokens on average, "
        f"{lengths.max()} at most{truncated}"
    )


def pins(recipe: Recipe) -> dict[str, Choice]:
    """Model and splits that come from the hub: path in the recipe -> the same place at the commit that was read."""
    places = {f"data.{name}": getattr(recipe.data, name) for name in ("train", "validation", "test")}
    found = {path: pin(place, hub.pinned(place)) for path, place in places.items() if isinstance(place, str)}
    found["model"] = pin(recipe.model, pinned(recipe.model))
    return {path: choice for path, choice in found.items() if choice.value != (places | {"model": recipe.model})[path]}


def pin(asked: str, at_commit: str) -> Choice:
    return Choice(at_commit, f"the commit of {asked} when the run began")


def resolved(recipe: Recipe, splits: Splits, setup: Setup, folder: RunFolder) -> Recipe:
    """The recipe with every field filled that was left to the machine."""
    choices = setup.choices
    filled = load_recipe(recipe, splits.task.settings())
    return load_recipe(
        filled,
        {
            **nested({"data.columns": splits.columns, **{path: choice.value for path, choice in pins(recipe).items()}}),
            "preprocessing": {"max_length": setup.max_length},
            "training": {
                "precision": choices["precision"].value,
                "attention_dropout": float(choices["attention_dropout"].value),
                "tokens_per_microbatch": setup.tokens_per_microbatch,
            },
            "evaluation": {
                "metric_for_best_model": recipe.evaluation.metric_for_best_model or splits.task.primary_metric,
            },
            "output": {"dir": str(folder.path)},
        },
    )


def _reconciled(asked: Recipe, folder: RunFolder, allow: Say | None) -> Recipe:
    """As the main process reconciles it, which has the folder."""
    recipe = agreed(lambda: reconciled(load_recipe(folder.recipe), asked, folder, allow) if is_main() else asked)
    return load_recipe(from_main(recipe.model_dump(mode="json")))


def reconciled(saved: Recipe, asked: Recipe, folder: RunFolder, allow: Say | None = None) -> Recipe:
    """The recipe to go on with: the saved one with harmless changes; RecipeError for any other change.

    `allow` is told of changes that a run can go on with; None: they are refused, too.
    """
    changes = {}
    problems = []
    chosen = read_json(folder.environment) if folder.environment.exists() else {}
    for path, (old, new) in differences(saved, asked).items():
        if path in MAY_CHANGE:
            changes[path] = new
        elif (path in FILLED_IN and new in ("auto", "balanced", None)) or chosen.get(path) == asdict(
            pin(str(new), str(old))
        ):
            continue
        elif path in MAY_BE_ALLOWED and allow is not None:
            changes[path] = new
            allow(f"{path}: {new} from here on, {old} before")
        else:
            hint = "start a new run with another --output, or resume with the recipe as it was"
            if path in MAY_BE_ALLOWED and not folder.is_finished:
                hint += "; --allow-changes goes on with the new value"
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
    return load_recipe(saved, nested(changes))


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}"""
    tree: dict[str, Any] = {}
    for path, value in settings.items():
        *sections, name = path.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = value
    return tree


def _begin(session: Session) -> None:
    """Write what is known before the first step. The recipe comes last: with it the folder is a run."""
    folder, setup = session.folder, session.setup
    check_space(folder.path, needed_bytes(setup.model, num_saves(session), session.recipe.output.save_total_limit))
    session.folder.path.mkdir(parents=True, exist_ok=True)
    write_json(
        folder.environment,
        {
            "run_id": session.run_id,
            "command": noted_command(),
            "versions": versions(),
            "num_processes": setup.accelerator.num_processes,
            **{name: asdict(choice) for name, choice in setup.choices.items()},
        },
    )
    write_json(folder.data_report, data_report(session))
    if session.mirror is not None:
        session.mirror.claim(session.run_id)
    with suppress(OSError):  # a cache: without it `evaluate` asks before it opens addresses of this run
        mark = cache_folder(MADE_HERE) / session.run_id
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    write_text(folder.recipe, dump(session.recipe))


def data_report(session: Session) -> dict[str, Any]:
    """What data_report.json holds."""
    parts = {split.name: report(split, session.stores[split.name], session.task) for split in session.splits.all()}
    return {
        "columns": session.splits.columns,
        "notes": session.splits.notes,
        "training_examples": session.training_examples,
        "splits": parts,
        "warnings": session.audit.entries,
    }


def _go_on(session: Session) -> None:
    """Take run id, state and checkpoint from the folder; refuse when the training examples are not the same."""
    folder = session.folder
    environment = from_main(read_json(folder.environment) if is_main() else None)
    before = from_main(read_json(folder.data_report)["training_examples"] if is_main() else None)
    session.run_id = environment["run_id"]
    if session.mirror is not None:
        agreed(lambda: session.mirror.claim(session.run_id) if session.mirror and is_main() else None)
    for line in _differences(environment, session):
        session.say(f"{line}; the run goes on, though not to the last bit as it would have")
    if before != session.training_examples:
        raise DataError(
            Problem(
                where=f"resume of {folder.path}: {session.splits.train.where}",
                found="other training examples than those the run started with",
                expected="the same rows, labels and tokenizer",
                hint="bring the file back, or start a new run with another --output",
                code="E531",
            )
        )

    def newest() -> Checkpoint | None:
        found, passed_over = newest_good(folder.checkpoints, session.run_id)
        for line in passed_over:
            session.say(line)
        return found

    session.checkpoint = in_all_processes(newest)
    if is_main():
        # Nothing is refused any more: what may change has changed from here on.
        write_text(folder.recipe, dump(session.recipe))
        prune(folder.checkpoints, None, set(), session.run_id)  # what a killed process left of one
    if session.checkpoint is None:
        session.say("no checkpoint yet: starting from the beginning")
        return
    session.state = saved_state(session.checkpoint)
    if session.splits.stream is not None:
        session.splits.stream.files.bad.found.update(session.state.bad_rows)
    session.say(f"going on from {session.checkpoint.path}")


def _differences(environment: Mapping[str, Any], session: Session) -> Iterator[str]:
    """What was different when the run started, and may round numbers otherwise."""
    for name in ROUNDING:
        before, now = environment.get(name, {}).get("value"), session.setup.choices[name].value
        if before not in (None, now):
            yield f"{name}: {now} now, {before} before"
    num_processes = session.setup.accelerator.num_processes
    if environment["num_processes"] != num_processes:
        yield f"processes: {num_processes} now, {environment['num_processes']} before"
    installed = versions()
    for package, before in environment["versions"].items():
        if installed.get(package) != before:
            yield f"{package}: {installed.get(package, 'none')} now, {before} before"
