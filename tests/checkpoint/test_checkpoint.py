"""A checkpoint is whole or not used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fasttune import checkpoint
from fasttune.checkpoint.verify import fault
from fasttune.errors import CheckpointError

ABOUT = {"run_id": "this run"}


def write(folder: Path, step: int, run_id: str = "this run") -> Path:
    tensors = {
        "model": {"weight": torch.full((300,), float(step))},
        "optimizer": {"exp_avg.weight": torch.full((300,), step / 2)},
    }
    return checkpoint.write(folder, step, tensors, {"step": step, "loss": 0.1 + 0.2}, {"run_id": run_id})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, 5)
    found, passed_over = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 5 and passed_over == []
    assert found.state() == {"step": 5, "loss": 0.1 + 0.2}
    assert torch.equal(found.tensors("model")["weight"], torch.full((300,), 5.0))


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path / "none", "this run") == (None, [])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "manifest.json"]
DAMAGE = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "bit": flip_a_bit,
    "of another step": lambda path: path.write_bytes((path.parents[1] / "checkpoint-10" / path.name).read_bytes()),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_is_passed_over_with_the_reason(tmp_path: Path, name: str, kind: str) -> None:
    for step in (10, 20):
        write(tmp_path, step)
    target = tmp_path / "checkpoint-20" / name
    DAMAGE[kind](target)
    found, passed_over = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 10
    assert len(passed_over) == 1 and passed_over[0].startswith("checkpoint-20 is not used: ")


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
    found, passed_over = checkpoint.newest_good(tmp_path, "this run")
    assert found is not None and found.step == 3
    assert passed_over == ["checkpoint-99 is not used: it belongs to another run"]


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


WRITER = """
import sys, torch
from pathlib import Path
from fasttune import checkpoint
folder, step = Path(sys.argv[1]), 0
while True:
    step += 1
    tensors = {"model": {"weight": torch.full((200_000,), float(step))}}
    checkpoint.write(folder, step, tensors, {"step": step}, {"run_id": "this run"})
    print(step, flush=True)
    checkpoint.prune(folder, 2, set(), "this run")
"""


@pytest.mark.slow
def test_kill_at_random_instants_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    """The kernel keeps what was written, so this proves order and renaming, not fsync."""
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            acknowledged = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(0.0137 * attempt)
            os.kill(process.pid, signal.SIGKILL)
            acknowledged += [int(line) for line in process.stdout.read().split()]
        visible = [path for path in folder.iterdir() if path.name.startswith("checkpoint-")]
        assert [fault(path, "this run") for path in visible] == [None] * len(visible)
        found, passed_over = checkpoint.newest_good(folder, "this run")
        assert found is not None and found.step >= acknowledged[-1] and passed_over == []
        assert json.loads((found.path / "trainer_state.json").read_text()) == {"step": found.step}
