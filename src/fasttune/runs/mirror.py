"""`output.mirror`: a copy of a run in object storage, from which any machine can resume.

Object stores have no rename. So the manifest of a checkpoint is uploaded last, a checkpoint without a manifest counts
as absent, and downloads are verified like local checkpoints. Old copies are deleted once the newer one is complete.
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
from fasttune.runs.checkpoint.find import all_steps
from fasttune.runs.checkpoint.verify import fault
from fasttune.runs.checkpoint.write import MANIFEST, path_of, step_named
from fasttune.runs.folder import RunFolder, read_json
from fasttune.security import addresses
from fasttune.security.paths import inside, new_path

FOLDERS = (
    "predictions",
    "plots",
    "tensorboard",
    "1_Pooling",
    "2_Dense",
)  # the subfolders of a run, besides its checkpoints
RUNS_INSIDE = ("mlm", "seeds")  # runs of their own; those of seeds have mirrors of their own


@dataclass(frozen=True)
class Mirror:
    """The mirror of one run. `address`: a separate folder for this run, as a path or fsspec URL (s3://bucket/reviews)."""

    address: str
    folder: RunFolder

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        """The file system, and the path of the mirror in it."""
        require_safe("fsspec")
        import fsspec

        refusal = addresses.refusal(self.address)
        if refusal is not None:
            found, expected = refusal
            raise self._problem(found, expected=expected)
        try:
            system, root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise self._problem(f"cannot open this address ({error})") from None
        return system, root.rstrip("/")

    def claim(self, run_id: str) -> None:
        """Upload the files that exist at the start. EnvironmentProblem if the mirror holds another run or other files,
        or cannot be written to.
        """
        try:
            owner = self._owner()
            is_ours = owner == run_id or (owner is None and not self._names())
        except Exception as error:  # each file system has its own exceptions
            raise self._problem(f"cannot be read ({in_words(error)})") from None
        if not is_ours:
            found = "it already holds other files" if owner is None else "it already holds another run"
            raise self._problem(found, "choose another output.mirror, or continue that run with --resume")
        try:
            self._put_root_files()
        except Exception as error:
            raise self._problem(f"cannot be written to ({in_words(error)})") from None

    def send(self) -> str | None:
        """Upload what is new, then delete what is no longer kept locally. Return the failure in words, or None: a
        mirror that fails must not stop training.
        """
        try:
            self._send_checkpoints()
        except Exception as error:  # each file system has its own exceptions
            return in_words(error)
        return None

    def _send_checkpoints(self) -> None:
        run_id = read_json(self.folder.environment)["run_id"]
        if self._owner() not in (run_id, None):
            raise OSError(f"{self.address} now holds another run")
        self._put_root_files()
        local_steps = all_steps(self.folder.checkpoints)
        # Newest first: if an upload takes longer than the time between two saves, older checkpoints are deleted before
        # their turn, and in ascending order none would ever arrive.
        for step in reversed(local_steps):
            if not self._is_uploaded(step):
                try:
                    self._put_checkpoint(step)
                except FileNotFoundError:
                    if path_of(self.folder.checkpoints, step).exists():
                        raise
        for step in self._steps(with_manifest=False):
            if step not in local_steps and step < max(local_steps, default=0):
                self._delete(step)

    def send_all(self) -> None:
        """Upload the finished run. Its results come last, as in the local folder."""
        try:
            self._send_checkpoints()
            files = [path for path in self.folder.path.rglob("*") if path.is_file() and not self._is_hidden(path)]
            for path in sorted(files, key=lambda path: path == self.folder.all_results):
                is_of_run_inside = path.relative_to(self.folder.path).parts[0] in RUNS_INSIDE
                if self.folder.checkpoints not in path.parents and not is_of_run_inside:
                    self._put(path)
        except Exception as error:
            raise self._problem(
                f"the finished run could not be copied ({in_words(error)}); it is complete in {self.folder.path}",
                f"copy {self.folder.path} by hand, or rerun the command with --resume once the mirror is available",
            ) from error

    def fetch(self) -> str | None:
        """Download the run to a machine that has nothing or only an older part of it. Return what was fetched, in
        words, or None.

        The recipe comes last: it makes the folder a run.
        """
        system, root = self._remote
        recipe = self._remote_path(self.folder.recipe)
        try:
            if not system.exists(recipe) or not self._is_ahead():
                return None
            names = [name for name in self._names() if "/checkpoints/" not in name.removeprefix(root)]
            self._refuse_other_files({name.removeprefix(root).lstrip("/") for name in names})
            is_finished = system.exists(self._remote_path(self.folder.all_results))
            local_steps = self._intact_steps()
            steps = [step for step in self._steps() if step not in local_steps and self._fetch_checkpoint(step)]
            if steps or not self.folder.is_run:
                for name in sorted(names, key=lambda name: name == recipe):
                    self._get(name, _local_path(self.folder.path, name.removeprefix(root).lstrip("/")))
        except EnvironmentProblem:
            raise
        except Exception as error:
            raise self._problem(f"the run cannot be read ({in_words(error)})") from error
        if not steps and not local_steps and self._steps():
            raise self._problem("none of its checkpoints is intact", "choose another output.mirror")
        return "the finished run" if is_finished else f"the run, with the checkpoints of steps {steps}"

    def _is_ahead(self) -> bool:
        """Whether the mirror has more of the run than this machine."""
        if not self.folder.is_run:
            return True
        run_id = read_json(self.folder.environment)["run_id"]
        newest = max(self._intact_steps(), default=0)
        return self._owner() == run_id and max(self._steps(), default=0) > newest

    def _intact_steps(self) -> list[int]:
        """The local checkpoints, without the leftovers of an interrupted fetch."""
        steps = all_steps(self.folder.checkpoints)
        return [step for step in steps if fault(path_of(self.folder.checkpoints, step), None) is None]

    def _refuse_other_files(self, remote_names: set[str]) -> None:
        """Only leftovers of an interrupted fetch may be overwritten; EnvironmentProblem for any other file."""
        if self.folder.is_run:
            return
        paths = [path for path in self.folder.path.rglob("*") if path.is_file()]
        local_names = {path.relative_to(self.folder.path).as_posix() for path in paths}
        others = {name for name in local_names if not name.startswith((".", "checkpoints/"))} - remote_names
        if others:
            found = f"cannot fetch the run into {self.folder.path}, which contains {min(others)}"
            raise self._problem(found, "--output NEW_NAME")

    def _fetch_checkpoint(self, step: int) -> bool:
        """Download a checkpoint; return whether it is intact, and delete it otherwise."""
        system, _ = self._remote
        target = path_of(self.folder.checkpoints, step)
        target.mkdir(parents=True, exist_ok=True)
        for name in system.ls(self._remote_path(target), detail=False):
            self._get(name, inside(target, name.rpartition("/")[2]))
        if fault(target, None) is None:
            return True
        shutil.rmtree(target)
        return False

    def _get(self, name: str, target: Path) -> None:
        system, _ = self._remote
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_path(target) as staged:  # not every file system can write to an open file
            system.get_file(name, str(staged))

    def _owner(self) -> str | None:
        """The id of the run in the mirror, or None if there is none."""
        system, _ = self._remote
        system.invalidate_cache()
        try:
            return str(json.loads(system.cat_file(self._remote_path(self.folder.environment)))["run_id"])
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        """All files in the mirror."""
        system, root = self._remote
        return sorted(system.find(root)) if system.exists(root) else []

    def _steps(self, with_manifest: bool = True) -> list[int]:
        """The steps of the checkpoints in the mirror: the complete ones, or all whose upload was started."""
        system, _ = self._remote
        remote = self._remote_path(self.folder.checkpoints)
        system.invalidate_cache()
        names = system.ls(remote, detail=False) if system.exists(remote) else []
        steps = sorted(step for name in names if (step := step_named(Path(name).name)) is not None)
        return [
            step for step in steps if not with_manifest or system.exists(f"{self._remote_checkpoint(step)}/{MANIFEST}")
        ]

    def _remote_checkpoint(self, step: int) -> str:
        return self._remote_path(path_of(self.folder.checkpoints, step))

    def _is_uploaded(self, step: int) -> bool:
        """Whether the mirror has this very checkpoint: after a rollback, a step may be written again."""
        system, _ = self._remote
        manifest = path_of(self.folder.checkpoints, step) / MANIFEST
        try:
            return system.cat_file(self._remote_path(manifest)) == manifest.read_bytes()
        except FileNotFoundError:
            return False

    def _put_checkpoint(self, step: int) -> None:
        self._delete(step)
        for path in sorted(path_of(self.folder.checkpoints, step).iterdir(), key=lambda path: path.name == MANIFEST):
            self._put(path)

    def _delete(self, step: int) -> None:
        """Delete a checkpoint from the mirror, its manifest first, so that a partial deletion leaves no checkpoint."""
        system, _ = self._remote
        remote = self._remote_checkpoint(step)
        if system.exists(f"{remote}/{MANIFEST}"):
            system.rm_file(f"{remote}/{MANIFEST}")
        if system.exists(remote):
            system.rm(remote, recursive=True)

    def _put_root_files(self) -> None:
        """Upload the changed files at the root of an unfinished run, the recipe last."""
        system, _ = self._remote
        folder = self.folder
        for path in (folder.environment, folder.data_report, folder.events, folder.recipe):
            remote = self._remote_path(path)
            if path.exists() and not (system.exists(remote) and system.cat_file(remote) == path.read_bytes()):
                self._put(path)

    def _put(self, path: Path) -> None:
        system, _ = self._remote
        remote = self._remote_path(path)
        system.makedirs(remote.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), remote)

    def _remote_path(self, path: Path) -> str:
        return f"{self._remote[1]}/{path.relative_to(self.folder.path).as_posix()}"

    def _is_hidden(self, path: Path) -> bool:
        return any(name.startswith(".") for name in path.relative_to(self.folder.path).parts)

    def _problem(self, found: str, hint: str = "", expected: str = "") -> EnvironmentProblem:
        where = f"output.mirror={self.address}"
        return EnvironmentProblem(Problem(where=where, found=found, expected=expected, hint=hint, code="E514"))


def _local_path(folder: Path, name: str) -> Path:
    """The local path of a file of the mirror; OSError for a key that is not a file of a run.

    Anyone with write access to the store can put anything there, including keys that contain `..`.
    """
    try:
        target = inside(folder, name)
    except ValueError as error:
        raise OSError(str(error)) from None
    parents = name.split("/")[:-1]
    is_allowed = not parents or (len(parents) == 1 and parents[0] in FOLDERS)
    if name.startswith(".") or not is_allowed:
        raise OSError(f"{name!r} is not a file of a run")
    return target


class Sender:
    """Uploads to a mirror in a background thread, one upload at a time."""

    def __init__(self, mirror: Mirror, report: Callable[[str], None]):
        """`report` is called in the background thread with the reason when an upload fails."""
        self.mirror, self.report = mirror, report
        self.due = threading.Event()
        self.is_over = False
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def send(self) -> None:
        """Upload what is on the disk now, once the current upload is done."""
        self.due.set()

    def close(self, patience: float, alive: Callable[[], None]) -> None:
        """Wait for the last upload, at most `patience` seconds, calling `alive` meanwhile."""
        self.is_over = True
        self.due.set()
        end = time.monotonic() + patience
        while self.thread.is_alive() and time.monotonic() < end:
            alive()
            self.thread.join(1.0)
        if self.thread.is_alive():
            self.report(f"the upload did not finish within {patience:,.0f} s")

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
    """The type of a file system's error, and the first line of its message."""
    message = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
