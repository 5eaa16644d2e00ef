"""The names of the files in a run folder, and how they are written; no other module knows them.

The run folder is the only thing between training and everything after it. Every file is written beside its place and
renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from fasttune.errors import EnvironmentProblem, Problem, UsageError
from fasttune.security.paths import STAGED, first_link, new_file
from fasttune.security.text import json_text

DEFAULT_PARENT = Path("runs")
ON_WINDOWS = os.name == "nt"
RESULT_PREFIX = {"train": "train", "validation": "eval", "test": "test"}


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run; at its root lies a plain Hugging Face model."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def data_report(self) -> Path:
        return self.path / "data_report.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def all_results(self) -> Path:
        return self.path / "all_results.json"

    @property
    def checksums(self) -> Path:
        """Of the model's files: name -> sha256."""
        return self.path / "checksums.json"

    def results(self, prefix: str) -> Path:
        """`prefix`: train, eval or test."""
        return self.path / f"{prefix}_results.json"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.jsonl"

    def predictions_as(self, prefix: str, name: str) -> Path:
        """The same in another form that is usual for the task, such as eval_nbest_predictions.json."""
        return self.path / "predictions" / f"{prefix}_{name}.json"

    def hang_report(self, rank: int) -> Path:
        return self.path / f"hang-{rank}.txt"

    @property
    def lock(self) -> Path:
        """There while a process trains in the folder."""
        return self.path / ".lock"

    @property
    def is_empty(self) -> bool:
        """Not there, or as a process left it that was killed before it wrote anything."""
        return not self.path.exists() or {path.name for path in self.path.iterdir()} <= {self.lock.name}

    @property
    def is_run(self) -> bool:
        return self.recipe.exists()

    @property
    def is_finished(self) -> bool:
        """The results of a run are written last."""
        return self.all_results.exists()

    def write_results(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """`results`: train, eval or test -> metrics. The file of all of them comes last and ends the run."""
        for prefix, metrics in results.items():
            write_json(self.results(prefix), metrics)
        write_json(self.all_results, {key: value for metrics in results.values() for key, value in metrics.items()})


@contextmanager
def staged(path: Path) -> Iterator[TextIO]:
    """A file for UTF-8 text: when the block ends `path` holds all of it, or what it held before if that fails."""
    with staged_bytes(path) as file:
        text = TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()


@contextmanager
def staged_bytes(path: Path) -> Iterator[BinaryIO]:
    """As `staged`, for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        yield file


def write_text(path: Path, text: str) -> None:
    with staged(path) as file:
        file.write(text)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(content: Any) -> Any:
    """The same with null for numbers that are not finite, which JSON does not know."""
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list | tuple) else content


def write_json(path: Path, content: Any) -> None:
    write_text(path, json_text(plain(content), indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as they come; returns how many there were."""
    count = 0
    with staged(path) as file:
        for row in rows:
            file.write(json_text(plain(row)) + "\n")
            count += 1
    return count


def numbered(stem: str, parent: Path) -> Iterator[Path]:
    """STEM, STEM-2, STEM-3 ..."""
    yield parent / stem
    number = 2
    while True:
        yield parent / f"{stem}-{number}"
        number += 1


def choose(stem: str, output: str | Path | None, resume: bool, parent: Path = DEFAULT_PARENT) -> RunFolder:
    """The folder of a run that is about to start or, with `resume`, to go on.

    Nothing is written yet, but a new folder without `output` is made, so that no other process takes the same name.
    Without `output`: the first free name of STEM, STEM-2 ...; with `resume` the newest unfinished of them, or the
    newest of them at all (a finished run says so when it is opened), or STEM when there is none.
    """
    if output is not None:
        folder = RunFolder(Path(output))
        _check_writable_place(folder, resume)
        return folder
    existing = []
    for path in numbered(stem, parent):
        if not resume:
            with suppress(FileExistsError):
                path.mkdir(parents=True)
                return RunFolder(path)
        elif not path.exists():
            break
        existing.append(RunFolder(path))
    runs = [run for run in existing if run.is_run]
    unfinished = [run for run in runs if not run.is_finished]
    killed_at_once = [run for run in existing if run.is_empty]
    return (unfinished or runs or killed_at_once or [RunFolder(path)])[-1]


def _holder(folder: RunFolder) -> str:
    return "" if ON_WINDOWS else folder.lock.read_text(encoding="utf-8").strip()


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Make the folder and lock it; EnvironmentProblem where another process is at work in it.

    The system's own lock, which goes with its process: none is ever stale. A folder that is no run yet at the end is
    taken away where nothing else is in it.
    """
    from filelock import FileLock, Timeout

    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise EnvironmentProblem(
            Problem(
                where=f"run {folder.path}",
                found=f"a process at work in it ({_holder(folder) or 'unknown'})",
                expected="one process in a folder at a time",
                hint="wait for it or end it, or start another run: --output NEW_NAME",
                code="E513",
            )
        ) from None
    try:
        _tidy(folder)
        if not ON_WINDOWS:  # which lets nobody read or write a file that is locked
            folder.lock.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        if not ON_WINDOWS:  # where the file goes with the lock
            folder.lock.unlink(missing_ok=True)
        lock.release()
        if not folder.is_run:
            with suppress(OSError):
                folder.path.rmdir()
                if folder.path.parent == DEFAULT_PARENT:  # made for this run, if nothing else is in it
                    folder.path.parent.rmdir()


def _tidy(folder: RunFolder) -> None:
    """Take away what a killed process has staged; EnvironmentProblem for a link, which what we write would follow."""
    for path in folder.path.glob(f".*{STAGED}"):
        if path.is_file():  # folders are taken away where they are made anew
            path.unlink()
    link = first_link(folder.path)
    if link is not None:
        expected = "plain files and folders: what is written here would go where the link leads"
        hint = "replace it by what it leads to"
        raise EnvironmentProblem(
            Problem(where=f"run {folder.path}", found=f"a link at {link}", expected=expected, hint=hint, code="E515")
        )


def _check_writable_place(folder: RunFolder, resume: bool) -> None:
    where = f"output folder {folder.path}"
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(Problem(where=where, found="a file", expected="a new folder", hint="--output runs/NAME"))
    if resume or folder.is_empty:
        return
    found = "an earlier run" if folder.is_run else "a folder with other files in it"
    hint = "go on with it: --resume, or start a new one: --output NEW_NAME" if folder.is_run else "--output NEW_NAME"
    raise UsageError(Problem(where=where, found=found, expected="a folder that does not exist yet", hint=hint))


def opened(path: str | Path) -> RunFolder:
    """The run at `path`; EnvironmentProblem when there is none or it has no model yet."""
    folder = RunFolder(Path(path))
    where = f"run {folder.path}"
    if not folder.is_run:
        found = "a folder without recipe.yaml" if folder.path.is_dir() else "nothing at this path"
        runs = sorted(str(run.parent) for run in DEFAULT_PARENT.glob("*/recipe.yaml"))
        hint = f"the runs here: {', '.join(runs[-5:])}" if runs else "train one first: fasttune train quickstart"
        raise EnvironmentProblem(Problem(where=where, found=found, expected="a run folder of fasttune", hint=hint))
    if not folder.weights.exists():
        raise EnvironmentProblem(
            Problem(
                where=where,
                found="a run that has not finished",
                expected="a run with model.safetensors",
                hint=f"finish it: fasttune train {folder.recipe} --output {folder.path} --resume",
            )
        )
    return folder
