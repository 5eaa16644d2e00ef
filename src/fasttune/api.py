"""The Python interface, and all that the command line calls: here the parts are put together."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fasttune.data import builder
from fasttune.data.builder import Built, write
from fasttune.data.formats.in_memory import is_rows, stored
from fasttune.data.pipeline import Split, read_kept, read_labelled, read_unlabelled
from fasttune.data.preview import sample_rows
from fasttune.data.reading import TEST, VALIDATION, task_of
from fasttune.data.streaming import rows_to_see
from fasttune.errors import DataError, DivergedError, Error, Problem, UsageError
from fasttune.evaluation import predictions
from fasttune.evaluation.predictor import Predictor
from fasttune.parallel import collectives, rendezvous
from fasttune.parallel.collectives import is_main
from fasttune.recipe import Overrides, Recipe, is_recipe
from fasttune.recipe import load as load_recipe
from fasttune.recipe.load import is_recipe_name
from fasttune.runs.folder import DEFAULT_PARENT, RESULT_PREFIX, RunFolder, choose, locked, read_json
from fasttune.runs.mirror import Mirror
from fasttune.security.addresses import is_remote
from fasttune.security.cache import MADE_HERE, cache_folder
from fasttune.security.secrets import without_secrets
from fasttune.security.text import write_line
from fasttune.tasks import TASKS, Prediction, Rows
from fasttune.tasks.highlights import tokens_of
from fasttune.tasks.preview import Preview
from fasttune.training import preflight, signals
from fasttune.training.alerts import alert
from fasttune.training.callbacks import Observer
from fasttune.training.callbacks.console import ConsoleLog
from fasttune.training.environment import versions
from fasttune.training.finalize import finish, publish, train_results
from fasttune.training.notebook import launch_from_notebook
from fasttune.training.prepare import start
from fasttune.training.resume import reconciled
from fasttune.training.trainer import Say, Session
from fasttune.training.wrapping import check_launch

__all__ = [
    "Predictor",
    "Preview",
    "Run",
    "build",
    "check",
    "evaluate",
    "fit",
    "iter_predictions",
    "load",
    "notebook_fit",
    "predict",
    "recipe_of",
    "show",
]

HEAD = 1 << 20  # bytes that are read to learn what columns a file has
READING_FIELDS = ("encoding", "header", "max_bytes", "streaming")  # of `data`: how files are read
RecipeSource = Any  # str | Path | Mapping[str, Any] | Recipe | rows; see recipe_of


@dataclass(frozen=True)
class Run:
    """What `fit` leaves behind: the folder, and the metrics of all_results.json.

    A run that was stopped by `signal` (its number) has the metrics of its last evaluation; go on with `resume=True`.
    """

    folder: Path
    metrics: dict[str, Any] = field(repr=False)
    reason: str
    is_complete: bool = True
    signal: int | None = None
    example: str = field(default="", repr=False)  # what to type behind `fasttune predict RUN`

    def __repr__(self) -> str:
        scores = {
            key: round(value, 4)
            for key, value in self.metrics.items()
            if key.endswith(("accuracy", "f1", "_macro", "_micro", "pearson", "spearman", "exact_match"))
        }
        return f"Run({str(self.folder)!r}, {scores}, {self.reason!r})"


def recipe_of(source: RecipeSource, overrides: Overrides = ()) -> tuple[Recipe, str]:
    """The recipe, and the stem of the run folder's name.

    `source`: a recipe file, the name of a shipped recipe, a mapping, a Recipe, or data itself: a file, glob or hub id,
    a frame of pandas or polars, an Arrow table, a dataset, or a list of dicts.
    """
    if is_rows(source):
        source = stored(source)
    if isinstance(source, Mapping):
        source = _with_files(source)
    if not isinstance(source, str | Path):
        recipe = load_recipe(source, overrides)
        return recipe, stem_of(recipe.data.train)
    if is_recipe(source) or is_recipe_name(source):
        return load_recipe(source, overrides), Path(source).stem
    task = {} if _names_task(overrides) else {"task": _task_of_bare(str(source), overrides)}
    recipe = load_recipe(load_recipe({**task, "data": {"train": str(source)}}), overrides)
    return recipe, stem_of(recipe.data.train)


def _with_files(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the path of a file in place of rows that are given themselves."""
    data = sections.get("data")
    if not isinstance(data, Mapping):
        return dict(sections)
    return {**sections, "data": {name: stored(value) if is_rows(value) else value for name, value in data.items()}}


def stem_of(data: str | list[str]) -> str:
    """reviews.csv -> reviews, hub/name:train -> name"""
    first = data if isinstance(data, str) else data[0]
    stem = Path(first.partition(":")[0]).stem if not Path(first).exists() else Path(first).stem
    kept = "".join(character if character.isalnum() or character in "-_." else "-" for character in stem).strip("-.")
    return kept or "run"


def _task_of_bare(data: str, overrides: Overrides) -> str:
    """The task whose columns the data has: the usual one for texts."""
    if isinstance(overrides, Mapping):
        how = {name: value for name, value in overrides.get("data", {}).items() if name in READING_FIELDS}
        recipe = load_recipe({"data": {"train": data, **how}})
    else:
        fields = tuple(f"data.{name}=" for name in READING_FIELDS)
        recipe = load_recipe({"data": {"train": data}}, [one for one in overrides if one.startswith(fields)])
    # The beginning of a file mostly tells its columns. What is wrong with it is said with the rest, when it is read.
    for head in (HEAD, None) if Path(data).is_file() and not recipe.data.streaming else (None,):
        with suppress(DataError):
            task = task_of(rows_to_see(data, None, recipe, head).dataset.column_names, TASKS)
            return recipe.task if task is None else task.name
    return recipe.task


def _names_task(overrides: Overrides) -> bool:
    return "task" in (overrides if isinstance(overrides, Mapping) else [one.partition("=")[0] for one in overrides])


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
    """Train, score and save; returns the run.

    `sections` are changes to the recipe, such as training={"learning_rate": 3e-5}; `overrides` the same as on the
    command line. `output` names the run folder (default: runs/NAME, then NAME-2 ...); one that holds a run is refused
    unless `resume`, which goes on from the newest whole checkpoint; `allow_changes` lets it go on with another learning
    rate, number of steps and the like. `progress` shows what happens on stderr.
    SIGINT (or interrupting the cell), SIGTERM and SIGUSR1 save a checkpoint and return the run so far.

    Raises RecipeError, DataError, EnvironmentProblem, CheckpointError, DivergedError.

    >>> run = fasttune.fit("quickstart", training={"max_steps": 10})  # doctest: +SKIP
    """
    name = "run"
    path = Path(output or DEFAULT_PARENT / name)
    try:
        with signals.caught():
            rendezvous.rendezvous(versions())
            made, name = collectives.raise_on_all_ranks(lambda: _made(recipe, overrides, sections))
            if "WORLD_SIZE" in os.environ:
                check_launch(made.training.device)
            rendezvous.init_process_group(made.training.device)
            path = collectives.raise_on_all_ranks(lambda: _chosen_path(name, output or made.output.dir, resume))
            path = Path(collectives.broadcast_object(str(path)))
            with _console(made, progress) as console, _folder_locked(RunFolder(path)):
                run = _fit(made, RunFolder(path), resume, allow_changes, console, observers)
    except signals.Stopped as stopped:  # before there was anything to save
        run = Run(path, {}, str(stopped), False, stopped.number)
    except Exception as error:
        if isinstance(error, DivergedError):  # of which all processes see the same sums
            error.reported_by_main = not is_main()
        problem = rendezvous.explain_connection_error(error) if isinstance(error, RuntimeError) else None
        _notify(f"fasttune: {name} failed", _without_rows(problem or error))
        if problem is not None:
            raise problem from error
        raise
    _notify(f"fasttune: {run.folder.name} ended", f"{run.reason}\n{run!r}")
    return run


def notebook_fit(
    recipe: RecipeSource, num_processes: int, *, output: str | Path | None = None, resume: bool = False, **how: Any
) -> Run:
    """`fit` in `num_processes` processes, one per device, from a notebook; returns the run.

    The processes are copies of this one, so no earlier cell may have used the devices or trained on a CPU: start in a
    fresh kernel. Arguments and errors are those of `fit`; progress is shown in the cell.

    >>> run = fasttune.notebook_fit("reviews.csv", num_processes=2)  # doctest: +SKIP
    """
    made, name = recipe_of(recipe, how.pop("overrides", ()))
    path = choose(name, output or made.output.dir, resume).path
    outcome = launch_from_notebook(_fit_rank, (made, {"output": path, "resume": resume, **how}), num_processes)
    return Run(**{**outcome, "folder": path})


def _fit_rank(recipe: Recipe, how: dict[str, Any]) -> dict[str, Any]:
    run = fit(recipe, **how)
    return {**asdict(run), "folder": str(run.folder)}


def _made(recipe: RecipeSource, overrides: Overrides, sections: Mapping[str, Any]) -> tuple[Recipe, str]:
    """As `recipe_of`, with the changes of `sections`."""
    made, name = recipe_of(recipe, overrides)
    return (load_recipe(made, _with_files(sections)) if sections else made), name


def _chosen_path(name: str, output: str | Path | None, resume: bool) -> Path:
    """As the main process chooses it."""
    return choose(name, output, resume).path if is_main() else Path()


@contextmanager
def _console(recipe: Recipe, progress: bool) -> Iterator[ConsoleLog | None]:
    console = ConsoleLog(recipe.training.logging_steps) if progress and is_main() else None
    try:
        yield console
    finally:
        if console is not None:
            console.close()


def _folder_locked(folder: RunFolder) -> AbstractContextManager[None]:
    """Of several ranks, rank 0 holds the lock."""
    return locked(folder) if is_main() else nullcontext()


def _without_rows(error: Exception) -> str:
    """What an alert may say of an error: its kind, codes and places. Messages hold cells of rows, which stay here."""
    problems = error.problems if isinstance(error, Error) else ()
    places = [f"{problem.code or type(error).__name__} {problem.where}" for problem in problems[:3]]
    return without_secrets("\n".join(places) or type(error).__name__)


def _notify(title: str, text: str) -> None:
    problem = alert(title, text) if is_main() else None
    if problem is not None:
        write_line(f"warning: {problem}", sys.stderr)


def _fit(
    recipe: Recipe,
    folder: RunFolder,
    resume: bool,
    allow_changes: bool,
    console: ConsoleLog | None,
    observers: Sequence[Observer],
) -> Run:
    say: Say = console.say if console else (lambda line: None)
    if resume and recipe.output.mirror is not None:
        fetched = collectives.raise_on_all_ranks(lambda: _fetched(recipe, folder) if is_main() else None)
        if fetched is not None:
            say(f"{recipe.output.mirror}: fetched {fetched}")
    if collectives.broadcast_object(resume and folder.is_finished):
        # Another recipe than the run's is refused.
        collectives.raise_on_all_ranks(
            lambda: reconciled(load_recipe(folder.recipe), recipe, folder) if is_main() else None
        )
        say(f"{folder.path} is finished; nothing to resume")
        results = collectives.broadcast_object(read_json(folder.all_results) if is_main() else None)
        if recipe.output.mirror is not None and is_main():
            Mirror(recipe.output.mirror, folder).send_all()  # what could not be sent at the end
        return Run(folder.path, results, "finished before")
    if resume and not folder.is_run:
        say(f"{folder.path}: nothing to resume yet, starting from the beginning")
    session = None
    try:
        session = start(recipe, folder, say, allow_changes)
        return _run(session, [*([console] if console else []), *observers])
    except signals.Stopped as stopped:  # before the first step, after the last, or for the second time
        metrics = session.state.evaluations[-1] if session and session.state.evaluations else {}
        return Run(folder.path, metrics, str(stopped), False, stopped.number)
    finally:
        if session is not None:
            session.close()


def _fetched(recipe: Recipe, folder: RunFolder) -> str | None:
    """What came from the mirror, in words, where this machine has none of the run or is behind."""
    return Mirror(recipe.output.mirror, folder).fetch() if recipe.output.mirror else None


def _run(session: Session, observers: list[Observer]) -> Run:
    finished = session.train(observers)
    path, state = session.folder.path, session.state
    step = publish(session)
    if session.signal is not None:
        session.say(f"the model at {path} has the weights of step {step}; the run can go on")
        metrics = state.evaluations[-1] if state.evaluations else {}
        collectives.barrier()  # a launcher ends the others when one is gone, and the main one may still write
        return Run(path, {**train_results(session), **metrics}, finished.reason, False, session.signal)
    results = finish(session, step)
    collectives.barrier()
    return Run(path, results, finished.reason, example=session.task.example)


def check(
    recipe: RecipeSource, *, overrides: Overrides = (), progress: bool = True, **sections: Mapping[str, Any]
) -> preflight.Checked:
    """Everything that can be said before training, all at once: errors are raised, warnings and a forecast returned.

    Recipe, data, model, memory and time are checked; a few steps are run in a temporary folder, nothing is kept.
    `sections` and `overrides` as for `fit`. `progress` says on stderr what is decided.

    Raises RecipeError, DataError, EnvironmentProblem.

    >>> fasttune.check("reviews.csv").warnings  # doctest: +SKIP
    """
    made, _ = _made(recipe, overrides, sections)
    say: Say = ConsoleLog(made.training.logging_steps).say if progress else (lambda line: None)
    return preflight.check(made, say)


def load(
    run: str | Path, overrides: Overrides = (), *, precision: str | None = None, device: str | None = None
) -> Predictor:
    """A finished run, ready to predict.

    `precision` (fp32 | bf16 | fp16) and `device` (cpu | cuda | mps) are used instead of the run's own, as are
    `overrides` such as ["training.precision=fp32"]. Threads may share what is returned.
    """
    given = {name: value for name, value in (("precision", precision), ("device", device)) if value is not None}
    if isinstance(overrides, Mapping):
        overrides = {**overrides, "training": {**overrides.get("training", {}), **given}} if given else overrides
    else:
        overrides = [*overrides, *(f"training.{name}={value}" for name, value in given.items())]
    return Predictor.open(run, overrides)


def evaluate(
    run: str | Path, *, data: Any = None, split: str | None = None, overrides: Overrides = ()
) -> dict[str, float]:
    """Score a finished run on a split of its own data (test, or validation where there is none) or on `data`.

    Metrics are named as in the run folder: test_accuracy, eval_accuracy for validation and for other data.
    """
    if data is not None and split is not None:
        problem = Problem(where="evaluate", found="both data and split", expected="one of them", hint="--data FILE")
        raise UsageError(problem)
    predictor = load(run, overrides)
    if data is not None:
        return predictor.score(read_labelled(predictor.recipe, TASKS, stored(data) if is_rows(data) else data, "data"))
    _check_own_addresses(predictor)
    rows = _own_split(predictor, split)
    metrics, name = predictor.score(rows), rows.name
    return {key.replace("eval_", f"{RESULT_PREFIX[name]}_", 1): value for key, value in metrics.items()}


def _check_own_addresses(predictor: Predictor) -> None:
    """UsageError where a run that was made elsewhere would have us open addresses on the network."""
    made_here = cache_folder(MADE_HERE)
    ids = {path.name for path in made_here.iterdir()} if made_here.is_dir() else set()
    if read_json(predictor.folder.environment).get("run_id") in ids:  # a stranger's id may be a path, such as "."
        return
    data = predictor.recipe.data
    given = (data.train, data.validation, data.test)
    specs = [spec for one in given for spec in ([one] if isinstance(one, str) else one or [])]
    address = next(filter(is_remote, specs), None)
    if address is not None:
        found = f"{address}, which the recipe of a run from another machine names"
        hint = f"--data {shlex.quote(address)}, if you trust it"
        expected = "rows of this machine, or an address that you give"
        raise UsageError(Problem(where=f"run {predictor.folder.path}", found=found, expected=expected, hint=hint))


def _own_split(predictor: Predictor, asked: str | None) -> Split:
    """The rows of a split of the run's own data, the very ones that it was scored on."""
    recipe, folder = predictor.recipe, predictor.folder
    splits = read_json(folder.data_report)["splits"]
    names = [name for name, about in splits.items() if not about["is_sample"]]
    name = asked or (TEST if TEST in names else VALIDATION)
    if name not in names:
        expected = f"one of {', '.join(names)}"
        raise UsageError(Problem(where="--split", found=repr(name), expected=expected, hint="--data FILE"))
    return read_kept(recipe, TASKS, name, splits[name], folder.path)


def predict(
    run: str | Path,
    texts: Any = None,
    *,
    data: Any = None,
    output: str | Path | None = None,
    overrides: Overrides = (),
) -> list[Prediction]:
    """Predict texts (pairs of texts, questions with contexts) or the rows of `data`, in order.

    With `output` they are also written to this file, as its ending says: .csv, .tsv, .jsonl, .json or .parquet.
    """
    if output is not None:
        predictions.check_ending(Path(output))
    rows, made = _predicted(run, texts, data, overrides)
    found = list(made)
    if output is not None:
        predictions.write(Path(output), found, rows)
    return found


def write_predictions(
    run: str | Path, texts: Any = None, *, data: Any = None, output: str | Path, overrides: Overrides = ()
) -> int:
    """As `predict`, written one by one, so that memory does not grow with their number; returns how many there were."""
    predictions.check_ending(Path(output))
    rows, made = _predicted(run, texts, data, overrides)
    return predictions.write(Path(output), made, rows)


def iter_predictions(
    run: str | Path,
    texts: Any = None,
    *,
    data: Any = None,
    overrides: Overrides = (),
) -> Iterator[Prediction]:
    """As `predict`, each prediction made when it is asked for, so that memory does not grow with their number."""
    return _predicted(run, texts, data, overrides)[1]


def _predicted(run: str | Path, texts: Any, data: Any, overrides: Overrides) -> tuple[Rows, Iterator[Prediction]]:
    """What is asked, and the answers."""
    if (texts is None) == (data is None):
        raise UsageError(
            Problem(
                where="predict",
                found="both texts and data" if data else "neither texts nor data",
                expected="one",
                hint='fasttune predict RUN "some text", or --data FILE',
            )
        )
    predictor = load(run, overrides)
    if data is not None:
        split = read_unlabelled(predictor.recipe, TASKS, stored(data) if is_rows(data) else data)
        return split.rows, predictor.predict_rows(split.rows, split.where)
    rows = predictor.task.rows_of(texts)
    return rows, predictor.predict_rows(rows, "texts")


def build(definition: str | Path, output: str | Path, repository: str | None = None) -> Built:
    """Make the data set that a YAML file defines, and write it to a new folder as Parquet with a card.

    `repository`: also upload it to the hub as this data set, such as "user/reviews"; HF_TOKEN must be set.
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

    `split`: of a data set that has several; None: its training rows. `tokenizer`: the model whose tokens are shown too,
    such as "embedded". `overrides`: how to read, such as ["data.encoding=cp1252"].
    """
    spec = stored(data) if is_rows(data) else data
    recipe = load_recipe({"data": {"train": spec}}, overrides)
    source = rows_to_see(spec, split, recipe)
    rows = sample_rows(source.dataset, num_rows, seed)
    tokens = None
    if tokenizer is not None:
        from fasttune.training.model import load_tokenizer

        task, loaded = task_of(source.dataset.column_names, TASKS) or TASKS[recipe.task], load_tokenizer(tokenizer)
        tokens = tokens_of(rows, task, recipe.data.columns.model_dump(), loaded)
    return Preview(source.description, source.notes, rows, tokens)
