"""The application that all commands belong to, and what they share: arguments, printing, quiet libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fasttune import __version__
from fasttune.runs.folder import plain
from fasttune.security.addresses import go_offline
from fasttune.security.text import json_text, write_line
from fasttune.training import signals

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


@contextmanager
def ignore_closed_stdout() -> Iterator[None]:
    """A run that is saved must not fail because nobody reads stdout."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        signals.silence(1)


def print_error(text: str) -> None:
    """Print to stderr; a closed stderr is no error."""
    try:
        write_line(text, sys.stderr)
    except OSError:
        signals.silence(2)


def quiet_libraries() -> None:
    """Turn off progress bars and warnings of libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def print_json(content: Any, indent: int | None = 2) -> None:
    write_line(json_text(plain(content), indent))
