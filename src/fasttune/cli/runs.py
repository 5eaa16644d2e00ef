"""Commands for finished runs: `evaluate`, `predict`, `compare`, `report`, `serve`, `export`, `push`."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fasttune.cli import results
from fasttune.cli.app import (
    Json,
    OverrideArguments,
    Quiet,
    RunFolderArgument,
    app,
    print_json,
    quiet_libraries,
)
from fasttune.errors import EnvironmentProblem, Problem, UsageError
from fasttune.runs.folder import open_run
from fasttune.security.text import write_line

SETTING = re.compile(r"(data|preprocessing|training|evaluation|output|tracking|search)\.[a-z_.]+=")


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
    quiet_libraries()
    open_run(run)
    from fasttune import api

    metrics = api.evaluate(run, data=data, split=split, overrides=overrides or ())
    if as_json:
        print_json(metrics)
    else:
        results.print_metrics(metrics)


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
    quiet_libraries()
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
            print_json({"output": str(output), "num_rows": number}, indent=None)
        else:
            write_line(f"wrote {number:,} predictions to {output}", sys.stderr)
        return
    from_file = data is not None
    predictions = api.iter_predictions(run, inputs or None, data=data, overrides=settings, with_inputs=from_file)
    if as_json:
        for prediction in predictions:
            print_json(prediction, indent=None)
    else:
        results.print_predictions(predictions, questions or inputs)


def paired(option: str, first: list[str], second: list[str], found: str, expected: str) -> list[tuple[str, str]]:
    if len(first) != len(second):
        found = f"{len(first)} {found.format(len(second))}"
        raise UsageError(Problem(where=option, found=found, expected=expected))
    return list(zip(first, second, strict=True))


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
    quiet_libraries()
    from fasttune import api

    compared = api.compare(*runs, split=split, html=html)
    if as_json:
        print_json([one.as_json() for one in compared])
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
    quiet_libraries()
    open_run(run)
    from fasttune import api

    path = api.write_report(run, language=language, data=data, progress=not quiet)
    if as_json:
        print_json({"report": str(path)})
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
    quiet_libraries()
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
        print_json({"address": address, "runs": {name: str(path) for name, path in named.items()}}, indent=None)
        sys.stdout.flush()
    else:
        write_line(address, sys.stderr)
    server.serve(named, host=host, port=port, workers=workers, allowed_hosts=allow_host or (), examples=examples)


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
    quiet_libraries()
    open_run(run)
    from fasttune import api

    found = api.export_run(run, formats or ["onnx"], output=output, data=data, most_lost=most_lost, progress=not quiet)
    if as_json:
        print_json(found.as_json())
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
    quiet_libraries()
    open_run(run)
    from fasttune import api

    address = api.push(run, repository, export=export, with_report=with_report, public=public)
    if as_json:
        print_json({"address": address})
    else:
        write_line(address)
