"""The command for a GPU, with tiny models on a CPU: it keeps what is done, says what is left and continues."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / "gpu.py"), "--tiny", "--rounds", "1", "--out"]
SPEED = "bert-base squad_v1 fasttune-0-eager 1"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, str(folder), *words], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_command_for_a_gpu_keeps_its_parts(tmp_path: Path) -> None:
    nothing = run(tmp_path, "--minutes", "0")
    assert nothing.returncode == 3 and nothing.stdout.startswith("34 parts left: tests kernels, tests families, "), (
        nothing.stderr
    )
    assert run(tmp_path, "--only", "waits").returncode == 0
    done = run(tmp_path, "--only", SPEED)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())["results"]
    assert set(results) == {"waits", SPEED} and results["waits"]["ms a step"] > 0
    speed = results[SPEED]
    assert 1 < speed["wall_tokens_per_second"] / speed["wall_examples_per_second"] < 384
    page = next(tmp_path.glob("*-gpu-*.md")).read_text()
    assert f"{speed['wall_tokens_per_second']:,.0f}" in page and "Waits: " in page
    assert run(tmp_path, "--minutes", "0").stdout.startswith("32 parts left: tests kernels, ")
