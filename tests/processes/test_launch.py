"""`--processes` and `notebook_fit`: accelerate's launchers, with the exit codes and words of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import forks
import psutil
import pytest
from faulty import events, last_step, make_recipe, trouble
from launched import ACCELERATE_LAUNCH, COMMAND, configured, launch, trained
from tiny import make_rows, write_csv

from fasttune.runs.folder import RunFolder, read_json

CONFIG = (
    "distributed_type: FSDP\nfsdp_config:\n  fsdp_version: 2\n  fsdp_reshard_after_forward: true\nnum_processes: 2\n"
)

IN_A_NOTEBOOK = """
import sys
import fasttune
run = fasttune.notebook_fit(sys.argv[1], 2, output=sys.argv[2], progress=False)
print(run.folder, run.is_complete, run.reason, "eval_accuracy" in run.metrics)
try:
    fasttune.notebook_fit({"data": {"train": "missing.csv"}, "task": "text-classification"}, 2, progress=False)
except fasttune.Error as error:
    print(type(error).__name__, error.exit_code)
"""

OUT_OF_MEMORY = """
import sys
import fasttune
from fasttune.parallel import collectives
from fasttune.tasks.text_classification import TextClassification
real = TextClassification.loss
def loss(self, outputs, batch, training):
    if training and batch.num_tokens > 70 and not collectives.is_main():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
    return real(self, outputs, batch, training)
TextClassification.loss = loss
fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False)
"""


def test_processes(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    done = trained(tmp_path, str(recipe), "--processes", "2", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        json.loads(done.stdout)["eval_accuracy"] == read_json(RunFolder(tmp_path / "run").all_results)["eval_accuracy"]
    )
    assert read_json(RunFolder(tmp_path / "run").environment)["num_processes"] == 2
    assert not any(word in done.stderr for word in ("torch.distributed", "Traceback", "Warning"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(COMMAND, ["--processes", "2"], id="own", marks=pytest.mark.slow),
        pytest.param(ACCELERATE_LAUNCH, [], id="accelerate launch"),
    ],
)
def test_a_config_file_of_accelerate(tmp_path: Path, command: list[str], words: list[str]) -> None:
    recipe, home = make_recipe(tmp_path), configured(tmp_path, CONFIG)
    done = trained(tmp_path, str(recipe), *words, "--output", "run", command=command, OMP_NUM_THREADS="1", **home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    environment = read_json(RunFolder(tmp_path / "run").environment)
    assert environment["parallel"]["value"] == "FSDP2" and environment["num_processes"] == 2


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    done = trained(tmp_path, str(recipe), "data.columns.label=lable", "--processes", "2", "--output", "run")
    assert done.returncode == 4
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_interrupt_saves_once_and_has_its_code(tmp_path: Path) -> None:
    recipe, run = make_recipe(tmp_path, num_steps=4000), tmp_path / "run"
    command = [*COMMAND, str(recipe), "--processes", "2", "--output", str(run), "output.save_steps=1000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        forks.wait_for(lambda: last_step(run) >= 10, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.count("Resume with: fasttune train") == 1
    assert trouble(run) == []
    assert events(run)[-1]["event"] == "end"


@pytest.mark.slow
def test_a_notebook(tmp_path: Path) -> None:
    script = tmp_path / "cell.py"
    script.write_text(IN_A_NOTEBOOK)
    command = [sys.executable, str(script), str(make_recipe(tmp_path)), str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert f"{tmp_path / 'run'} True all 12 steps done True" in lines
    assert "DataError 4" in lines


def test_out_of_memory_in_one_process_halves_the_budget_of_both(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, tokens_per_microbatch=200)
    (tmp_path / "script.py").write_text(OUT_OF_MEMORY)
    done = launch(2, tmp_path / "script.py", recipe, tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    found = events(tmp_path / "run")
    halved = [event["tokens_per_microbatch"] for event in found if event["event"] == "out_of_memory"]
    assert halved and halved[-1] <= 70
    steps = [event for event in found if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 13))


@pytest.mark.slow
def test_deepspeed_in_the_accelerate_config_is_refused(tmp_path: Path) -> None:
    config = "distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 2\nnum_processes: 2\n"
    recipe, home = make_recipe(tmp_path), configured(tmp_path, config)
    done = trained(tmp_path, str(recipe), "--processes", "2", "--output", "run", **home)
    assert done.returncode == 5
    assert done.stderr.startswith("error: E543") and "fsdp_version: 2" in done.stderr


@pytest.mark.slow
def test_a_launch_on_one_machine_listens_to_nobody_else(tiny_model: Path, tmp_path: Path) -> None:
    """Stores of torch take orders from whoever reaches them; here only this machine does."""
    rows = write_csv(tmp_path / "rows.csv", make_rows(200))
    settings = [f"model={tiny_model}", "training.max_steps=60", "training.device=cpu", "training.precision=fp32"]
    words = ["train", rows, *settings, "tracking.report_to=none", "--processes", "2", "--output", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fasttune", *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    family, listening = psutil.Process(process.pid), set()
    while process.poll() is None:
        with suppress(psutil.Error):
            for one in (family, *family.children(recursive=True)):
                with suppress(psutil.Error):
                    found = one.net_connections(kind="inet")
                    listening |= {
                        connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN
                    }
        time.sleep(0.02)
    assert process.returncode == 0 and listening and listening <= {"127.0.0.1", "::1"}


COLLECTIVES = """
import collections, json, sys
import torch.distributed
import fasttune
calls = collections.Counter()
def counted(name):
    real = getattr(torch.distributed, name)
    def call(*args, **how):
        calls[name] += 1
        return real(*args, **how)
    setattr(torch.distributed, name, call)
for name in ("all_gather", "all_gather_object", "all_reduce", "broadcast", "barrier", "reduce", "gather"):
    counted(name)
steps = []
def watch(event):
    if event.name == "step":
        steps.append(dict(calls))
        calls.clear()
fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False, observers=[watch])
print(json.dumps(steps[1::2]))  # no save or evaluation comes between an odd step and the next
"""


def test_a_step_exchanges_numbers_once(tmp_path: Path) -> None:
    """Besides the gradients: weights and failures between hosts, then the loss, and before it who asked to stop."""
    recipe = make_recipe(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(COLLECTIVES)
    done = launch(2, script, recipe, tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads(done.outputs[0])
    assert len(steps) > 2 and all(step == {"all_gather": 2, "all_reduce": 1} for step in steps), steps
