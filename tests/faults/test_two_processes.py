"""Two processes: what befalls one of them ends both, soon, and the same command goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from faulty import events, make_recipe, sha256, train, trouble

pytestmark = pytest.mark.slow
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

ONE_SLEEPS = """
import sys, time
from fasttune.observers import watchdog
watchdog.LEAST, watchdog.TICK, watchdog.PATIENCE = 15.0, 0.1, 15.0
import fasttune
from fasttune import distributed
def observer(event):
    if event.name == "step" and event.step == 5 and not distributed.is_main():
        time.sleep(600)
fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False, observers=[observer])
"""

ONE_IS_BROKEN = """
import sys
import fasttune
from fasttune import distributed
from fasttune.tasks.text_classification import TextClassification
real = TextClassification.loss
def loss(self, outputs, batch, training):
    total, weight = real(self, outputs, batch, training)
    return (total * float("nan") if training and broken else total), weight
TextClassification.loss = loss
broken = False
def observer(event):
    global broken
    broken = event.name == "step" and event.step == 5 and not distributed.is_main()
try:
    fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False, observers=[observer])
except fasttune.Error as error:
    sys.exit(error.exit_code)
"""


def launched(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*LAUNCH, *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, cwd=folder)


def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, num_steps=120)
    arguments = ["-m", "fasttune", *train(recipe, tmp_path / "run")]
    with subprocess.Popen([*LAUNCH, *arguments], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as launcher:
        while max((event["step"] for event in events(tmp_path / "run")), default=0) < 20:
            assert launcher.poll() is None
            time.sleep(0.01)
        psutil.Process(launcher.pid).children()[1].kill()
        assert launcher.wait(60) != 0
    assert trouble(tmp_path / "run") == []
    assert launched(tmp_path, *arguments).returncode == 0
    whole = ["-m", "fasttune", *train(recipe, tmp_path / "whole")]
    assert launched(tmp_path, *whole).returncode == 0
    assert sha256(tmp_path / "run") == sha256(tmp_path / "whole")


def test_torchrun_starts_both_again_and_they_go_on(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, num_steps=120)
    command = [*LAUNCH, "--max-restarts", "1", "-m", "fasttune", *train(recipe, tmp_path / "run")]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as launcher:
        while max((event["step"] for event in events(tmp_path / "run")), default=0) < 20:
            assert launcher.poll() is None
            time.sleep(0.01)
        psutil.Process(launcher.pid).children()[1].kill()
        assert launcher.wait(120) == 0
    steps = [event["step"] for event in events(tmp_path / "run") if event["event"] == "step"]
    assert steps == list(range(1, 121))


def test_a_process_that_sleeps_for_ever_ends_both_with_a_report(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "sleeps.py").write_text(ONE_SLEEPS)
    done = launched(tmp_path, str(tmp_path / "sleeps.py"), str(recipe), str(tmp_path / "run"))
    assert done.returncode != 0 and "no progress for 15 s, after step 5" in done.stderr
    reports = sorted(path.name for path in (tmp_path / "run").glob("hang-*.txt"))
    assert reports, "whoever noticed it first"


def test_a_loss_that_is_broken_in_one_process_stops_both(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "broken.py").write_text(ONE_IS_BROKEN)
    done = launched(tmp_path, str(tmp_path / "broken.py"), str(recipe), str(tmp_path / "run"))
    assert done.returncode != 0 and "exitcode  : 6" in done.stderr
    diverged = [event for event in events(tmp_path / "run") if event["event"] == "diverged"]
    assert [(event["step"], event["loss"], len(event["rows"])) for event in diverged] == [(5, "nan", 8)]


def test_a_process_without_a_share_waits_for_nobody(tmp_path: Path) -> None:
    """57 rows in steps of 8: the last step of an epoch has one row for two processes."""
    recipe = make_recipe(tmp_path, num_steps=17)
    rows = (tmp_path / "reviews.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(rows[:58]))
    changes = [f"data.train={tmp_path / 'train.csv'}", f"data.validation={tmp_path / 'reviews.csv'}"]
    arguments = ["-m", "fasttune", *train(recipe, tmp_path / "run", *changes)]
    done = launched(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [event for event in events(tmp_path / "run") if event["event"] == "step"]
    store = sum(event["num_tokens"] for event in steps[:8])
    assert store == sum(event["num_tokens"] for event in steps[8:16]), "an epoch each: every row once"
