"""A copy of a run in object storage, from which any machine goes on: `output.mirror`.

A store of objects has no rename. So a checkpoint's manifest is sent last, what has none is not there, and what came
back is verified like any other. An older copy goes when the newer one is whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fasttune.checkpoint.resume import all_steps
from fasttune.checkpoint.verify import fault
from fasttune.checkpoint.write import MANIFEST, path_of, step_named
from fasttune.errors import EnvironmentProblem, Problem
from fasttune.run_folder import RunFolder


@dataclass(frozen=True)
class Mirror:
    """`address`: a folder of its own for this run, as fsspec knows it (s3://bucket/runs/reviews), or a path."""

    address: str
    folder: RunFolder

    @cached_property
    def _place(self) -> tuple[Any, str]:
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise self._problem(str(error), "an address of a file system that is installed") from None
        return system, root.rstrip("/")

    def claim(self, run_id: str) -> None:
        """EnvironmentProblem where another run is there, or where the place cannot be written to."""
        system, _ = self._place
        try:
            there = json.loads(system.cat_file(self._there(self.folder.environment)))["run_id"]
        except FileNotFoundError:
            there = run_id
        except Exception as error:  # each file system has errors of its own
            raise self._problem(in_words(error), "a place that can be read") from None
        if there != run_id:
            raise self._problem("another run", "an empty place, or this run's", "another output.mirror, or --resume")
        try:
            self._put_known()
        except Exception as error:
            raise self._problem(in_words(error), "a place that can be written to") from None

    def send_checkpoints(self) -> None:
        """Copy what is new, then take away what is no longer kept here."""
        self._put_known()
        mine, theirs = all_steps(self.folder.checkpoints), self._steps()
        for step in mine:
            if not self._is_there(step):
                self._put_folder(path_of(self.folder.checkpoints, step))
        for step in theirs:
            if step not in mine:
                self._take_away(step)

    def try_to_send(self) -> str | None:
        """`send_checkpoints`, or why it could not be done: in words, since training goes on all the same."""
        try:
            self.send_checkpoints()
        except Exception as error:  # each file system has errors of its own
            return in_words(error)
        return None

    def send_all(self) -> None:
        """The finished run. Its results come last, as they do in the folder."""
        try:
            self.send_checkpoints()
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
        """Bring a run back to a machine that has none of it; what was fetched in words, None where nothing is there.

        The recipe comes last: with it the folder is a run.
        """
        system, root = self._place
        try:
            if not system.exists(self._there(self.folder.recipe)):
                return None
            is_finished = system.exists(self._there(self.folder.all_results))
            step = self._fetch_newest()
            names = [name for name in system.find(root) if "/checkpoints/" not in name.removeprefix(root)]
            recipe = self._there(self.folder.recipe)
            for name in sorted(names, key=lambda name: name == recipe):
                target = self.folder.path / name.removeprefix(root).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(name, str(target))
        except Exception as error:
            raise self._problem(in_words(error), "a run that can be read") from error
        return "the finished run" if is_finished else f"the run, with the checkpoint of step {step}"

    def _fetch_newest(self) -> int | None:
        system, _ = self._place
        for step in reversed(self._steps()):
            target = path_of(self.folder.checkpoints, step)
            target.mkdir(parents=True, exist_ok=True)
            remote = self._there(target)
            for name in system.ls(remote, detail=False):
                system.get_file(name, str(target / Path(name).name))
            if fault(target, None) is None:
                return step
            for path in target.iterdir():
                path.unlink()
            target.rmdir()
        return None

    def _steps(self) -> list[int]:
        system, _ = self._place
        remote = self._there(self.folder.checkpoints)
        system.invalidate_cache()
        names = system.ls(remote, detail=False) if system.exists(remote) else []
        return sorted(step for name in names if (step := step_named(Path(name).name)) is not None)

    def _is_there(self, step: int) -> bool:
        """Whether the very same checkpoint is: a step can be written twice, after a rollback."""
        system, _ = self._place
        manifest = path_of(self.folder.checkpoints, step) / MANIFEST
        try:
            return system.cat_file(self._there(manifest)) == manifest.read_bytes()
        except FileNotFoundError:
            return False

    def _put_folder(self, folder: Path) -> None:
        self._take_away(int(folder.name.rpartition("-")[2]))
        for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
            self._put(path)

    def _take_away(self, step: int) -> None:
        """The manifest goes first: what is left is no checkpoint."""
        system, _ = self._place
        remote = self._there(path_of(self.folder.checkpoints, step))
        if system.exists(f"{remote}/{MANIFEST}"):
            system.rm_file(f"{remote}/{MANIFEST}")
        if system.exists(remote):
            system.rm(remote, recursive=True)

    def _put_known(self) -> None:
        """What is at the root of an unfinished run; the recipe last."""
        folder = self.folder
        for path in (folder.events, folder.data_report, folder.environment, folder.recipe):
            if path.exists():
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


def in_words(error: Exception) -> str:
    """The kind of an error of any file system, and the first line of what it says."""
    message = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
