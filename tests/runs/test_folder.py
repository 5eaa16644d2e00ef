"""The choice of a run folder, its lock, and the refusal to overwrite other files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_rows, write_csv

from fasttune.data.recipe_source import stem_of
from fasttune.errors import EnvironmentProblem, UsageError
from fasttune.runs.folder import RunFolder, locked, open_run, resolve_run_folder, write_json_lines, write_text


def make_run(path: Path, *, finished: bool = False, published: bool = False) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.recipe.write_text("format: 1\n")
    if finished:
        folder.all_results.write_text("{}")
    if published:
        folder.weights.write_bytes(b"")
    return folder


def chosen(parent: Path, resume: bool = False) -> str:
    return resolve_run_folder("reviews", None, resume, parent).path.relative_to(parent).as_posix()


def test_the_first_free_name_is_taken(tmp_path: Path) -> None:
    assert chosen(tmp_path / "runs") == "reviews"
    for expected in ("reviews", "reviews-2", "reviews-3"):
        assert chosen(tmp_path) == expected
        assert (tmp_path / expected).is_dir(), "so that no other process takes the same name"


def test_resume_takes_the_newest_unfinished(tmp_path: Path) -> None:
    for name, finished in (("reviews", False), ("reviews-2", False), ("reviews-3", True)):
        make_run(tmp_path / name, finished=finished)
    assert chosen(tmp_path, resume=True) == "reviews-2"


def test_resume_takes_the_newest_where_all_are_finished_and_the_first_name_where_none_is(tmp_path: Path) -> None:
    assert chosen(tmp_path, resume=True) == "reviews"
    for name in ("reviews", "reviews-2"):
        make_run(tmp_path / name, finished=True)
    assert chosen(tmp_path, resume=True) == "reviews-2"


def test_a_folder_that_is_no_run_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / "notes.txt").write_text("mine")
    assert chosen(tmp_path) == "reviews-2"
    assert chosen(tmp_path, resume=True) == "reviews-2"


def test_resume_takes_what_a_killed_start_left(tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / ".lock").write_text("process 1 on nowhere\n")
    assert chosen(tmp_path, resume=True) == "reviews"
    assert chosen(tmp_path) == "reviews-2", "another process may be using it"
    make_run(tmp_path / "reviews-3")
    assert chosen(tmp_path, resume=True) == "reviews-3", "a run that got further"
    assert resolve_run_folder("reviews", tmp_path / "reviews", False).path == tmp_path / "reviews"


def test_one_process_in_a_folder_at_a_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    in_use = pytest.raises(EnvironmentProblem, match=rf"E513 .*: in use by process {os.getpid()} on ")
    with locked(run), in_use, locked(RunFolder(run.path)):
        pass
    with locked(run):
        pass
    assert [path.name for path in run.path.iterdir()] == ["recipe.yaml"]


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    code = (
        "import os, sys; from pathlib import Path; from fasttune.runs.folder import RunFolder, locked\n"
        "with locked(RunFolder(Path(sys.argv[1]))): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run.path)]).returncode == -signal.SIGKILL
    assert run.lock.exists()
    with locked(run):
        assert run.lock.read_text().startswith(f"process {os.getpid()} on ")


WINDOWS = """
import mmap, os, signal, sys, types

import accelerate, datasets, psutil, torch.distributed.checkpoint, transformers  # these check which system they run on

sys.modules["resource"] = None
for name in ("SIGKILL", "SIGUSR1", "SIGHUP"):
    delattr(signal, name)
del mmap.MADV_DONTNEED
memory_info = psutil.Process.memory_info
psutil.Process.memory_info = lambda self: types.SimpleNamespace(**memory_info(self)._asdict(), peak_wset=2**30)


def opens_files_only(path, flags, *more, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, flags, *more, **named)


import fasttune.runs.checkpoint.write, fasttune.training.launch, fasttune.runs.folder

fasttune.runs.checkpoint.write.os = types.SimpleNamespace(**{**vars(os), "open": opens_files_only})
fasttune.runs.checkpoint.write.ON_WINDOWS = fasttune.runs.folder.ON_WINDOWS = True
from fasttune.cli import commands as cli

sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_what_windows_does_not_have_is_not_needed(tiny_model: Path, tmp_path: Path) -> None:
    """Windows has no SIGKILL, `resource` or MADV_DONTNEED, and cannot open folders or read a locked file."""
    path = write_csv(tmp_path / "rows.csv", make_rows(40))
    settings = [f"model={tiny_model}", "training.max_steps=4", "training.device=cpu", "output.save_steps=2"]
    words = ["train", path, *settings, "output.save_strategy=steps", "--output", tmp_path / "run"]
    done = subprocess.run([sys.executable, "-c", WINDOWS, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_that_became_no_run_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(RunFolder(tmp_path / "run")):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_an_output_is_taken_where_nothing_is_there_or_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        for resume in (False, True):
            assert resolve_run_folder("reviews", tmp_path / name, resume).path == tmp_path / name


def test_an_output_with_a_run_is_refused_and_resumed(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"it already holds a run\n  hint: continue that run with --resume"):
        resolve_run_folder("reviews", tmp_path / "run", False)
    assert resolve_run_folder("reviews", tmp_path / "run", True).path == tmp_path / "run"


def test_an_output_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="it already holds other files"):
        resolve_run_folder("reviews", tmp_path, False)


@pytest.mark.parametrize("resume", [False, True])
def test_an_output_that_is_a_file_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="there is a file at this path"):
        resolve_run_folder("reviews", tmp_path / "file", resume)


def test_a_run_without_weights_says_how_to_finish_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(EnvironmentProblem) as raised:
        open_run(run.path)
    assert str(raised.value) == (
        f"run {run.path}: the run has not finished: it has no model.safetensors\n"
        f"  hint: finish it: fasttune train {run.path}/recipe.yaml --output {run.path} --resume"
    )


def test_what_is_no_run_names_the_runs_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs/reviews"))
    make_run(Path("runs/reviews-2"))
    with pytest.raises(EnvironmentProblem, match=r"hint: existing runs: runs/reviews, runs/reviews-2$"):
        open_run("runs/review")
    assert open_run(make_run(Path("runs/whole"), published=True).path).path == Path("runs/whole")


def test_the_results_of_all_splits_come_last_and_end_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run.is_run and not run.is_finished
    run.write_results({"train": {"train_loss": 0.5}, "eval": {"eval_loss": 0.25}})
    assert run.is_finished
    assert json.loads(run.all_results.read_text()) == {"train_loss": 0.5, "eval_loss": 0.25}
    assert json.loads(run.results("eval").read_text()) == {"eval_loss": 0.25}


def test_a_file_holds_the_old_text_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_text(path, "old\n")

    def rows():
        yield {"id": "好"}
        assert path.read_text() == "old\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_json_lines(path, rows())
    assert path.read_text() == "old\n"
    write_json_lines(path, [{"id": "好"}, {}])
    assert path.read_text(encoding="utf-8") == '{"id": "好"}\n{}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("reviews.csv", "reviews"),
        ("some/folder/reviews.jsonl", "reviews"),
        (["a.csv", "b.csv"], "a"),
        ("owner/name:train", "name"),
        ("data/*.csv", "run"),
        ("my reviews [2].csv", "my-reviews--2"),
        ("../..", "run"),
        ("评论.csv", "评论"),
    ],
)
def test_a_run_is_named_after_its_data(data: str | list[str], expected: str) -> None:
    assert stem_of(data) == expected
