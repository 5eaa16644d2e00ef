"""Commands for data sets and recipes: `show`, `build`, `init`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from fasttune.cli import results
from fasttune.cli.app import (
    Json,
    OverrideArguments,
    app,
    print_json,
    quiet_libraries,
)
from fasttune.errors import Problem, UsageError
from fasttune.security.text import write_line


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
    quiet_libraries()
    from fasttune import api
    from fasttune.tasks.preview import as_json as rows_as_json
    from fasttune.tasks.preview import print_rows

    tokenizer = model if tokens else None
    preview = api.show(data, num_rows=sample, seed=seed, split=split, tokenizer=tokenizer, overrides=overrides or ())
    if as_json:
        for row in rows_as_json(preview):
            print_json(row, indent=None)
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
    quiet_libraries()
    from fasttune import api

    built = api.build(definition, output, push)
    if as_json:
        rows = {name: split.num_rows for name, split in built.splits.items()}
        print_json({"folder": str(output), "num_rows": rows, "steps": list(built.steps)})
    else:
        results.print_built(built, output)


@app.command()
def init(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK] DATA [key=value]...", help="A task if the data leaves it open, and a data file."
        ),
    ] = None,
    arguments: Annotated[
        Path | None,
        typer.Option("--from", help="A JSON file with the settings of transformers' TrainingArguments or its scripts."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a recipe for a data file, with what the file shows and the usual settings as comments.

    fasttune init reviews.csv > recipe.yaml

    fasttune init reviews.csv --from training_args.json > recipe.yaml

    At a terminal it asks for the data file if you name none.
    """
    quiet_libraries()
    from fasttune.recipe.types import TASK_NAMES
    from fasttune.training.draft import draft

    given = list(words or ())
    task = given.pop(0) if given and given[0] in TASK_NAMES else None
    overrides = [word for word in given if re.match(r"[a-z_.]+=", word)]
    named = [word for word in given if word not in overrides]
    if not named and sys.stdin.isatty():
        named = [typer.prompt("Data file", err=True)]
    if len(named) != 1:
        found = f"{len(named)} data files" if named else "no data file"
        raise UsageError(Problem(where="init", found=found, hint="fasttune init reviews.csv > recipe.yaml"))
    text = draft(named[0], task=task, arguments=arguments, overrides=overrides)
    if as_json:
        print_json({"recipe": text})
    else:
        write_line(text, end="")
