"""The command line: runs a command, prints its error, and returns the exit code.

Data goes to stdout, everything else to stderr. Commands import heavy libraries themselves, so that help is instant.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict

# In the order in which help lists them.
from fasttune.cli import training, runs, data, about  # isort: skip  # noqa: F401
from fasttune.cli.app import CONTEXT, app, ignore_closed_stdout, print_error, print_json
from fasttune.errors import DataError, EnvironmentProblem, Error, Problem
from fasttune.security.secrets import note_command
from fasttune.security.text import write_line

HINTED = re.compile(r"(task|problem|model|[a-z]+\.[a-z_.]+)=.+")  # a setting in a hint

__all__ = ["CONTEXT", "app", "run"]


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
            print_error(f"error: {error}")
            line = _line_to_type(arguments, error) if isinstance(error, DataError) else ""
            if line:
                print_error(f"  type: {line}")
        return error.exit_code
    except OSError as error:
        if error.errno is None:
            return _report_bug()
        # A full disk, a folder instead of a file, missing permissions: no bug, so no traceback.
        where, found = str(error.filename2 or error.filename or "a file"), error.strerror or type(error).__name__
        problem = Problem(code="E510", where=where, found=found, expected="a path that can be read and written")
        _print_error_as_json(arguments, EnvironmentProblem.exit_code, (problem,))
        print_error(f"error: {problem}")
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
        with ignore_closed_stdout():
            print_json({"error": {"exit_code": exit_code, "problems": found}}, indent=None)


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
