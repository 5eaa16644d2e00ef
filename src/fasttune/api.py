"""The Python interface, which the command line calls too."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fasttune.data import builder
from fasttune.data.builder import Built, write
from fasttune.data.formats.in_memory import is_rows, stored
from fasttune.data.preview import sample_rows
from fasttune.data.reading import task_of_source
from fasttune.data.recipe_source import RecipeSource, recipe_from, with_stored_rows
from fasttune.data.row_stream import rows_to_see
from fasttune.errors import DivergedError, Problem, UsageError
from fasttune.evaluation import analysis_of_run, comparison, label_ranking, parts, predictions
from fasttune.evaluation.comparison import Compared
from fasttune.evaluation.label_ranking import FOLDS, RankedLabel
from fasttune.evaluation.other_data import in_place, pieces_to_predict, read_to_predict, read_to_score
from fasttune.evaluation.own_split import read_own_split
from fasttune.evaluation.predictor import Predictor
from fasttune.evaluation.reproduction import Reproduced, compared, recipe_to_repeat, replanned_in
from fasttune.export.exporting import MOST_LOST, Export, make_export
from fasttune.parallel import collectives, rendezvous
from fasttune.parallel.collectives import is_main
from fasttune.recipe import Overrides, Recipe, dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.types import seconds_of
from fasttune.report import page
from fasttune.report.language import CODES
from fasttune.runs import hub
from fasttune.runs.folder import (
    DEFAULT_PARENT,
    RESULT_PREFIX,
    RunFolder,
    locked,
    open_finished_run,
    open_run,
    read_json,
    resolve_run_folder,
    sha256,
)
from fasttune.runs.mirror import Mirror
from fasttune.search import Found, search_in_folder
from fasttune.tasks import TASKS, Prediction, Rows
from fasttune.tasks.highlights import tokens_of
from fasttune.tasks.preview import Preview, understood
from fasttune.training import preflight, signals
from fasttune.training.alerts import notify, without_rows
from fasttune.training.callbacks import Observer
from fasttune.training.callbacks.console import ConsoleLog
from fasttune.training.card import card_for, public_recipe
from fasttune.training.environment import versions
from fasttune.training.fit import FINISHED_BEFORE, Run, fit_in_folder
from fasttune.training.loop import Replan
from fasttune.training.lr_range import LearningRates, range_test
from fasttune.training.notebook import launch_from_notebook
from fasttune.training.run import Log
from fasttune.training.seeds import fit_seeds
from fasttune.training.wrapping import check_launch

__all__ = [
    "Predictor",
    "Preview",
    "Run",
    "build",
    "check",
    "evaluate",
    "export_run",
    "fit",
    "iter_predictions",
    "load",
    "lr_range",
    "notebook_fit",
    "predict",
    "push",
    "rank_labels",
    "recipe_of",
    "search",
    "show",
    "write_report",
]


def recipe_of(source: RecipeSource, overrides: Overrides = ()) -> tuple[Recipe, str]:
    """The recipe that `source` means, and the stem of the run folder's name; see `data.recipe_source.recipe_from`."""
    return recipe_from(source, TASKS, overrides)


def fit(
    recipe: RecipeSource,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    overrides: Overrides = (),
    progress: bool = True,
    observers: Sequence[Observer] = (),
    **sections: Mapping[str, Any],
) -> Run:
    """Train, evaluate and save a model; returns the run.

    `sections` change the recipe, such as training={"learning_rate": 3e-5}; so do `overrides`, written as on the command
    line. `output` is the run folder (default: runs/NAME, then runs/NAME-2 ...). A folder that holds a run is refused
    unless `resume` is set, which resumes from the newest intact checkpoint; `allow_changes` then accepts changed
    settings, such as the learning rate or the number of steps. `progress` logs to stderr.
    SIGINT (or interrupting the cell), SIGTERM and SIGUSR1 save a checkpoint and return the run so far.

    Raises RecipeError, DataError, EnvironmentProblem, CheckpointError, DivergedError.

    >>> run = fasttune.fit("quickstart", training={"max_steps": 10})  # doctest: +SKIP
    """
    asked = partial(_recipe_with, recipe, overrides, sections)
    return _fit(asked, output, resume=resume, allow_changes=allow_changes, progress=progress, observers=observers)


def _fit(
    asked: Callable[[], tuple[Recipe, str]],
    output: str | Path | None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    progress: bool,
    observers: Sequence[Observer] = (),
    replan: Replan | None = None,
) -> Run:
    """`fit`, of which `asked` returns the recipe and a name; `replan` is that of `fit_in_folder`."""
    name = "run"
    path = Path(output or DEFAULT_PARENT / name)
    try:
        with signals.caught():
            rendezvous.rendezvous(versions())
            loaded, name = collectives.raise_on_all_ranks(asked)
            if "WORLD_SIZE" in os.environ:
                check_launch(loaded.training.device)
            rendezvous.init_process_group(loaded.training.device)
            path = collectives.raise_on_all_ranks(
                lambda: resolve_run_folder(name, output or loaded.output.dir, resume).path if is_main() else Path()
            )
            folder = RunFolder(Path(collectives.broadcast_object(str(path))))
            path = folder.path
            with _console(loaded, progress) as console, locked(folder) if is_main() else nullcontext():
                arguments: dict[str, Any] = {
                    "resume": resume,
                    "allow_changes": allow_changes,
                    "log": console.log if console else (lambda line: None),
                    "observers": [*([console] if console else []), *observers],
                }
                if loaded.training.seeds:
                    run = fit_seeds(loaded, folder, **arguments)
                else:
                    run = fit_in_folder(loaded, folder, **arguments, begin=signals.began(), replan=replan)
                _report_of(run, loaded, console.log if console else (lambda line: None))
    except signals.Stopped as stopped:  # before there was anything to save
        run = Run(path, {}, str(stopped), False, stopped.number)
    except Exception as error:
        if isinstance(error, DivergedError):  # raised on all ranks alike
            error.reported_by_main = not is_main()
        connection_error = rendezvous.explain_connection_error(error) if isinstance(error, RuntimeError) else None
        notify(f"fasttune: {name} failed", without_rows(connection_error or error))
        if connection_error is not None:
            raise connection_error from error
        raise
    notify(f"fasttune: {run.folder.name} ended", f"{run.reason}\n{run!r}")
    return run


def _report_of(run: Run, recipe: Recipe, log: Log) -> None:
    """Write the report of a run that has just ended. A failure costs the report alone."""
    if recipe.output.report and run.is_complete and run.reason != FINISHED_BEFORE and is_main():
        folder = RunFolder(run.folder)
        try:
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # loading the model again is work for all ranks
                analysis_of_run.complete(folder, log)
            page.write_report(folder)
        except Exception as error:
            log(f"warning: could not write the report: {type(error).__name__}: {error}")
        if recipe.output.mirror is not None:
            Mirror(recipe.output.mirror, folder).send_all()
    collectives.barrier()  # launchers kill the other ranks once one has ended


def write_report(
    run: str | Path,
    *,
    language: str = "en",
    data: Any = None,
    progress: bool = True,
) -> Path:
    """Write report.html of a finished run again, with its charts in plots/; returns the path of the page.

    `language`: en or zh. `data`: other rows, such as those of last week; the page then says how they differ from the
    training rows. For runs of several processes, it adds the words that drove the mistakes.
    """
    if language not in CODES:
        problem = Problem(where="--lang", found=repr(language), expected=f"one of {', '.join(CODES)}")
        raise UsageError(problem)
    folder = open_finished_run(run, "report")
    log: Log = _log(progress) or (lambda line: None)
    analysis_of_run.complete(folder, log)
    drift = None
    if data is not None:
        drift = analysis_of_run.drift_to(folder, *_spec_and_command("report", run, data, ()), log)
    return page.write_report(folder, language, drift)


def rank_labels(
    run: str | Path, *, folds: int = FOLDS, max_time: str | None = None, progress: bool = True
) -> tuple[list[RankedLabel], Path]:
    """Rank the training labels of a finished run by how little they fit: the first ones may be wrong.

    Each row is predicted by one of `folds` models that was trained without it. `max_time`, such as "20m", is divided
    among them. Returns the labels and the path of labels.csv, which `data.corrections` takes back after you have edited
    it. A killed ranking resumes with the fold it was at.
    """
    folder = open_finished_run(run, "labels")
    seconds = None if max_time is None else seconds_of(max_time)
    with signals.caught():
        return label_ranking.rank_labels(folder, _log(progress) or (lambda line: None), folds, seconds)


def notebook_fit(
    recipe: RecipeSource,
    num_processes: int,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    **arguments: Any,
) -> Run:
    """`fit` in `num_processes` processes, one per device, from a notebook; returns the run.

    The processes are copies of this one, so no earlier cell may have used the devices or trained on a CPU: start with a
    fresh kernel. Takes the arguments of `fit` and raises its errors; the cell shows the progress.

    >>> run = fasttune.notebook_fit("reviews.csv", num_processes=2)  # doctest: +SKIP
    """
    loaded, name = recipe_of(recipe, arguments.pop("overrides", ()))
    path = resolve_run_folder(name, output or loaded.output.dir, resume).path
    outcome = launch_from_notebook(_fit_rank, (loaded, {"output": path, "resume": resume, **arguments}), num_processes)
    return Run(**{**outcome, "folder": path})


def _fit_rank(recipe: Recipe, arguments: dict[str, Any]) -> dict[str, Any]:
    run = fit(recipe, **arguments)
    return {**asdict(run), "folder": str(run.folder)}


def _recipe_with(recipe: RecipeSource, overrides: Overrides, sections: Mapping[str, Any]) -> tuple[Recipe, str]:
    """`recipe_of`, with the changes of `sections`."""
    loaded, name = recipe_of(recipe, overrides)
    return (load_recipe(loaded, with_stored_rows(sections)) if sections else loaded), name


@contextmanager
def _console(recipe: Recipe, progress: bool) -> Iterator[ConsoleLog | None]:
    console = ConsoleLog(recipe.training.logging_steps) if progress and is_main() else None
    try:
        yield console
    finally:
        if console is not None:
            console.close()


def search(
    recipe: RecipeSource,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overrides: Overrides = (),
    progress: bool = True,
    **sections: Mapping[str, Any],
) -> Found:
    """Train `search.num_trials` times with different settings, and keep the best model.

    Trials are compared on the validation rows; the test rows are scored once, by the best model. Arguments as for
    `fit`. A killed or interrupted search continues with `resume`. Requires the extra `search`.

    Raises RecipeError, DataError, EnvironmentProblem, CheckpointError; DivergedError if no trial ran to its end.

    >>> found = fasttune.search("reviews.csv", search={"num_trials": 10})  # doctest: +SKIP
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problem = Problem(where="fasttune search", found="started as one of several processes", hint="start it alone")
        raise UsageError(problem)
    loaded, name = _recipe_with(recipe, overrides, sections)
    folder = resolve_run_folder(name, output or loaded.output.dir, resume)
    with signals.caught(), _console(loaded, progress) as console, locked(folder):
        log = console.log if console else (lambda line: None)
        found = search_in_folder(loaded, folder, log=log)
        if folder.is_finished:
            _report_of(Run(folder.path, found.metrics, "the best trial"), loaded, log)
    notify(f"fasttune: search in {folder.path.name} ended", repr(found))
    return found


def lr_range(
    recipe: RecipeSource,
    *,
    output: str | Path | None = None,
    overrides: Overrides = (),
    progress: bool = True,
    **sections: Mapping[str, Any],
) -> LearningRates:
    """Find a learning rate: train 120 steps while it rises from 1e-6 to 0.1, and see where the loss falls fastest.

    The model is not kept. Writes lr_range.json and a plot to the folder `output`, if given. Other
    arguments as for `fit`.

    >>> fasttune.lr_range("reviews.csv").suggestion  # doctest: +SKIP
    """
    loaded, _ = _recipe_with(recipe, overrides, sections)
    with signals.caught(), _console(loaded, progress) as console:
        return range_test(
            loaded, console.log if console else (lambda line: None), None if output is None else Path(output)
        )


def check(
    recipe: RecipeSource, *, overrides: Overrides = (), progress: bool = True, **sections: Mapping[str, Any]
) -> preflight.Checked:
    """Check recipe, data and model before training; returns warnings and a forecast of time and memory.

    All errors are raised together. Runs a few steps in a temporary folder and keeps nothing. `sections` and `overrides`
    as for `fit`; `progress` logs to stderr.

    Raises RecipeError, DataError, EnvironmentProblem.

    >>> fasttune.check("reviews.csv").warnings  # doctest: +SKIP
    """
    loaded, _ = _recipe_with(recipe, overrides, sections)
    log: Log = ConsoleLog(loaded.training.logging_steps).log if progress else (lambda line: None)
    return preflight.check(loaded, log)


def load(
    run: str | Path, overrides: Overrides = (), *, precision: str | None = None, device: str | None = None
) -> Predictor:
    """Load a finished run for predictions.

    `precision` (fp32 | bf16 | fp16), `device` (cpu | cuda | mps) and `overrides`, such as ["data.encoding=cp1252"],
    replace the run's own settings. Threads may share the predictor.
    """
    training = {name: value for name, value in (("precision", precision), ("device", device)) if value is not None}
    if not isinstance(overrides, Mapping):
        overrides = [*overrides, *(f"training.{name}={value}" for name, value in training.items())]
    elif training:
        overrides = {**overrides, "training": {**overrides.get("training", {}), **training}}
    return Predictor.open(run, overrides)


def evaluate(
    run: str | Path,
    *,
    data: Any = None,
    split: str | None = None,
    overrides: Overrides = (),
    progress: bool = True,
) -> dict[str, float]:
    """Evaluate a finished run on a split of its own data (default: test, else validation), or on `data`.

    Metrics are named as in the run folder: test_accuracy, or eval_accuracy for validation and for other data. Columns
    and labels of `data` that are named differently are matched with the run's; `data.label_names` among the overrides
    maps labels of the file to labels of the run. `progress` logs notes and warnings to stderr.
    """
    if data is not None and split is not None:
        problem = Problem(where="evaluate", found="both data and split", expected="one of them", hint="--data FILE")
        raise UsageError(problem)
    predictor = Predictor.open(run, overrides, _log(progress), maps_labels=data is not None)
    if data is not None:
        return predictor.score(read_to_score(predictor, *_spec_and_command("evaluate", run, data, overrides)))
    rows = read_own_split(predictor, split)
    prefix = RESULT_PREFIX[rows.name]
    return {key.replace("eval_", f"{prefix}_", 1): value for key, value in predictor.score(rows).items()}


def compare(
    *runs: str | Path, split: str | None = None, html: str | Path | None = None, progress: bool = True
) -> list[Compared]:
    """Compare finished runs on the rows that all of them scored: each further run with the first, by every metric.

    `split`: validation or test (default: test, if all have scored test rows). Accuracy is tested by McNemar's test, all
    other metrics by a paired bootstrap; p-values of several runs are corrected by Holm's method. `html`: also write the
    comparison as a page to this path.

    >>> print(fasttune.compare("runs/base", "runs/large")[0].sentence)  # doctest: +SKIP
    """
    compared = comparison.compare(runs, split, _log(progress) or (lambda line: None))
    if html is not None:
        page.write_comparison(compared, Path(html))
    return compared


def reproduce(run: str | Path, *, output: str | Path | None = None, progress: bool = True) -> Reproduced:
    """Train again with the recipe and the data of a finished run, and compare weights and scores.

    `output`: the folder of the new run (default: runs/NAME-again). DataError if the data have changed since.
    """
    folder = open_finished_run(run, "reproduce")
    recipe, replanned = recipe_to_repeat(folder), replanned_in(folder)
    target = output or resolve_run_folder(f"{folder.path.resolve().name}-again", None, False).path
    again = _fit(lambda: (recipe, ""), target, progress=progress, replan=lambda state: replanned.get(state.step))
    if not again.is_complete:
        found = f"the second run is not complete: {again.reason}"
        raise UsageError(Problem(where=f"reproduce {folder.path}", found=found, hint="start it again"))
    return compared(folder, RunFolder(again.folder))


def predict(
    run: str | Path,
    texts: Any = None,
    *,
    data: Any = None,
    output: str | Path | None = None,
    overrides: Overrides = (),
    progress: bool = True,
) -> list[Prediction]:
    """Predict texts (or pairs of texts, or questions with contexts), or the rows of `data`, in order.

    A row of `data` without a text has a prediction in which every value is None. `progress` logs notes and warnings to
    stderr. Also writes the predictions to `output`, if given: a .csv, .tsv, .jsonl, .json, .parquet or .xlsx
    file.
    """
    if output is not None:
        predictions.check_ending(Path(output))
    rows, iterator = _predicted(run, texts, data, overrides, progress)
    predicted = list(iterator)
    if output is not None:
        predictions.write(Path(output), predictions.with_inputs(predicted, rows))
    return predicted


def write_predictions(
    run: str | Path, texts: Any = None, *, data: Any = None, output: str | Path, overrides: Overrides = ()
) -> int:
    """Write predictions to `output` one by one; returns how many there were.

    A file of many rows is predicted in parts. If the call is killed, the same call continues after the last whole part.
    """
    path = Path(output)
    predictions.check_ending(path)
    if data is None:
        rows, iterator = _predicted(run, texts, data, overrides)
        predictions.check_number(path, len(rows))
        return predictions.write(path, predictions.with_inputs(iterator, rows))
    predictor = Predictor.open(run, overrides, _log(True))
    most_bytes = parts.MOST_BYTES if predictions.most_rows(path) is None else sys.maxsize  # a sheet's rows are counted
    pieces = pieces_to_predict(
        predictor, *_spec_and_command("predict", run, data, overrides), parts.PART_ROWS, most_bytes
    )
    predictions.check_number(path, pieces.num_rows)
    plan = {
        "run": str(predictor.folder.path.resolve()),
        "weights": sha256(predictor.weights),
        "recipe": dump(predictor.recipe),
    }
    with parts.in_parts(path, plan, pieces, predictor) as predicted:
        return predictions.write(path, predicted)


def iter_predictions(
    run: str | Path,
    texts: Any = None,
    *,
    data: Any = None,
    overrides: Overrides = (),
    with_inputs: bool = False,
) -> Iterator[Prediction]:
    """Like `predict`, but decodes each prediction when it is asked for; `with_inputs` adds the texts of each."""
    rows, iterator = _predicted(run, texts, data, overrides)
    return predictions.with_inputs(iterator, rows) if with_inputs else iterator


def _predicted(
    run: str | Path, texts: Any, data: Any, overrides: Overrides, progress: bool = True
) -> tuple[Rows, Iterator[Prediction]]:
    """The inputs as rows, and an iterator over their predictions."""
    if (texts is None) == (data is None):
        raise UsageError(
            Problem(
                where="predict",
                found="both texts and data" if data else "neither texts nor data",
                expected="one of them",
                hint='fasttune predict RUN "some text", or --data FILE',
            )
        )
    predictor = Predictor.open(run, overrides, _log(progress))
    if data is not None:
        read = read_to_predict(predictor, *_spec_and_command("predict", run, data, overrides))
        return read.rows, in_place(predictor.predict_rows(read.split.rows, read.split.where), read)
    rows = predictor.task.rows_of(texts)
    return rows, predictor.predict_rows(rows, "texts")


def _log(progress: bool) -> Log | None:
    return ConsoleLog(1).log if progress else None


def _spec_and_command(name: str, run: str | Path, data: Any, overrides: Overrides) -> tuple[Any, str]:
    """The source that `data` names, and the command with it, to which a setting may be added."""
    if is_rows(data) or isinstance(data, list) or isinstance(overrides, Mapping):
        return (stored(data) if is_rows(data) else data), ""
    return data, shlex.join(["fasttune", name, str(run), "--data", str(data), *overrides])


def export_run(
    run: str | Path,
    format: str | Sequence[str] = "onnx",
    *,
    output: str | Path | None = None,
    data: Any = None,
    most_lost: float = MOST_LOST,
    progress: bool = True,
) -> Export:
    """Export a finished run to a folder that `load`, `predict`, `evaluate` and `fasttune serve` take in its place.

    `format`: onnx | onnx-int8 | openvino | openvino-int8, one or several, or `fastest`, which makes all of them and
    keeps the fastest on this CPU if it beats the weights. Each is compared with the weights on held-out rows, or on
    those of `data`, and timed. `output`: the new folder (default: RUN-FORMAT, or RUN-export). EnvironmentProblem if
    every format loses more than `most_lost` points of the score.

    >>> fasttune.export_run("runs/quickstart", "onnx-int8").verdict  # doctest: +SKIP
    """
    folder, formats = open_finished_run(run, "export"), [format] if isinstance(format, str) else list(format)
    suffix = formats[0] if len(formats) == 1 else "export"
    beside = folder.path if folder.path.name else folder.path.resolve()  # "." has no name
    target = Path(output) if output is not None else beside.with_name(f"{beside.name}-{suffix}")
    if target.exists():
        found = "it is already there"
        raise UsageError(Problem(where=f"output folder {target}", found=found, hint="--output NEW_NAME"))
    log = _log(progress) or (lambda line: None)
    predictor = Predictor.open(folder.path, {"training": {"precision": "fp32", "device": "cpu"}}, log)
    if data is None:
        split = read_own_split(predictor, None)
    else:
        split = read_to_score(predictor, *_spec_and_command("export", run, data, ()))
    return make_export(predictor, formats, target, split, most_lost, log)


def push(
    run: str | Path,
    repository: str,
    *,
    export: str | Path | None = None,
    with_report: bool = False,
    public: bool = False,
) -> str:
    """Upload a finished run or an export to the hub under the name `repository`; returns its address.

    Uploads the model, its tokenizer, settings and card, and no row of the data; `with_report` adds report.html, which
    quotes rows. `export`: a folder by `export_run`, whose files are uploaded too. A new repository is private unless
    `public`. `fasttune.load(repository)` loads it. HF_TOKEN must be set.
    """
    folder = open_run(run)
    if not folder.export.exists():
        folder = open_finished_run(run, "push")
    files: dict[str, Path | str] = {**hub.files_of(folder.path)}
    if export is not None:
        own = open_run(export)
        if not own.export.exists():
            problem = Problem(where=f"--export {export}", found="it is not an export", hint=f"fasttune export {run}")
            raise UsageError(problem)
        if read_json(own.environment)["run_id"] != read_json(folder.environment)["run_id"]:
            found, hint = "it was made from another run", f"fasttune export {run}"
            raise UsageError(Problem(where=f"--export {export}", found=found, hint=hint))
        files |= hub.files_of(own.path, hub.EXPORTED)
    files |= {"README.md": card_for(folder, repository), "recipe.yaml": public_recipe(load_recipe(folder.recipe))}
    if with_report:
        if not folder.report.exists():
            problem = Problem(where=f"run {folder.path}", found="no report.html", hint=f"fasttune report {run}")
            raise UsageError(problem)
        files["report.html"] = folder.report
    return hub.upload(files, repository, is_public=public, message="Upload by fasttune")


def build(definition: str | Path, output: str | Path, repository: str | None = None) -> Built:
    """Build the data set that a YAML file defines, and write it to a new folder as Parquet files with a card.

    `repository`, such as "user/reviews": also upload it to the hub under this name; HF_TOKEN must be set.
    """
    built = builder.build(Path(definition))
    write.write(built, Path(output))
    if repository is not None:
        write.push(Path(output), repository)
    return built


def show(
    data: Any,
    *,
    num_rows: int = 5,
    seed: int = 42,
    split: str | None = None,
    tokenizer: str | None = None,
    overrides: Overrides = (),
) -> Preview:
    """`num_rows` different random rows of a file, folder, glob, address, hub id or `starter`, with label names.

    `split`: which split, if the data has several (default: train). `tokenizer`: a model whose tokens are shown too,
    such as "embedded". `overrides`: how to read the data, such as ["data.encoding=cp1252"].
    """
    spec = stored(data) if is_rows(data) else data
    recipe = load_recipe({"data": {"train": spec}}, overrides)
    source = rows_to_see(spec, split, recipe)
    rows = sample_rows(source.dataset, num_rows, seed)
    tokens = None
    has_task = "task" in recipe.model_fields_set
    task = (None if has_task else task_of_source(source, TASKS)) or TASKS[recipe.task]
    notes = [*source.notes, *understood(source, load_recipe(recipe, {"task": task.name}), TASKS)]
    if tokenizer is not None:
        from fasttune.training.model import load_tokenizer

        loaded = load_tokenizer(tokenizer)
        tokens = tokens_of(rows, task, recipe.data.columns.model_dump(), loaded)
    return Preview(source.description, notes, rows, tokens)
