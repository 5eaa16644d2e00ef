"""The files for clusters in examples/cluster, run as they stand on two machines that are this one.

Both were tried by hand, too: the first with Slurm 22.05 and two nodes on one machine (it saved at the signal, queued
itself again and resumed), the second was read by SkyPilot 0.14.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from faulty import make_recipe
from launched import LIMIT

from fasttune.runs.folder import RunFolder, read_json

pytestmark = pytest.mark.slow
CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"
# What Slurm's commands do for two machines: the same command on each, and the names of both.
SRUN = """#!/bin/bash
shift
SLURM_PROCID=0 "$@" &
first=$!
SLURM_PROCID=1 "$@"
second=$?
wait $first && exit $second
"""
SCONTROL = """#!/bin/bash
if [ "$1" = requeue ]; then touch requeued; else printf '127.0.0.1\\n127.0.0.1\\n'; fi
"""


def finished(folder: Path) -> None:
    run = RunFolder(folder)
    assert read_json(run.environment)["num_processes"] == 2
    assert "eval_accuracy" in read_json(run.all_results)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables}


def test_slurm(tmp_path: Path) -> None:
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    given = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "n[1-2]"}
    job = environment(tmp_path, SLURM_JOB_ID=str(os.getpid()), **given)
    command = ["bash", str(CLUSTER / "slurm.sbatch"), str(make_recipe(tmp_path)), "run"]
    done = subprocess.run(command, cwd=tmp_path, env=job, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    finished(tmp_path / "run")
    assert not (tmp_path / "requeued").exists()


def test_skypilot(tmp_path: Path) -> None:
    file = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    assert file["num_nodes"] == 2 and set(file["envs"]) == {"RECIPE", "MIRROR"}
    given = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "1", "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1"}
    given |= {"RECIPE": str(make_recipe(tmp_path)), "MIRROR": f"file://{tmp_path / 'mirror'}"}
    machines = []
    for rank in ("0", "1"):
        own = environment(tmp_path, SKYPILOT_NODE_RANK=rank, **given)
        (tmp_path / rank).mkdir()
        machines.append(
            subprocess.Popen(
                ["bash", "-c", file["run"]], cwd=tmp_path / rank, env=own, stderr=subprocess.PIPE, text=True
            )
        )
    for machine in machines:
        _, errors = machine.communicate(timeout=LIMIT)
        assert machine.returncode == 0, errors[-3000:]
    finished(tmp_path / "0" / "run")
    assert not (tmp_path / "1" / "run" / "all_results.json").exists(), "the first machine writes"
    assert (tmp_path / "mirror" / "all_results.json").exists()
