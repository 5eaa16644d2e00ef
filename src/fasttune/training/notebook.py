"""Launches several ranks from a notebook."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fasttune.errors import Error, as_json, from_json
from fasttune.parallel.collectives import is_main
from fasttune.runs.folder import read_json, write_json


def launch_from_notebook(
    function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], num_processes: int
) -> Any:
    """Call `function(*arguments)` in `num_processes` copies of this process; returns rank 0's result as JSON.

    accelerate's notebook_launcher starts the copies. Raises the Error of rank 0, or of the first rank that has one.
    """
    from accelerate import notebook_launcher
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # the launcher refuses to start while an older state exists
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        given = (function, arguments, Path(folder))
        try:
            notebook_launcher(_run_rank, given, num_processes=num_processes, use_port=str(port))
        except Exception:
            if not any(Path(folder).iterdir()):
                raise
        outcome = read_json(min(Path(folder).iterdir()))  # rank 0's, or that of the first rank that failed on its own
    if "kind" in outcome:
        raise from_json(outcome)
    return outcome


def _run_rank(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], folder: Path) -> None:
    """Runs on each rank: writes an error to a file named by the rank, and on rank 0 the result."""
    file = folder / f"{int(os.environ['RANK']):06}.json"
    try:
        result = function(*arguments)
    except Error as error:
        if not error.reported_by_main:
            write_json(file, as_json(error))
        raise
    if is_main():
        write_json(file, result)
