"""The command line: parses arguments, calls the API, prints, and returns the exit code.

Data goes to stdout, everything else to stderr. Commands import heavy libraries themselves, so that help is instant.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fasttune import __version__
from fasttune.cli import results
from fasttune.errors import DataError, EnvironmentProblem, Error, Problem, UsageError
from fasttune.parallel import collectives
from fasttune.runs.folder import RunFolder, open_run, plain
from fasttune.security.addresses import go_offline
from fasttune.security.secrets import note_command
from fasttune.security.text import json_text, write_line
from fasttune.training import signals

SETTING = re.compile(r"(data|preprocessing|training|evaluation|output|tracking|search)\.[a-z_.]+=")
HINTED = re.compile(r"(task|problem|model|[a-z]+\.[a-z_.]+)=.+")  # a setting in a hint
CONTEXT = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="fasttune",
    help="Fine-tune a Transformer encoder on your own texts and get an evaluated, saved model.",
    epilog="Start with: fasttune train quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE|DATA", help="A recipe (a file or a shipped name), or a data file.")
]
RunFolderArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/quickstart.")]
OverrideArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings, such as training.learning_rate=3e-5.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def _version(wanted: bool) -> None:
    if wanted:
        write_line(__version__)
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not use the network: read models and data from disk and caches.")
    ] = False,
) -> None:
    """Fine-tune a Transformer encoder on your own texts and get an evaluated, saved model."""
    if offline:
        go_offline()


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run folder (default: runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest intact checkpoint.")] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="With --resume: accept changed settings, such as the learning rate.")
    ] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Number of processes, one per device.")] = 1,
    restarts: Annotated[
        int, typer.Option("--restarts", min=0, help="Restart up to N times if the process is killed.")
    ] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate and save a model.

    fasttune train quickstart

    fasttune train reviews.csv training.num_train_epochs=2
    """
    _quiet_libraries()
    if not resume:  # resuming a finished run does not need its data
        _refuse_early(recipe, overrides)
    if restarts or processes > 1:
        flags = {"--resume": resume, "--allow-changes": allow_changes, "--quiet": quiet, "--json": as_json}
        options = {"--output": output, "--processes": processes if restarts and processes > 1 else None}
        given = [recipe, *(overrides or ()), *(flag for flag, is_set in flags.items() if is_set)]
        given += [word for option, value in options.items() if value is not None for word in (option, str(value))]
        raise typer.Exit(_run_in_subprocess(["train", *given], processes, restarts))
    from fasttune import api

    run = api.fit(
        recipe,
        output=output,
        resume=resume,
        allow_changes=allow_changes,
        overrides=overrides or (),
        progress=not quiet,
    )
    if not collectives.is_main():
        raise typer.Exit(0 if run.signal is None else 128 + run.signal)
    with _ignore_closed_stdout():
        if as_json:
            _print_json({"run": str(run.folder), "reason": run.reason, **run.metrics})
        elif run.signal is None:
            results.print_run(run.folder, run.metrics, run.example)
    if run.signal is not None:
        place = ["--output", str(run.folder)] if output is not None or RunFolder(run.folder).is_run else []
        command = shlex.join(["fasttune", "train", recipe, *(overrides or ()), *place, "--resume"])
        _print_error(f"{run.reason}. Resume with: {command}")
        raise typer.Exit(128 + run.signal)


def _refuse_early(recipe: str, overrides: list[str] | None) -> None:
    """Refuse a wrong recipe or file at once, before the seconds in which torch is imported."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return  # ranks refuse together in `api.fit`; one that exits here would leave the others waiting
    from fasttune.data.precheck import refuse_early

    refuse_early(recipe, overrides or ())


def _run_in_subprocess(arguments: list[str], processes: int, restarts: int) -> int:
    """Run `fasttune ARGUMENTS` in child processes; returns the exit code."""
    from fasttune.training import launch

    if restarts and "--output" not in arguments:
        found, hint = "restarting needs a fixed run folder", "add --output runs/NAME"
        raise UsageError(Problem(where="--restarts", found=found, hint=hint))
    if processes > 1 and "WORLD_SIZE" in os.environ:
        found = "a launcher has already started the processes"
        raise UsageError(Problem(where="--processes", found=found, hint="remove --processes"))
    if restarts:
        return launch.with_restarts(arguments, restarts, _print_error)
    return launch.with_processes(arguments, processes)


@app.command()
def search(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run folder (default: runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a search that was interrupted.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train with different settings, and keep the best model.

    fasttune search reviews.csv search.num_trials=10

    The settings to vary are those of `search.ranges`. Trials are compared on the validation rows; the best model alone
    is scored on the test rows.
    """
    _quiet_libraries()
    _refuse_early(recipe, overrides)
    from fasttune import api

    found = api.search(recipe, output=output, resume=resume, overrides=overrides or (), progress=not quiet)
    with _ignore_closed_stdout():
        if as_json:
            trials = [{**asdict(trial), "folder": str(trial.folder)} for trial in found.trials]
            _print_json({**asdict(found), "folder": str(found.folder), "trials": trials})
        elif found.signal is None:
            results.print_found(found)
    if found.signal is not None:
        command = shlex.join(
            ["fasttune", "search", recipe, *(overrides or ()), "--output", str(found.folder), "--resume"]
        )
        _print_error(f"interrupted. Resume with: {command}")
        raise typer.Exit(128 + found.signal)


@app.command(name="lr-range")
def lr_range(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the figures and a plot to this folder.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find a learning rate: train while it rises, and see where the loss falls fastest.

    fasttune lr-range reviews.csv --output reviews-lr
    """
    _quiet_libraries()
    _refuse_early(recipe, overrides)
    from fasttune import api

    found = api.lr_range(recipe, output=output, overrides=overrides or (), progress=not quiet)
    if as_json:
        _print_json({**asdict(found), "files": [str(path) for path in found.files]})
    else:
        results.print_lr_range(found)


@app.command()
def check(
    recipe: RecipeArgument,
    overrides: OverrideArguments = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check recipe, data and model, and forecast time and memory, without training.

    fasttune check reviews.csv

    Data that cannot be trained on is an error (exit code 4). Data problems that may harm the model are warnings:
    repeated rows, rows in two splits, texts with two labels, truncated texts, and more.
    """
    _quiet_libraries()
    _refuse_early(recipe, overrides)
    from fasttune import api

    checked = api.check(recipe, overrides=overrides or (), progress=not quiet)
    if as_json:
        _print_json(checked.as_json())
    else:
        results.print_checked(checked)


@app.command()
def evaluate(
    run: RunFolderArgument,
    overrides: OverrideArguments = None,
    data: Annotated[str | None, typer.Option("--data", help="Other labelled rows: a file, glob or hub id.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="A split of the run's own data: train, validation or test.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run on its test split, another split, or other data."""
    _quiet_libraries()
    open_run(run)
    from fasttune import api

    metrics = api.evaluate(run, data=data, split=split, overrides=overrides or ())
    if as_json:
        _print_json(metrics)
    else:
        results.print_metrics(metrics)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of finished runs.")],
    split: Annotated[str | None, typer.Option("--split", help="validation or test (default: test, if scored).")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the comparison as a page to this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare finished runs on the rows that all of them scored, each with the first."""
    _quiet_libraries()
    from fasttune import api

    compared = api.compare(*runs, split=split, html=html)
    if as_json:
        _print_json([one.as_json() for one in compared])
    else:
        results.print_compared(compared)


@app.command()
def report(
    run: RunFolderArgument,
    language: Annotated[str, typer.Option("--lang", help="en or zh.")] = "en",
    data: Annotated[str | None, typer.Option("--data", help="Other rows, to compare with the training rows.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write report.html of a finished run again."""
    _quiet_libraries()
    open_run(run)
    from fasttune import api

    path = api.write_report(run, language=language, data=data, progress=not quiet)
    if as_json:
        _print_json({"report": str(path)})
    else:
        write_line(str(path))


@app.command()
def serve(
    runs: Annotated[list[str], typer.Argument(metavar="RUN|NAME=RUN ...", help="Run folders; several need names.")],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, each with the models and a queue.")] = 1,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name by which clients may call; repeat it for more.")
    ] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Show validation rows on the page also beyond loopback.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve predictions over HTTP, with a page to try them at /.

    fasttune serve runs/quickstart

    fasttune serve stars=runs/reviews entities=runs/ner --port 8080

    Beyond loopback it needs a token in the environment variable FASTTUNE_TOKEN.
    """
    _quiet_libraries()
    named = _named_runs(runs)
    for path in named.values():
        open_run(path)
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        problem = Problem(
            where="serve",
            found="fastapi and uvicorn are not installed",
            hint="pip install fastapi uvicorn prometheus-client",
        )
        raise EnvironmentProblem(problem)
    from fasttune.serving import server

    address = f"http://{'localhost' if host == '127.0.0.1' else host}:{port}"
    if as_json:
        _print_json({"address": address, "runs": {name: str(path) for name, path in named.items()}}, indent=None)
        sys.stdout.flush()
    else:
        write_line(address, sys.stderr)
    server.serve(named, host=host, port=port, workers=workers, allowed_hosts=allow_host or (), examples=examples)


@app.command()
def export(
    run: RunFolderArgument,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="onnx, onnx-int8, openvino, openvino-int8 or fastest; repeat it for several (default: onnx).",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new folder (default: RUN-FORMAT, or RUN-export).")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Labelled rows to compare on, instead of the run's held-out ones.")
    ] = None,
    most_lost: Annotated[
        float, typer.Option("--most-lost", min=0, help="Points of the score that a format may lose.")
    ] = 1.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Export a run to ONNX or OpenVINO, compare it with the weights, and time both on this CPU.

    fasttune export runs/quickstart --format onnx-int8

    The folder can be used in place of the run: fasttune serve runs/quickstart-onnx-int8
    """
    _quiet_libraries()
    open_run(run)
    from fasttune import api

    found = api.export_run(run, formats or ["onnx"], output=output, data=data, most_lost=most_lost, progress=not quiet)
    if as_json:
        _print_json(found.as_json())
    else:
        results.print_export(found)


@app.command()
def push(
    run: RunFolderArgument,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="The name on the hub, such as user/reviews.")],
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Also upload the files of this export, for transformers.js and others."),
    ] = None,
    with_report: Annotated[
        bool, typer.Option("--with-report", help="Also upload report.html, which quotes rows of the data.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a run to the Hugging Face hub: model, tokenizer, settings and card, and no row of the data.

    fasttune push runs/reviews ann/reviews

    Others load it with fasttune.load("ann/reviews"). The token comes from the environment variable HF_TOKEN.
    """
    _quiet_libraries()
    open_run(run)
    from fasttune import api

    address = api.push(run, repository, export=export, with_report=with_report, public=public)
    if as_json:
        _print_json({"address": address})
    else:
        write_line(address)


def _named_runs(runs: Sequence[str]) -> dict[str, Path]:
    """NAME=RUN, or RUN under the name of its folder; UsageError for a name that is not one part of a path."""
    named: dict[str, Path] = {}
    for given in runs:
        name, has_name, path = given.partition("=")
        own = Path(path if has_name else given)
        name = name if has_name else own.resolve().name
        taken = ("predict", "words", "health", "ready", "info", "metrics", "page.js", "page.css", "page.json")
        if not re.fullmatch(r"[\w.-]+", name, re.ASCII) or name in named or name in taken:
            found = f"the name {name!r}, which is used twice" if name in named else f"the name {name!r}"
            expected = "letters, digits, '.', '_' and '-', and another name for each run"
            raise UsageError(Problem(where=f"serve {given}", found=found, expected=expected, hint=f"NAME={own}"))
        named[name] = own
    return named


@app.command()
def labels(
    run: RunFolderArgument,
    folds: Annotated[int, typer.Option("--folds", help="Models, each trained without one part of the rows.")] = 3,
    max_time: Annotated[str | None, typer.Option("--max-time", help="For all folds together, such as 20m.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Rank the training labels by how little they fit, and write them to RUN/labels.csv to correct."""
    _quiet_libraries()
    open_run(run)
    from fasttune import api

    ranked, path = api.rank_labels(run, folds=folds, max_time=max_time, progress=not quiet)
    if as_json:
        _print_json([asdict(one) for one in ranked])
    else:
        results.print_ranked_labels(ranked, path)


@app.command()
def reproduce(
    run: RunFolderArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new run (default: runs/NAME-again).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train again with the recipe and the data of a run, and compare weights and scores."""
    _quiet_libraries()
    open_run(run)
    from fasttune import api

    found = api.reproduce(run, output=output)
    if as_json:
        _print_json(found.as_json())
    else:
        results.print_reproduced(found)


@app.command()
def predict(
    run: RunFolderArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts to predict; '-' reads one per line from stdin."),
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--text-pair", help="The second text of a pair; repeat it for each text.")
    ] = None,
    questions: Annotated[list[str] | None, typer.Option("--question", help="A question; may be repeated.")] = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option("--context", help="The text that contains the answer: one for all questions, or one for each."),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Rows to predict: a file, glob or hub id.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write predictions to a .csv, .tsv, .jsonl, .json, .parquet or .xlsx file."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict labels of texts, answers to questions, or the rows of a file.

    fasttune predict runs/quickstart "the room was not bad at all"

    fasttune predict runs/mrpc "It rains." --text-pair "Rain falls."

    fasttune predict runs/squad --question "Who came?" --context "Ann came at noon."

    Arguments such as training.precision=fp32 are settings, not texts.
    """
    _quiet_libraries()
    settings = [text for text in texts or () if SETTING.match(text)]
    texts = [text for text in texts or () if not SETTING.match(text)]
    if texts == ["-"]:
        texts = [line.rstrip("\n") for line in sys.stdin]
    inputs: list[Any] = texts
    if texts and (questions or contexts):
        found = "both texts and --question"
        raise UsageError(Problem(where="predict", found=found, expected="texts, or questions with contexts"))
    if pairs:
        inputs = paired("--text-pair", texts, pairs, "texts and {} second texts", "one for each text")
    elif questions or contexts:
        questions, contexts = questions or [], contexts or []
        contexts *= max(len(questions), 1) if len(contexts) == 1 else 1
        inputs = paired("--context", questions, contexts, "questions and {} contexts", "one, or one for each question")
    open_run(run)
    from fasttune import api

    if output is not None:
        number = api.write_predictions(run, inputs or None, data=data, output=output, overrides=settings)
        if as_json:
            _print_json({"output": str(output), "num_rows": number}, indent=None)
        else:
            write_line(f"wrote {number:,} predictions to {output}", sys.stderr)
        return
    from_file = data is not None
    predictions = api.iter_predictions(run, inputs or None, data=data, overrides=settings, with_inputs=from_file)
    if as_json:
        for prediction in predictions:
            _print_json(prediction, indent=None)
    else:
        results.print_predictions(predictions, questions or inputs)


@app.command()
def show(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, folder, glob, address, hub id, or `starter`.")],
    overrides: OverrideArguments = None,
    sample: Annotated[int, typer.Option("--sample", "-n", help="Number of rows.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed for the choice of rows.")] = 42,
    split: Annotated[
        str | None, typer.Option("--split", help="Which split, if the data has several (default: train).")
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Also show the tokens of each row.")] = False,
    model: Annotated[str, typer.Option("--model", help="The model whose tokenizer --tokens uses.")] = "embedded",
    as_json: Json = False,
) -> None:
    """Show random rows of a data set, with label names, and answers and entities marked.

    fasttune show reviews.csv --sample 10 --tokens
    """
    _quiet_libraries()
    from fasttune import api
    from fasttune.tasks.preview import as_json as rows_as_json
    from fasttune.tasks.preview import print_rows

    tokenizer = model if tokens else None
    preview = api.show(data, num_rows=sample, seed=seed, split=split, tokenizer=tokenizer, overrides=overrides or ())
    if as_json:
        for row in rows_as_json(preview):
            _print_json(row, indent=None)
    else:
        print_rows(preview)


@app.command()
def build(
    definition: Annotated[Path, typer.Argument(metavar="DEFINITION", help="A YAML file that defines a data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to create.")],
    push: Annotated[str | None, typer.Option("--push", help="Also upload it to the hub under this name.")] = None,
    as_json: Json = False,
) -> None:
    """Build a data set from a definition: Parquet files with a card.

    fasttune build reviews.yaml --output reviews

    fasttune train reviews
    """
    _quiet_libraries()
    from fasttune import api

    built = api.build(definition, output, push)
    if as_json:
        rows = {name: split.num_rows for name, split in built.splits.items()}
        _print_json({"folder": str(output), "num_rows": rows, "steps": list(built.steps)})
    else:
        results.print_built(built, output)


@app.command()
def models(
    language: Annotated[str | None, typer.Option("--language", "-l", help="A language code, such as de or zh.")] = None,
    as_json: Json = False,
) -> None:
    """List known models to start from, with size, licence, published scores and estimated speed on this machine.

    fasttune models --language zh
    """
    _quiet_libraries()
    from fasttune.start_models import rows_per_second, start_models

    found = start_models(language)
    speeds = rows_per_second(found)
    if as_json:
        _print_json([{**asdict(model), "rows_per_second": speed} for model, speed in zip(found, speeds, strict=True)])
    else:
        results.print_models(found, speeds)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A recipe to print, as a template for your own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the shipped recipes, or print one: fasttune recipes yelp > my.yaml"""
    from fasttune import recipe

    if as_json:
        _print_json(recipe.shipped() if name is None else {"name": name, "recipe": recipe.shipped_text(name)})
    elif name is not None:
        write_line(recipe.shipped_text(name), end="")
    else:
        results.print_recipes(recipe.shipped())


@app.command()
def env(as_json: Json = False) -> None:
    """Show machine, versions, device and precision, for bug reports."""
    from fasttune.training.environment import describe

    facts = describe()
    if as_json:
        _print_json(facts)
    else:
        results.print_facts(facts)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, disk, caches, memory, device, and a few seconds of training.

    Exits with code 5 if something would prevent training.
    """
    _quiet_libraries()
    from fasttune.cli.doctor import FAILURE, examine

    has_failed = False
    for finding in examine():
        has_failed |= finding.state == FAILURE
        if as_json:
            _print_json(asdict(finding), indent=None)
        else:
            results.print_finding(finding.name, finding.state, finding.found, finding.hint)
    if has_failed:
        raise typer.Exit(EnvironmentProblem.exit_code)


def paired(option: str, first: list[str], second: list[str], found: str, expected: str) -> list[tuple[str, str]]:
    if len(first) != len(second):
        found = f"{len(first)} {found.format(len(second))}"
        raise UsageError(Problem(where=option, found=found, expected=expected))
    return list(zip(first, second, strict=True))


@contextmanager
def _ignore_closed_stdout() -> Iterator[None]:
    """A run that is saved must not fail because nobody reads stdout."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        signals.silence(1)


def _print_error(text: str) -> None:
    """Print to stderr; a closed stderr is no error."""
    try:
        write_line(text, sys.stderr)
    except OSError:
        signals.silence(2)


def _quiet_libraries() -> None:
    """Turn off progress bars and warnings of libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _print_json(content: Any, indent: int | None = 2) -> None:
    write_line(json_text(plain(content), indent))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code (see errors.py). A user's mistake never shows a traceback."""
    note_command(arguments)
    try:
        app(args=list(arguments), prog_name="fasttune")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except Error as error:
        if not error.reported_by_main:
            _print_error_as_json(arguments, error.exit_code, error.problems)
            _print_error(f"error: {error}")
            line = _line_to_type(arguments, error) if isinstance(error, DataError) else ""
            if line:
                _print_error(f"  type: {line}")
        return error.exit_code
    except OSError as error:
        if error.errno is None:
            return _report_bug()
        # A full disk, a folder instead of a file, missing permissions: no bug, so no traceback.
        where, found = str(error.filename2 or error.filename or "a file"), error.strerror or type(error).__name__
        problem = Problem(code="E510", where=where, found=found, expected="a path that can be read and written")
        _print_error_as_json(arguments, EnvironmentProblem.exit_code, (problem,))
        _print_error(f"error: {problem}")
        return EnvironmentProblem.exit_code
    except Exception as error:
        problem = Problem(
            where="fasttune", found=f"a bug: {type(error).__name__}", hint="report it, with `fasttune env`"
        )
        _print_error_as_json(arguments, Error.exit_code, (problem,))
        return _report_bug()
    return 0


def _print_error_as_json(arguments: Sequence[str], exit_code: int, problems: Sequence[Problem]) -> None:
    """One object on stdout, if the command was to print JSON."""
    if "--json" in arguments:
        found = [asdict(problem) for problem in problems]
        with _ignore_closed_stdout():
            _print_json({"error": {"exit_code": exit_code, "problems": found}}, indent=None)


def _line_to_type(arguments: Sequence[str], error: Error) -> str:
    """The command again with the settings that the hints name, quoted for the shell; empty if a hint is no setting."""
    settings: list[str] = []
    for problem in error.problems:
        try:
            parts = shlex.split(problem.hint)
        except ValueError:
            return ""
        if not parts or not all(map(HINTED.fullmatch, parts)):
            return ""
        settings += [part for part in parts if part not in settings]
    names = {setting.partition("=")[0] for setting in settings}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in names]
    words = ["fasttune", *kept, *settings]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _report_bug() -> int:
    """Print the current exception; call it in an except block."""
    write_line(traceback.format_exc(), sys.stderr, end="")
    write_line("This is a bug in fasttune. Please report it with the output of: fasttune env", sys.stderr)
    return Error.exit_code
