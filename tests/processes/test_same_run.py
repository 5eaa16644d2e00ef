"""The same recipe is the same training on any number of processes, whole copies or shares, and across a resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
import yaml
from exact import NUM_STEPS, TASKS, make_recipes
from launched import (
    SHARDED,
    WITHOUT_DROPOUT,
    WORKER,
    check_same,
    launch,
    steps,
)

import fasttune
from fasttune.runs.checkpoint.find import all_steps
from fasttune.runs.folder import RunFolder, read_json


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes of all tasks, several micro-batches a step, most words unused, and a run of each in this process."""
    folder = tmp_path_factory.mktemp("alone")
    # With weight decay all rows of the embeddings are trained.
    others = {"text-classification": {"max_grad_norm": 0}, "token-classification": {"weight_decay": 0.1}}
    for task, recipe in make_recipes(folder, vocab_size=400, **WITHOUT_DROPOUT).items():
        recipe["training"] |= {"precision": "fp32", "tokens_per_microbatch": 60, **others.get(task, {})}
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(recipe))
        fasttune.fit(folder / f"{task}.yaml", output=folder / "runs" / task, progress=False)
    return folder


@pytest.mark.parametrize(
    ("num_processes", "how", "expected", "tasks"),
    [
        (2, {}, "DDP", TASKS),
        (2, SHARDED, "FSDP2", TASKS),
        (4, SHARDED, "FSDP2", TASKS[-1:]),
    ],
    ids=["2 DDP", "2 FSDP2", "4 FSDP2"],
)
def test_any_number_of_processes(
    alone: Path, tmp_path: Path, num_processes: int, how: dict[str, str], expected: str, tasks: tuple[str, ...]
) -> None:
    """benchmarks/processes.py has all tasks on 4."""
    only = [] if tasks == TASKS else ["--only", tasks[0]]
    done = launch(num_processes, WORKER, alone, tmp_path, *only, **how)
    assert done.returncode == 0, done.stderr[-4000:]
    for task in tasks:
        chosen = read_json(RunFolder(tmp_path / task).environment)
        assert (chosen["num_processes"], chosen["parallel"]["value"]) == (num_processes, expected)
        check_same(tmp_path / task, alone / "runs" / task)


def alone_and_together(folder: Path, recipe: dict[str, Any], how: dict[str, str]) -> tuple[Path, Path]:
    """A run of one process, and one of two."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    fasttune.fit(folder / "recipe.yaml", output=folder / "alone", progress=False)
    done = launch(2, WORKER, folder, folder / "runs", **how)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "alone", folder / "runs" / "recipe"


@pytest.mark.parametrize("how", [{}, SHARDED], ids=["DDP", "FSDP2"])
def test_in_bf16_with_layers_computed_again(tmp_path: Path, how: dict[str, str]) -> None:
    """The losses are those of one process to what bf16 can tell apart."""
    recipe = make_recipes(tmp_path, **WITHOUT_DROPOUT)["text-classification"]
    recipe["training"] |= {"precision": "bf16", "tokens_per_microbatch": 60, "gradient_checkpointing": True}
    losses = [[step["loss"] for step in steps(run)] for run in alone_and_together(tmp_path, recipe, how)]
    np.testing.assert_allclose(*losses, rtol=0.01)


@pytest.mark.parametrize("how", [{}, SHARDED], ids=["DDP", "FSDP2"])
def test_a_stream(tmp_path: Path, how: dict[str, str]) -> None:
    """Each process reads all of it and trains on its share."""
    recipe = make_recipes(tmp_path, **WITHOUT_DROPOUT)["text-classification"]
    recipe["training"] |= {"precision": "fp32", "tokens_per_microbatch": 60}
    recipe["data"] |= {"streaming": True, "shuffle_buffer_size": 20}
    alone, together = alone_and_together(tmp_path, recipe, how)
    check_same(together, alone)


@pytest.mark.parametrize("how", [{}, SHARDED], ids=["DDP", "FSDP2"])
def test_frozen_layers_a_mean_head_and_masked_words(tmp_path: Path, how: dict[str, str]) -> None:
    recipe = make_recipes(tmp_path, **WITHOUT_DROPOUT)["text-classification"]
    recipe["model_head"] = "mean"
    recipe["training"] |= {"precision": "fp32", "tokens_per_microbatch": 60, "freeze_layers": 1, "mlm_epochs": 1}
    recipe["training"] |= {"head_learning_rate": 1e-3, "layer_decay": 0.8}
    alone, together = alone_and_together(tmp_path, recipe, how)
    check_same(together, alone)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile calls g++")
def test_compiled_layers(tmp_path: Path) -> None:
    recipe = make_recipes(tmp_path, **WITHOUT_DROPOUT)["text-classification"]
    recipe["training"] |= {"precision": "fp32", "tokens_per_microbatch": 60}
    fasttune.fit(recipe, output=tmp_path / "alone", progress=False)
    recipe["training"] |= {"compile": True}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = launch(2, WORKER, tmp_path, tmp_path / "runs", PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr[-4000:]
    check_same(tmp_path / "runs" / "recipe", tmp_path / "alone")


def test_a_resume_on_another_number_of_processes(alone: Path, tmp_path: Path) -> None:
    """Two processes, one, two with shards, one: the run ends like one that was never interrupted."""
    task = "question-answering"
    for num_processes, stop, how in [(2, 2, {}), (1, 3, {}), (2, 5, SHARDED), (1, None, {})]:
        words = ["--only", task, *([] if stop is None else ["--stop-at", stop])]
        done = launch(num_processes, WORKER, alone, tmp_path, *words, **how)
        # A run that was stopped returns; torchrun sees no failure.
        assert done.returncode == 0, done.stderr[-4000:]
        assert all_steps(RunFolder(tmp_path / task).checkpoints)[-1] == (stop or NUM_STEPS)
    check_same(tmp_path / task, alone / "runs" / task)


LAST_WORD = """
import os, time
from fasttune.parallel import collectives, rendezvous
if os.environ["RANK"] == "1":
    rendezvous.FIRST_PAUSE = rendezvous.LONGEST_PAUSE = 1.0
rendezvous.rendezvous({})
time.sleep(0.3 if os.environ["RANK"] == "0" else 0)
collectives.barrier()
"""


def test_who_looks_late_hears_the_last_word_of_process_0(tmp_path: Path) -> None:
    """Process 0 holds the store, as under Slurm, and has nothing left to do."""
    script = tmp_path / "script.py"
    script.write_text(LAST_WORD)
    done = forks.run_ranks(2, [], script=script)
    assert done.codes == [0, 0], done.errors
