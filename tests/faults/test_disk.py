"""A disk that fails while a run writes to it, and processes that are killed at a change of a file."""

from __future__ import annotations

import errno
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import forks
import pytest
from faulty import Fault, events, run_cli, sha256, train, trouble

import fasttune
from fasttune.training.events import Event, StepDone

pytestmark = pytest.mark.skipif(not forks.CAN_INJECT_FAULTS, reason="needs Linux and gcc")


def first(calls: list[str], *words: str) -> int:
    """The number of the first call that names all of these."""
    return next(number for number, call in enumerate(calls, start=1) if all(word in call for word in words))


# benchmarks/kills.py has all of them
@pytest.mark.parametrize(
    "words",
    [
        ("open", ".recipe.yaml"),
        ("write", "checkpoint-4.staged"),
        ("open", "checkpoint-4.staged/manifest.json"),
        ("rename", "checkpoint-4.staged"),
        ("unlink", "checkpoint-2.deleted/model.safetensors"),
        ("write", "/.all_results.json"),
    ],
    ids=" ".join,
)
def test_killed_before_a_change_of_a_file(
    place: Path, recipe: Path, calls: list[str], expected: str, words: tuple[str, ...]
) -> None:
    run = place / "killed"
    shutil.rmtree(run, ignore_errors=True)
    killed = run_cli(train(recipe, run), Fault(str(run), at=first(calls, *words)))
    assert killed.code == -9 and trouble(run) == []
    assert run_cli(train(recipe, run)).code == 0
    assert sha256(run) == expected
    assert [path.name for path in (run / "checkpoints").glob(".*")] == []


FAILURES = {
    errno.ENOSPC: "the disk is full (ENOSPC",
    errno.EDQUOT: "the disk quota is exceeded (EDQUOT",
    errno.EIO: "the disk reported an error (EIO",
    errno.EROFS: "the file system is read-only (EROFS",
    errno.EACCES: "no permission to write there (EACCES",
}


@pytest.mark.parametrize("error", FAILURES, ids=errno.errorcode.get)
def test_a_checkpoint_that_cannot_be_written_is_named_and_training_goes_on(
    place: Path, recipe: Path, calls: list[str], expected: str, error: int
) -> None:
    run = place / f"failed-{error}"
    at = first(calls, "mkdir", "checkpoint-6.staged")
    ended = run_cli(train(recipe, run), Fault(str(run / "checkpoints"), at=at - before(calls), error=error, times=8))
    assert ended.code == 0, ended.output
    assert f"retrying: {FAILURES[error]}" in ended.output
    failed = [event["step"] for event in events(run) if event["event"] == "checkpoint" and event["failure"]]
    assert set(failed) == {6}
    assert sha256(run) == expected and trouble(run) == []
    assert [path.name for path in (run / "checkpoints").glob(".*")] == []


def before(calls: list[str]) -> int:
    """Calls that come before those below checkpoints/."""
    return first(calls, "/checkpoints") - 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_disk_that_fills_up_in_the_middle_of_a_file(
    place: Path, recipe: Path, undisturbed: Path, expected: str, share: float
) -> None:
    """From there on nothing can be written: the error names the last good checkpoint, and with room the run resumes."""
    run = place / "full"
    shutil.rmtree(run, ignore_errors=True)
    whole = sum(path.stat().st_size for path in (undisturbed / "checkpoints" / "checkpoint-12").iterdir())
    room = int((2 + share) * whole)
    ended = run_cli(train(recipe, run), Fault(str(run / "checkpoints"), bytes=room))
    assert ended.code == 5, ended.output
    assert (
        "E522" in ended.output and "rerun the same command with --resume; it resumes from checkpoint-4" in ended.output
    )
    assert "Traceback" not in ended.output and trouble(run) == []
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert run_cli(train(recipe, run)).code == 0
    assert sha256(run) == expected


def test_a_log_that_cannot_be_written_is_written_later(
    place: Path, recipe: Path, calls: list[str], expected: str
) -> None:
    run = place / "log"
    ended = run_cli(train(recipe, run), Fault(str(run / "events.jsonl"), at=3, error=errno.ENOSPC, times=6))
    assert ended.code == 0 and ended.output.count("could not write ") == 1
    assert [event["step"] for event in events(run) if event["event"] == "step"] == list(range(1, 13))
    assert sha256(run) == expected


def test_a_file_system_that_cannot_rename(place: Path, recipe: Path, expected: str) -> None:
    run = place / "rename"
    ended = run_cli(
        train(recipe, run), Fault(str(run / "checkpoints"), at=1, error=errno.EXDEV, times=0, calls="rename")
    )
    assert ended.code == 5 and "the file system cannot rename a folder (EXDEV" in ended.output
    assert run_cli(train(recipe, run)).code == 0 and sha256(run) == expected


def test_too_little_room_is_said_before_the_start(recipe: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasttune.errors import EnvironmentProblem
    from fasttune.runs.checkpoint import space

    monkeypatch.setattr(space.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    space.check_space(place / "new" / "run", 10**9)
    with pytest.raises(EnvironmentProblem, match=r"E512 disk of .*/new/run: found 1.00 GB free, expected 2.00 GB"):
        space.check_space(place / "new" / "run", 2 * 10**9)


def test_folders_that_cannot_be_emptied_go_later(place: Path, recipe: Path, expected: str) -> None:
    """As on network file systems: rmtree finds a folder that is not empty."""
    run = place / "not-empty"
    fault = Fault(str(run / "checkpoints"), at=1, error=errno.ENOTEMPTY, times=7, calls="unlink")
    assert run_cli(train(recipe, run), fault).code == 0
    assert sha256(run) == expected and trouble(run) == []
    assert [path.name for path in (run / "checkpoints").glob(".*")] == []


@pytest.mark.parametrize("kind", ["deleted", "a file"])
def test_checkpoints_that_vanish_while_the_run_goes_on(recipe: Path, expected: str, tmp_path: Path, kind: str) -> None:
    def observer(event: Event) -> None:
        folder = tmp_path / "run" / "checkpoints"
        if isinstance(event, StepDone) and event.step == 7:
            # What is being written comes to its end, or it would write into the folder that is gone.
            forks.wait_for(lambda: all(thread.name != "checkpoint writer" for thread in threading.enumerate()))
            shutil.rmtree(folder)
            if kind == "a file":
                folder.write_text("")
        if isinstance(event, StepDone) and event.step == 11 and kind == "a file":
            folder.unlink()

    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer])
    failures = [event["failure"] for event in events(run.folder) if event["event"] == "checkpoint" and event["failure"]]
    assert all("a file is in the place of a folder" in failure for failure in failures)
    assert bool(failures) == (kind == "a file")
    assert sha256(run.folder) == expected and trouble(run.folder) == []
