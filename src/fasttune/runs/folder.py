"""The layout of a run folder, and helpers that read and write its files. No other module knows the file names.

Training passes everything on through the run folder. Every file is written under a temporary name and renamed, so a
reader never sees half a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from fasttune.errors import EnvironmentProblem, Problem, UsageError
from fasttune.runs import hub
from fasttune.security.paths import STAGED, first_link, new_file
from fasttune.security.text import json_text

DEFAULT_PARENT = Path("runs")
ON_WINDOWS = os.name == "nt"
RESULT_PREFIX = {"train": "train", "validation": "eval", "test": "test"}


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run. The folder itself is a standard Hugging Face model."""

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
    def export(self) -> Path:
        """In an export: its format, how close it is to the weights, and how fast. Other folders have no such file."""
        return self.path / "export.json"

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def all_results(self) -> Path:
        return self.path / "all_results.json"

    @property
    def seeds(self) -> Path:
        """The scores of every seed, with mean and spread, if the run has several."""
        return self.path / "seeds.json"

    @property
    def study(self) -> Path:
        """The trials of a search, in SQLite."""
        return self.path / "study.db"

    @property
    def search(self) -> Path:
        """The trials of a search as a table."""
        return self.path / "search.json"

    @property
    def baselines(self) -> Path:
        """What the same rows give without fine-tuning."""
        return self.path / "baselines.json"

    @property
    def calibration(self) -> Path:
        """The temperature of the probabilities, and how honest they were without it."""
        return self.path / "calibration.json"

    @property
    def analysis(self) -> Path:
        """Mistakes, weak slices, shortcuts and drift, for the report."""
        return self.path / "analysis.json"

    @property
    def attributions(self) -> Path:
        """The words that drove the predictions of the mistakes, by row id."""
        return self.path / "attributions.json"

    @property
    def label_ranking(self) -> Path:
        """The training labels ranked by their out-of-fold loss, for people to edit."""
        return self.path / "labels.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """The charts of the report as SVG and PNG files."""
        return self.path / "plots"

    @property
    def checksums(self) -> Path:
        """The sha256 of each model file, by name."""
        return self.path / "checksums.json"

    def results(self, prefix: str) -> Path:
        """`prefix`: train, eval or test."""
        return self.path / f"{prefix}_results.json"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.jsonl"

    def predictions_as(self, prefix: str, name: str) -> Path:
        """The predictions in another common format of the task, such as eval_nbest_predictions.json."""
        return self.path / "predictions" / f"{prefix}_{name}.json"

    def row_sums(self, split: str) -> Path:
        """What each scored row adds to the metrics, for comparisons (tasks/metrics/sums.py)."""
        return self.path / "predictions" / f"{split}.sums.npz"

    def hang_report(self, rank: int) -> Path:
        return self.path / f"hang-{rank}.txt"

    @property
    def lock(self) -> Path:
        """Exists while a process trains in the folder."""
        return self.path / ".lock"

    @property
    def is_empty(self) -> bool:
        """Whether the folder does not exist, or a process was killed before it wrote anything to it."""
        return not self.path.exists() or {path.name for path in self.path.iterdir()} <= {self.lock.name}

    @property
    def is_run(self) -> bool:
        return self.recipe.exists()

    @property
    def is_finished(self) -> bool:
        """Whether the run has its results, which are written last."""
        return self.all_results.exists()

    def write_results(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the metrics by prefix (train, eval, test). all_results.json comes last and marks the run finished."""
        for prefix, metrics in results.items():
            write_json(self.results(prefix), metrics)
        write_json(self.all_results, {key: value for metrics in results.values() for key, value in metrics.items()})


@contextmanager
def staged(path: Path) -> Iterator[TextIO]:
    """Write UTF-8 text atomically: after the block `path` holds all of it, or on failure what it held before."""
    with staged_bytes(path) as file:
        text = TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()


@contextmanager
def staged_bytes(path: Path) -> Iterator[BinaryIO]:
    """Write bytes atomically, as `staged` does for text."""
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
    """Replace numbers that are not finite, which JSON does not have, by None."""
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list | tuple) else content


def write_json(path: Path, content: Any) -> None:
    write_text(path, json_text(plain(content), indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_events(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The events of events.jsonl, as `training/events.py` names them; a line that a kill cut short is left out."""
    if not folder.events.exists():
        return
    with folder.events.open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    yield event


def write_json_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write one JSON row per line; return the number of rows."""
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


def resolve_run_folder(stem: str, output: str | Path | None, resume: bool, parent: Path = DEFAULT_PARENT) -> RunFolder:
    """The folder of a run that is about to start or, with `resume`, to continue.

    With `output`, that folder; UsageError if it cannot be used. Without `output`, the first free name of STEM, STEM-2
    and so on, which is created at once so that no other process takes it. With `resume`, the newest unfinished of these
    folders, else the newest, else STEM.
    """
    if output is not None:
        folder = RunFolder(Path(output))
        _check_output(folder, resume)
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
    never_started = [run for run in existing if run.is_empty]  # killed before anything was written
    return (unfinished or runs or never_started or [RunFolder(path)])[-1]


# Files that `copy_model` leaves behind: a copy cannot be resumed, and whoever copies writes its recipe and results.
NOT_COPIED = ("checkpoints", "mlm", "recipe.yaml", "all_results.json", ".lock")


def copy_model(source: RunFolder, target: RunFolder) -> None:
    """Copy the model, predictions and records of a finished run; the caller writes recipe and results."""
    for path in sorted(source.path.iterdir()):
        if path.name in NOT_COPIED:
            continue
        if path.is_dir():
            shutil.copytree(path, target.path / path.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target.path / path.name)


def _holder(folder: RunFolder) -> str:
    return "" if ON_WINDOWS else folder.lock.read_text(encoding="utf-8").strip()


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Create the folder and lock it; EnvironmentProblem if another process holds the lock.

    The operating system releases the lock when its process ends, so a lock is never stale. If no run was started, the
    folder is removed again, unless it holds other files.
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
                found=f"in use by {_holder(folder) or 'another process'}",
                hint="wait until it ends, stop it, or start another run with --output NEW_NAME",
                code="E513",
            )
        ) from None
    try:
        _tidy(folder)
        if not ON_WINDOWS:  # Windows does not allow reading or writing a locked file
            folder.lock.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        if not ON_WINDOWS:  # Windows deletes the file with the lock
            folder.lock.unlink(missing_ok=True)
        lock.release()
        if not folder.is_run:
            with suppress(OSError):
                folder.path.rmdir()
                if folder.path.parent == DEFAULT_PARENT:  # rmdir leaves it if it holds other runs
                    folder.path.parent.rmdir()


def _tidy(folder: RunFolder) -> None:
    """Remove the staged files of a killed process. EnvironmentProblem for links, which writes would follow."""
    for path in folder.path.glob(f".*{STAGED}"):
        if path.is_file():  # staged folders are removed before they are created again
            path.unlink()
    link = first_link(folder.path)
    if link is not None:
        found = f"{link} is a link, and fasttune does not write through links"
        hint = "replace the link with the file or folder it points to"
        raise EnvironmentProblem(Problem(where=f"run {folder.path}", found=found, hint=hint, code="E515"))


def _check_output(folder: RunFolder, resume: bool) -> None:
    where = f"output folder {folder.path}"
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(Problem(where=where, found="there is a file at this path", hint="--output runs/NAME"))
    if resume or folder.is_empty:
        return
    if folder.is_run:
        found = "it already holds a run"
        hint = "continue that run with --resume, or start a new one with --output NEW_NAME"
    else:
        found = "it already holds other files"
        hint = "--output NEW_NAME"
    raise UsageError(Problem(where=where, found=found, hint=hint))


def open_run(path: str | Path) -> RunFolder:
    """The run at `path`, or of this name on the hub; EnvironmentProblem if there is none, or it has no model yet."""
    where = f"run {Path(path)}"
    is_on_hub = not Path(path).exists() and Path(path).parts[:1] != DEFAULT_PARENT.parts and hub.is_name(path)
    folder = RunFolder(hub.downloaded(Path(path).as_posix()) if is_on_hub else Path(path))
    if is_on_hub and not folder.is_run:
        found, hint = "on the hub, it has no recipe.yaml: fasttune did not upload it", f"train from it: model={path}"
        raise EnvironmentProblem(Problem(where=where, found=found, hint=hint))
    if not folder.is_run:
        found = "the folder is not a run: it has no recipe.yaml" if folder.path.is_dir() else "no such folder"
        runs = sorted(str(run.parent) for run in DEFAULT_PARENT.glob("*/recipe.yaml"))
        hint = f"existing runs: {', '.join(runs[-5:])}" if runs else "train one first: fasttune train quickstart"
        raise EnvironmentProblem(Problem(where=where, found=found, hint=hint))
    if not folder.weights.exists() and not folder.export.exists():
        raise EnvironmentProblem(
            Problem(where=where, found="the run has not finished: it has no model.safetensors", hint=_resume(folder))
        )
    return folder


def open_finished_run(path: str | Path, command: str) -> RunFolder:
    """`open_run`, with UsageError for a run without its results, and for an export: `command` needs the weights."""
    folder = open_run(path)
    if not folder.weights.exists():
        found, hint = "an export has no weights", f"fasttune {command} RUN, with the run that it was made from"
        raise UsageError(Problem(where=f"{command} {folder.path}", found=found, hint=hint))
    if not folder.is_finished:
        found = "the run has not finished"
        if not folder.environment.exists():
            found = "it came from the hub, without the results of its training"
            raise UsageError(Problem(where=f"{command} {path}", found=found, hint="use the run that was uploaded"))
        raise UsageError(Problem(where=f"{command} {folder.path}", found=found, hint=_resume(folder)))
    return folder


def _resume(folder: RunFolder) -> str:
    return f"finish it: fasttune train {folder.recipe} --output {folder.path} --resume"
