"""Commands about fasttune and this machine: `models`, `recipes`, `env`, `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fasttune.cli import results
from fasttune.cli.app import (
    Json,
    app,
    print_json,
    quiet_libraries,
)
from fasttune.errors import EnvironmentProblem
from fasttune.security.text import write_line


@app.command()
def models(
    language: Annotated[str | None, typer.Option("--language", "-l", help="A language code, such as de or zh.")] = None,
    as_json: Json = False,
) -> None:
    """List known models to start from, with size, licence, published scores and estimated speed on this machine.

    fasttune models --language zh
    """
    quiet_libraries()
    from fasttune.start_models import rows_per_second, start_models

    found = start_models(language)
    speeds = rows_per_second(found)
    if as_json:
        print_json([{**asdict(model), "rows_per_second": speed} for model, speed in zip(found, speeds, strict=True)])
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
        print_json(recipe.shipped() if name is None else {"name": name, "recipe": recipe.shipped_text(name)})
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
        print_json(facts)
    else:
        results.print_facts(facts)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, disk, caches, memory, device, and a few seconds of training.

    Exits with code 5 if something would prevent training.
    """
    quiet_libraries()
    from fasttune.cli.doctor import FAILURE, examine

    has_failed = False
    for finding in examine():
        has_failed |= finding.state == FAILURE
        if as_json:
            print_json(asdict(finding), indent=None)
        else:
            results.print_finding(finding.name, finding.state, finding.found, finding.hint)
    if has_failed:
        raise typer.Exit(EnvironmentProblem.exit_code)
