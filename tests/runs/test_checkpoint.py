"""A checkpoint is intact, or it is not used."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import forks
import pytest
import torch

from fasttune.errors import CheckpointError
from fasttune.runs import checkpoint
from fasttune.runs.checkpoint.verify import fault
from fasttune.runs.checkpoint.write import STATE, hash_of

ABOUT = {"run_id": "this run"}


def write(folder: Path, step: int, run_id: str = "this run") -> Path:
    tensors = {
        "model": {"weight": torch.full((300,), float(step))},
        "optimizer": {"exp_avg.weight": torch.full((300,), step / 2)},
    }
    return checkpoint.write(folder, step, tensors, {"step": step, "loss": 0.1 + 0.2}, {"run_id": run_id})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, 5)
    found, skipped = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 5 and skipped == []
    assert found.state() == {"step": 5, "loss": 0.1 + 0.2}
    assert torch.equal(found.tensors("model")["weight"], torch.full((300,), 5.0))


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path / "none", "this run") == (None, [])


def flip_a_bit(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


FILES = ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "manifest.json"]
DAMAGE = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    **{f"cut at {share}": partial(cut, share=share) for share in (0.01, 0.5, 0.99)},
    **{f"bit at {place}": partial(flip_a_bit, place=place) for place in (0.0, 0.01, 0.3, 0.5, 0.7, 0.99)},
    "of another step": lambda path: path.write_bytes((path.parents[1] / "checkpoint-10" / path.name).read_bytes()),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_is_skipped_with_the_reason(tmp_path: Path, name: str, kind: str) -> None:
    for step in (10, 20):
        write(tmp_path, step)
    target = tmp_path / "checkpoint-20" / name
    DAMAGE[kind](target)
    found, skipped = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 10
    assert len(skipped) == 1 and skipped[0].startswith("skipping checkpoint-20: ")


def test_all_damaged_is_an_error_that_names_each(tmp_path: Path) -> None:
    for step in (1, 2):
        (write(tmp_path, step) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as raised:
        checkpoint.newest_good(tmp_path, "this run")
    assert len(raised.value.problems) == 2
    assert raised.value.exit_code == 5


def test_a_higher_numbered_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    write(tmp_path, 3)
    write(tmp_path, 99, run_id="an earlier run")
    found, skipped = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 3
    assert skipped == ["skipping checkpoint-99: it belongs to another run"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"files": {}}, "its manifest lacks the tensors or the state"),
        ({"step": 7}, "its manifest belongs to step 7"),
        ({"files": {f"../{STATE}": {"size": 1, "sha256": ""}}}, "its manifest lacks the tensors or the state"),
        ({"files": {STATE: None, "a.safetensors": None}}, "its manifest cannot be read"),
    ],
)
def test_a_manifest_that_was_made_by_somebody_else(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    """The self-hash matches here: it detects accidents, not tampering."""
    manifest = {**json.loads((write(tmp_path, 1) / "manifest.json").read_text()), **change}
    manifest["sha256"] = hash_of(manifest)
    (tmp_path / "checkpoint-1" / "manifest.json").write_text(json.dumps(manifest))
    assert fault(tmp_path / "checkpoint-1", None) == found


def test_a_checkpoint_of_another_name_is_not_taken_for_newer(tmp_path: Path) -> None:
    write(tmp_path, 1).rename(tmp_path / "checkpoint-99")
    assert fault(tmp_path / "checkpoint-99", "this run") == "its manifest belongs to step 1"


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    (write(tmp_path, 4) / "model.safetensors").unlink()
    assert fault(write(tmp_path, 4), "this run") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4"]


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        write(tmp_path, step)
    (tmp_path / ".checkpoint-6.staged").mkdir()
    assert checkpoint.prune(tmp_path, 2, {1}, "this run") == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-4", "checkpoint-5"]
    assert checkpoint.prune(tmp_path, None, set(), "this run") == []


def test_nothing_is_deleted_while_the_newest_is_not_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / "checkpoint-3" / "model.safetensors").unlink()
    assert checkpoint.prune(tmp_path, 1, set(), "this run") == []


def test_another_format_is_refused(tmp_path: Path) -> None:
    manifest = {**json.loads((write(tmp_path, 1) / "manifest.json").read_text()), "format": 2}
    manifest["sha256"] = hash_of(manifest)
    (tmp_path / "checkpoint-1" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="it has format 2, but this release reads 1"):
        checkpoint.newest_good(tmp_path, "this run")


def test_a_foreign_checkpoint_keeps_nothing_from_going(tmp_path: Path) -> None:
    write(tmp_path, 99, run_id="an earlier run")
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert checkpoint.prune(tmp_path, 1, set(), "this run") == [1, 2]
    assert (tmp_path / "checkpoint-99").is_dir()


def test_a_write_that_was_cut_short_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, 4).rename(tmp_path / ".checkpoint-4.replaced")
    found, _ = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 4


def saves(folder: Path, reports: list[checkpoint.Saved]) -> checkpoint.Writer:
    return checkpoint.Writer(folder, "this run", 2, reports.append)


def save(writer: checkpoint.Writer, step: int, weight: torch.Tensor) -> None:
    writer.save(step, {"model": {"weight": weight}}, {"step": step}, {}, set())


def test_what_is_written_is_what_was_there_when_it_was_asked_for(tmp_path: Path) -> None:
    reports: list[checkpoint.Saved] = []
    writer, weight = saves(tmp_path, reports), torch.ones(2_000_000)
    save(writer, 1, weight)
    weight.zero_()
    writer.wait()
    found, _ = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.tensors("model")["weight"].min() == 1
    assert [(report.step, report.failure) for report in reports] == [(1, None)]


def test_memory_that_was_reserved_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, weight = saves(tmp_path, []), torch.rand(20)
    writer.reserve({"model": {"weight": weight}})
    writer.wait()
    monkeypatch.delattr(torch, "empty")
    save(writer, 1, weight)
    writer.wait()
    found, _ = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and torch.equal(found.tensors("model")["weight"], weight)


def test_without_memory_for_a_copy_training_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    reports: list[checkpoint.Saved] = []
    writer = saves(tmp_path, reports)
    monkeypatch.setattr(torch, "empty", refuse)
    save(writer, 1, torch.ones(20))
    assert [report.step for report in reports] == [1], "written when save returns"
    assert fault(tmp_path / "checkpoint-1", "this run") is None


def test_a_newer_save_takes_the_place_of_one_that_cannot_be_written(tmp_path: Path) -> None:
    reports: list[checkpoint.Saved] = []
    writer = saves(tmp_path / "checkpoints", reports)
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    save(writer, 1, torch.ones(20))
    forks.wait_for(lambda: bool(reports))
    (tmp_path / "checkpoints").unlink()
    save(writer, 2, torch.ones(20))
    writer.wait()
    outcomes = dict.fromkeys((report.step, report.failure is None) for report in reports)  # it may fail more than once
    assert list(outcomes) == [(1, False), (1, True), (2, True)]


WRITER = """
import sys, torch
from pathlib import Path
from fasttune.runs import checkpoint
folder, step = Path(sys.argv[1]), 0
while True:
    step += 1
    tensors = {"model": {"weight": torch.full((200_000,), float(step))}}
    checkpoint.write(folder, step, tensors, {"step": step}, {"run_id": "this run"})
    print(step, flush=True)
    checkpoint.prune(folder, 2, set(), "this run")
"""


def test_kill_at_random_instants_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    """The kernel keeps written data after a kill, so this tests the order and the renames, not fsync."""
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        with forks.start([folder], script=script) as process:
            forks.wait_for(lambda process=process: len(process.stdout.read_text().splitlines()) >= 3, process)
            time.sleep(0.0137 * attempt)
            process.kill()
            lines, _ = process.communicate()
        acknowledged = [int(line) for line in lines.split()]
        visible = [path for path in folder.iterdir() if path.name.startswith("checkpoint-")]
        assert [fault(path, "this run") for path in visible] == [None] * len(visible)
        found, skipped = checkpoint.newest_good(folder, "this run")
        assert found is not None and found.step >= acknowledged[-1] and skipped == []
        assert json.loads((found.path / "trainer_state.json").read_text()) == {"step": found.step}
