"""Commands that train: `train`, `search`, `lr-range`, `check`, `labels`, `reproduce`."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fasttune.cli import results
from fasttune.cli.app import (
    Json,
    OverrideArguments,
    Quiet,
    RecipeArgument,
    RunFolderArgument,
    app,
    ignore_closed_stdout,
    print_error,
    print_json,
    quiet_libraries,
)
from fasttune.errors import Problem, UsageError
from fasttune.parallel import collectives
from fasttune.runs.folder import RunFolder, open_run


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
    quiet_libraries()
    if not resume:  # resuming a finished run does not need its data
        refuse_wrong_input(recipe, overrides)
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
    with ignore_closed_stdout():
        if as_json:
            print_json({"run": str(run.folder), "reason": run.reason, **run.metrics})
        elif run.signal is None:
            results.print_run(run.folder, run.metrics, run.example)
    if run.signal is not None:
        place = ["--output", str(run.folder)] if output is not None or RunFolder(run.folder).is_run else []
        command = shlex.join(["fasttune", "train", recipe, *(overrides or ()), *place, "--resume"])
        print_error(f"{run.reason}. Resume with: {command}")
        raise typer.Exit(128 + run.signal)


def refuse_wrong_input(recipe: str, overrides: list[str] | None) -> None:
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
        return launch.with_restarts(arguments, restarts, print_error)
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
    quiet_libraries()
    refuse_wrong_input(recipe, overrides)
    from fasttune import api

    found = api.search(recipe, output=output, resume=resume, overrides=overrides or (), progress=not quiet)
    with ignore_closed_stdout():
        if as_json:
            trials = [{**asdict(trial), "folder": str(trial.folder)} for trial in found.trials]
            print_json({**asdict(found), "folder": str(found.folder), "trials": trials})
        elif found.signal is None:
            results.print_found(found)
    if found.signal is not None:
        command = shlex.join(
            ["fasttune", "search", recipe, *(overrides or ()), "--output", str(found.folder), "--resume"]
        )
        print_error(f"interrupted. Resume with: {command}")
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
    quiet_libraries()
    refuse_wrong_input(recipe, overrides)
    from fasttune import api

    found = api.lr_range(recipe, output=output, overrides=overrides or (), progress=not quiet)
    if as_json:
        print_json({**asdict(found), "files": [str(path) for path in found.files]})
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
    quiet_libraries()
    refuse_wrong_input(recipe, overrides)
    from fasttune import api

    checked = api.check(recipe, overrides=overrides or (), progress=not quiet)
    if as_json:
        print_json(checked.as_json())
    else:
        results.print_checked(checked)


@app.command()
def labels(
    run: RunFolderArgument,
    folds: Annotated[int, typer.Option("--folds", help="Models, each trained without one part of the rows.")] = 3,
    max_time: Annotated[str | None, typer.Option("--max-time", help="For all folds together, such as 20m.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Rank the training labels by how little they fit, and write them to RUN/labels.csv to correct."""
    quiet_libraries()
    open_run(run)
    from fasttune import api

    ranked, path = api.rank_labels(run, folds=folds, max_time=max_time, progress=not quiet)
    if as_json:
        print_json([asdict(one) for one in ranked])
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
    quiet_libraries()
    open_run(run)
    from fasttune import api

    found = api.reproduce(run, output=output)
    if as_json:
        print_json(found.as_json())
    else:
        results.print_reproduced(found)
