"""A copy of a run in object storage, from which any machine goes on: `output.mirror`.

A store of objects has no rename. So a checkpoint's manifest is sent last, what has none is not there, and what came
back is verified like any other. An older copy goes when the newer one is whole.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fasttune.errors import EnvironmentProblem, Problem, require_safe
from fasttune.runs.checkpoint.resume import all_steps
from fasttune.runs.checkpoint.verify import fault
from fasttune.runs.checkpoint.write import MANIFEST, path_of, step_named
from fasttune.runs.folder import RunFolder, read_json
from fasttune.security import addresses
from fasttune.security.paths import inside, new_path

FOLDERS = ("predictions", "tensorboard")  # of a run, beside its checkpoints


@dataclass(frozen=True)
class Mirror:
    """`address`: a folder of its own for this run, as fsspec knows it (s3://bucket/runs/reviews), or a path."""

    address: str
    folder: RunFolder

    @cached_property
    def _place(self) -> tuple[Any, str]:
        require_safe("fsspec")
        import fsspec

        wrong = addresses.refusal(self.address)
        if wrong is not None:
            raise self._problem(*wrong)
        try:
            system, root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise self._problem(str(error), "an address of a file system that is installed") from None
        return system, root.rstrip("/")

    def claim(self, run_id: str) -> None:
        """What is known at the start goes there. EnvironmentProblem where another run or anything else is there, or
        where it cannot be written to.
        """
        try:
            owner = self._owner()
            is_ours = owner == run_id or (owner is None and not self._names())
        except Exception as error:  # each file system has errors of its own
            raise self._problem(in_words(error), "a place that can be read") from None
        if not is_ours:
            found = "other files" if owner is None else "another run"
            raise self._problem(found, "an empty place, or this run's", "another output.mirror, or --resume")
        try:
            self._put_known()
        except Exception as error:
            raise self._problem(in_words(error), "a place that can be written to") from None

    def send(self) -> str | None:
        """Copy what is new, then take away what is no longer kept here; or why that could not be done, in words, since
        training goes on all the same.
        """
        try:
            self._send_checkpoints()
        except Exception as error:  # each file system has errors of its own
            return in_words(error)
        return None

    def _send_checkpoints(self) -> None:
        own = read_json(self.folder.environment)["run_id"]
        if self._owner() not in (own, None):
            raise OSError(f"{self.address} holds another run by now")
        self._put_known()
        mine = all_steps(self.folder.checkpoints)
        # The newest first: where sending takes longer than the time between two saves, older ones are gone before
        # their turn comes, and none would ever arrive.
        for step in reversed(mine):
            if not self._is_there(step):
                try:
                    self._put_checkpoint(step)
                except FileNotFoundError:
                    if path_of(self.folder.checkpoints, step).exists():
                        raise
        for step in self._steps(are_whole=False):
            if step not in mine and step < max(mine, default=0):
                self._take_away(step)

    def send_all(self) -> None:
        """The finished run. Its results come last, as they do in the folder."""
        try:
            self._send_checkpoints()
            files = [path for path in self.folder.path.rglob("*") if path.is_file() and not self._is_hidden(path)]
            last = self.folder.all_results
            for path in sorted(files, key=lambda path: path == last):
                if self.folder.checkpoints not in path.parents:
                    self._put(path)
        except Exception as error:
            raise self._problem(
                in_words(error),
                f"a place for the finished run, which is whole in {self.folder.path}",
                f"copy {self.folder.path} by hand, or the same command with --resume once the place is there",
            ) from error

    def fetch(self) -> str | None:
        """Bring a run to a machine that has none of it, or is behind; what was fetched in words, None where nothing is.

        The recipe comes last: with it the folder is a run.
        """
        system, root = self._place
        recipe = self._there(self.folder.recipe)
        try:
            if not system.exists(recipe) or not self._is_ahead():
                return None
            names = [name for name in self._names() if "/checkpoints/" not in name.removeprefix(root)]
            self._refuse_others({name.removeprefix(root).lstrip("/") for name in names})
            is_finished = system.exists(self._there(self.folder.all_results))
            mine = self._whole_here()
            steps = [step for step in self._steps() if step not in mine and self._fetch_checkpoint(step)]
            for name in sorted(names, key=lambda name: name == recipe) if steps or not self.folder.is_run else ():
                self._get(name, _place_of(self.folder.path, name.removeprefix(root).lstrip("/")))
        except EnvironmentProblem:
            raise
        except Exception as error:
            raise self._problem(in_words(error), "a run that can be read") from error
        if not steps and not mine and self._steps():
            raise self._problem("checkpoints of which none is whole", "one that is", "another output.mirror")
        return "the finished run" if is_finished else f"the run, with the checkpoints of steps {steps}"

    def _is_ahead(self) -> bool:
        """Whether this machine has none of the run, or an older part of it."""
        if not self.folder.is_run:
            return True
        own, newest = read_json(self.folder.environment)["run_id"], max(self._whole_here(), default=0)
        return self._owner() == own and max(self._steps(), default=0) > newest

    def _whole_here(self) -> list[int]:
        """Not what a fetch that was cut has left."""
        steps = all_steps(self.folder.checkpoints)
        return [step for step in steps if fault(path_of(self.folder.checkpoints, step), None) is None]

    def _refuse_others(self, theirs: set[str]) -> None:
        """What a fetch that was cut left behind may be written again; anything else is not ours to write over."""
        if self.folder.is_run:
            return
        mine = {path.relative_to(self.folder.path).as_posix() for path in self.folder.path.rglob("*") if path.is_file()}
        others = {name for name in mine if not name.startswith((".", "checkpoints/"))} - theirs
        if others:
            found = f"{self.folder.path} with {sorted(others)[0]} in it"
            raise self._problem(found, "an empty folder to fetch the run into", "--output NEW_NAME")

    def _fetch_checkpoint(self, step: int) -> bool:
        """Whether it came whole; one that did not is not kept."""
        system, _ = self._place
        target = path_of(self.folder.checkpoints, step)
        target.mkdir(parents=True, exist_ok=True)
        for name in system.ls(self._there(target), detail=False):
            self._get(name, inside(target, name.rpartition("/")[2]))
        if fault(target, None) is None:
            return True
        shutil.rmtree(target)
        return False

    def _get(self, name: str, target: Path) -> None:
        system, _ = self._place
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_path(target) as beside:  # a path: not every file system writes to an open file
            system.get_file(name, str(beside))

    def _owner(self) -> str | None:
        """The id of the run that is there, None where none is."""
        system, _ = self._place
        system.invalidate_cache()
        try:
            return str(json.loads(system.cat_file(self._there(self.folder.environment)))["run_id"])
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        """All files that are there."""
        system, root = self._place
        return sorted(system.find(root)) if system.exists(root) else []

    def _steps(self, are_whole: bool = True) -> list[int]:
        """Of the copies that are there, with a manifest each unless all that was begun is asked for."""
        system, _ = self._place
        remote = self._there(self.folder.checkpoints)
        system.invalidate_cache()
        names = system.ls(remote, detail=False) if system.exists(remote) else []
        steps = sorted(step for name in names if (step := step_named(Path(name).name)) is not None)
        return [step for step in steps if not are_whole or system.exists(f"{self._copy_of(step)}/{MANIFEST}")]

    def _copy_of(self, step: int) -> str:
        return self._there(path_of(self.folder.checkpoints, step))

    def _is_there(self, step: int) -> bool:
        """Whether the very same checkpoint is: a step can be written twice, after a rollback."""
        system, _ = self._place
        manifest = path_of(self.folder.checkpoints, step) / MANIFEST
        try:
            return system.cat_file(self._there(manifest)) == manifest.read_bytes()
        except FileNotFoundError:
            return False

    def _put_checkpoint(self, step: int) -> None:
        self._take_away(step)
        for path in sorted(path_of(self.folder.checkpoints, step).iterdir(), key=lambda path: path.name == MANIFEST):
            self._put(path)

    def _take_away(self, step: int) -> None:
        """The manifest goes first: what is left is no checkpoint."""
        system, _ = self._place
        remote = self._copy_of(step)
        if system.exists(f"{remote}/{MANIFEST}"):
            system.rm_file(f"{remote}/{MANIFEST}")
        if system.exists(remote):
            system.rm(remote, recursive=True)

    def _put_known(self) -> None:
        """What is at the root of an unfinished run; the recipe last, and nothing written anew that is there already."""
        system, _ = self._place
        folder = self.folder
        for path in (folder.environment, folder.data_report, folder.events, folder.recipe):
            remote = self._there(path)
            if path.exists() and not (system.exists(remote) and system.cat_file(remote) == path.read_bytes()):
                self._put(path)

    def _put(self, path: Path) -> None:
        system, _ = self._place
        remote = self._there(path)
        system.makedirs(remote.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), remote)

    def _there(self, path: Path) -> str:
        return f"{self._place[1]}/{path.relative_to(self.folder.path).as_posix()}"

    def _is_hidden(self, path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(self.folder.path).parts)

    def _problem(self, found: str, expected: str, hint: str = "") -> EnvironmentProblem:
        where = f"output.mirror={self.address}"
        return EnvironmentProblem(Problem(where=where, found=found, expected=expected, hint=hint, code="E514"))


def _place_of(folder: Path, name: str) -> Path:
    """Where a file of a run goes; OSError for a key that is none of a run's files.

    A store may hold anything that whoever can write to it likes: keys with `..` in them, too.
    """
    try:
        target = inside(folder, name)
    except ValueError as error:
        raise OSError(str(error)) from None
    above = name.split("/")[:-1]
    if name.startswith(".") or above not in ([], *([part] for part in FOLDERS)):
        raise OSError(f"{name!r} is no file of a run")
    return target


class Sender:
    """Sends to a mirror beside training: whenever it is told to, and never twice at once."""

    def __init__(self, mirror: Mirror, report: Callable[[str], None]):
        """`report` is called in a thread of its own, with why a copy could not be made."""
        self.mirror, self.report = mirror, report
        self.due, self.is_over = threading.Event(), False
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def send(self) -> None:
        """What is on the disk by now, as soon as what is under way is done."""
        self.due.set()

    def close(self, patience: float, alive: Callable[[], None]) -> None:
        """Wait until all is there, at most `patience` seconds; `alive` is called meanwhile."""
        self.is_over = True
        self.due.set()
        end = time.monotonic() + patience
        while self.thread.is_alive() and time.monotonic() < end:
            alive()
            self.thread.join(1.0)
        if self.thread.is_alive():
            self.report(f"not done within {patience:,.0f} s")

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self.due.wait()
            self.due.clear()
            is_last = self.is_over
            problem = self.mirror.send()
            if problem is not None:
                self.report(problem)


def in_words(error: Exception) -> str:
    """The kind of an error of any file system, and the first line of what it says."""
    message = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
