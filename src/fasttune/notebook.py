"""`fit` in several processes, from a notebook."""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fasttune import api, distributed
from fasttune.errors import Error, as_json, from_json
from fasttune.recipe import Recipe
from fasttune.run_folder import choose, read_json, write_json


def notebook_fit(
    recipe: api.RecipeSource, num_processes: int, *, output: str | Path | None = None, resume: bool = False, **how: Any
) -> api.Run:
    """`fit` in `num_processes` processes, one for each device, from a notebook; returns the run.

    accelerate's notebook_launcher starts them as copies of this process. So no cell may have used the devices before,
    nor trained on a CPU: begin in a fresh kernel. Arguments and errors are those of `fit`; progress is shown here.

    >>> run = fasttune.notebook_fit("reviews.csv", num_processes=2)  # doctest: +SKIP
    """
    from accelerate import notebook_launcher
    from accelerate.state import AcceleratorState

    made, name = api.recipe_of(recipe, how.pop("overrides", ()))
    path = choose(name, output or made.output.dir, resume).path
    AcceleratorState._reset_state(reset_partial_state=True)  # the launcher refuses to start beside an older one
    with socket.socket() as anybody, tempfile.TemporaryDirectory() as folder:
        anybody.bind(("127.0.0.1", 0))
        port = anybody.getsockname()[1]
        anybody.close()
        given = (made, {"output": path, "resume": resume, **how}, Path(folder))
        try:
            notebook_launcher(_fit_in_notebook, given, num_processes=num_processes, use_port=str(port))
        except Exception:
            if not any(Path(folder).iterdir()):
                raise
        found = read_json(min(Path(folder).iterdir()))  # the main process's, or else the first that failed by itself
    if "kind" in found:
        raise from_json(found)
    return api.Run(**{**found, "folder": path})


def _fit_in_notebook(recipe: Recipe, how: dict[str, Any], folder: Path) -> None:
    """What each process does; it leaves an error in a file of its own, the main one the run."""
    outcome = folder / f"{int(os.environ['RANK']):06}.json"
    try:
        run = api.fit(recipe, **how)
    except Error as error:
        if not error.is_told_elsewhere:
            write_json(outcome, as_json(error))
        raise
    if distributed.is_main():
        write_json(outcome, {**asdict(run), "folder": str(run.folder)})
