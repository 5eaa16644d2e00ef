"""Two processes: a failure of one ends both soon, and the same command resumes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import forks
import psutil
import pytest
from faulty import events, last_step, make_recipe, sha256, train, trouble

NUM_STEPS, KILL_AT = 40, 10

ONE_SLEEPS = """
import sys, time
import fasttune
from fasttune.parallel import collectives
from fasttune.training import trainer
from fasttune.training import watchdog
watchdog.MIN_SECONDS, watchdog.TICK = 1.0, 0.1
def observer(event):
    if event.name == "step" and event.step == 4:
        trainer.PATIENCE = 1.5
    if event.name == "step" and event.step == 5 and not collectives.is_main():
        time.sleep(600)
fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False, observers=[observer])
"""

ONE_IS_BROKEN = """
import sys
import fasttune
from fasttune.parallel import collectives
from fasttune.tasks.text_classification import TextClassification
real = TextClassification.loss
def loss(self, outputs, batch, training):
    total = real(self, outputs, batch, training)
    return total * float("nan") if training and broken else total
TextClassification.loss = loss
broken = False
def observer(event):
    global broken
    broken = event.name == "step" and event.step == 5 and not collectives.is_main()
try:
    fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False, observers=[observer])
except fasttune.Error as error:
    sys.exit(error.exit_code)
"""


def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, num_steps=NUM_STEPS)
    ranks = forks.start_ranks(2, train(recipe, tmp_path / "run"))
    forks.wait_for(lambda: last_step(tmp_path / "run") >= KILL_AT, ranks[0])
    ranks[1].kill()
    killed = forks.ended(ranks)
    assert killed.codes == [5, -9] and "E542" in killed.errors[0]
    assert trouble(tmp_path / "run") == []
    for name in ("run", "whole"):
        done = forks.run_ranks(2, train(recipe, tmp_path / name))
        assert done.returncode == 0, done.stderr[-3000:]
    assert sha256(tmp_path / "run") == sha256(tmp_path / "whole")


@pytest.mark.slow
def test_torchrun_starts_both_again_and_they_go_on(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, num_steps=NUM_STEPS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "fasttune", *train(recipe, tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as launcher:
        forks.wait_for(lambda: last_step(tmp_path / "run") >= KILL_AT, launcher)
        psutil.Process(launcher.pid).children()[1].kill()
        assert launcher.wait(120) == 0
    steps = [event["step"] for event in events(tmp_path / "run") if event["event"] == "step"]
    assert steps == list(range(1, NUM_STEPS + 1))


def test_a_process_that_sleeps_for_ever_ends_both_with_a_report(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "sleeps.py").write_text(ONE_SLEEPS)
    done = forks.run_ranks(2, [recipe, tmp_path / "run"], script=tmp_path / "sleeps.py")
    # Whoever notices first ends with the report; the other may find the connection gone before its own time is up.
    assert 5 in done.codes and 0 not in done.codes and ", after step 5" in done.stderr
    reports = sorted(path.name for path in (tmp_path / "run").glob("hang-*.txt"))
    assert reports, "whoever noticed it first"


def test_a_loss_that_is_broken_in_one_process_stops_both(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "broken.py").write_text(ONE_IS_BROKEN)
    done = forks.run_ranks(2, [recipe, tmp_path / "run"], script=tmp_path / "broken.py")
    assert done.codes == [6, 6]
    diverged = [event for event in events(tmp_path / "run") if event["event"] == "diverged"]
    assert [(event["step"], event["loss"], len(event["rows"])) for event in diverged] == [(5, "nan", 8)]


def test_a_process_without_a_share_waits_for_nobody(tmp_path: Path) -> None:
    """57 rows in steps of 8: the last step of an epoch has one row for two processes."""
    recipe = make_recipe(tmp_path, num_steps=17)
    rows = (tmp_path / "reviews.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(rows[:58]))
    changes = [f"data.train={tmp_path / 'train.csv'}", f"data.validation={tmp_path / 'reviews.csv'}"]
    done = forks.run_ranks(2, train(recipe, tmp_path / "run", *changes))
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [event for event in events(tmp_path / "run") if event["event"] == "step"]
    store = sum(event["num_tokens"] for event in steps[:8])
    assert store == sum(event["num_tokens"] for event in steps[8:16]), "an epoch each: every row once"
