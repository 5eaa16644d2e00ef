"""Two launchers on this machine, as on two machines that share no disk."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import forks
import psutil
import pytest
from faulty import last_step, make_recipe
from forks import free_port
from launched import WITHOUT_DROPOUT, check_same
from tiny import save_tiny_model

import fasttune

pytestmark = pytest.mark.slow


def launched(folder: Path, recipe: Path) -> list[subprocess.Popen[str]]:
    """A launcher for each of two places; the first has the run folder."""
    port, started = str(free_port()), []
    for node in ("0", "1"):
        place = folder / f"node-{node}"
        place.mkdir(exist_ok=True)
        how = ["--nnodes", "2", "--node-rank", node, "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
        command = [sys.executable, "-m", "torch.distributed.run", *how, "--master-port", port]
        command += ["-m", "fasttune", "train", str(recipe), "--output", "run", "--resume"]
        own = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(place / "cache")}
        with (place / "stderr.txt").open("w") as errors:
            started.append(subprocess.Popen(command, cwd=place, env=own, stderr=errors, text=True))
    return started


def kill_all_of(process: subprocess.Popen[str]) -> None:
    """As when a machine goes down."""
    everything = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in everything:
        with suppress(psutil.NoSuchProcess):
            one.kill()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = make_recipe(tmp_path, num_steps=60)
    save_tiny_model(tmp_path / "model", **WITHOUT_DROPOUT)
    return path


def test_a_machine_that_is_lost_ends_the_other_and_the_run_goes_on(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "node-0" / "run"
    both = launched(tmp_path, recipe)
    try:
        forks.wait_for(lambda: last_step(run) >= 15, both[0])
        kill_all_of(both[1])
        assert both[0].wait(60) != 0
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert "E542" in (tmp_path / "node-0" / "stderr.txt").read_text()
    assert 15 <= last_step(run) < 60
    both = launched(tmp_path, recipe)
    assert [process.wait(200) for process in both] == [0, 0], (tmp_path / "node-0/stderr.txt").read_text()
    assert not (tmp_path / "node-1" / "run").exists()
    assert (tmp_path / "node-1" / "cache" / "fasttune").exists(), "a cache of its own"
    fasttune.fit(recipe, output=tmp_path / "alone", progress=False)
    check_same(run, tmp_path / "alone")
