"""Compares runs that were stopped and resumed with an uninterrupted one, for every task, precision and batch split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from faulty import events, stop_at
from safetensors.torch import load_file
from tiny import make_questions, make_rows, make_sentences, save_tiny_model, write_csv, write_jsonl

import fasttune
from fasttune import recipe as recipes
from fasttune.parallel.collectives import barrier, is_main
from fasttune.runs.checkpoint.find import all_steps
from fasttune.runs.checkpoint.write import path_of
from fasttune.runs.folder import RunFolder
from fasttune.training.prepare import prepare
from fasttune.training.run import TrainingRun

NUM_STEPS = 6  # of an epoch
TASKS = ("text-classification", "question-answering", "token-classification")
BUDGETS = {1: 100_000, 2: 90, 4: 45}  # micro-batches of a step, about -> tokens in one


def make_recipes(folder: Path, **model: Any) -> dict[str, dict[str, Any]]:
    """Task -> a recipe of one epoch of six steps with dropout; made by the main process. `model`: of its config."""
    rows = {
        "text-classification": ("rows.csv", lambda path: write_csv(path, make_rows(48))),
        "question-answering": ("questions.jsonl", lambda path: write_jsonl(path, make_questions(48, longest=20))),
        "token-classification": ("words.jsonl", lambda path: write_jsonl(path, make_sentences(48))),
    }
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        save_tiny_model(folder / "model", **model)
        for name, write in rows.values():
            write(folder / name)
    barrier()
    return {
        task: {
            "task": task,
            "model": str(folder / "model"),
            "data": {"train": str(folder / name), "validation": str(folder / name)},
            "training": {"max_steps": NUM_STEPS, "learning_rate": 1e-3, "device": "cpu"},
            "evaluation": {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"},
            "output": {"save_strategy": "steps", "save_steps": NUM_STEPS},
            "tracking": {"report_to": "none"},
            **({"preprocessing": {"doc_stride": 8}} if task == "question-answering" else {}),
        }
        for task, (name, _) in rows.items()
    }


def losses(run: Path) -> list[float]:
    """Of each step."""
    return [event["loss"] for event in events(run) if event["event"] == "step"]


def built(asked: dict[str, Any], folder: Path) -> TrainingRun:
    """The run before its first step."""
    return prepare(recipes.load(asked), RunFolder(folder), lambda line: None)


def differences(run: Path, other: Path) -> Iterator[str]:
    """Weights, moments, state, everything logged, predictions: what is not the same in both."""
    one, two = RunFolder(run), RunFolder(other)
    if one.weights.read_bytes() != two.weights.read_bytes():
        yield "published weights"
    steps = [all_steps(folder.checkpoints)[-1] for folder in (one, two)]
    if steps[0] != steps[1]:
        yield f"last checkpoint {steps}"
    for stem in ("model", "optimizer"):
        tensors = [load_file(path_of(folder.checkpoints, steps[0]) / f"{stem}.safetensors") for folder in (one, two)]
        if tensors[0].keys() != tensors[1].keys() or not all(map(torch.equal, *(part.values() for part in tensors))):
            yield f"{stem} of the last checkpoint"
    if learned(run) != learned(other):
        yield "events"
    for path in sorted((run / "predictions").iterdir()):
        if path.read_bytes() != (other / "predictions" / path.name).read_bytes():
            yield path.name


def learned(run: Path) -> list[dict[str, Any]]:
    """Steps and evaluations without what a clock says."""
    clocks = ("time", "seconds", "eval_runtime", "eval_samples_per_second")
    kept = (event for event in events(run) if event["event"] in ("step", "evaluation"))
    return [{name: value for name, value in event.items() if name not in clocks} for event in kept]


def try_all_stops(
    recipe: dict[str, Any], folder: Path, precision: str, num_microbatches: int, steps: range, here: bool = True
) -> dict[int, list[str]]:
    """Step of the stop -> what differs from the uninterrupted run. `here`: whether this process gets the signal."""
    how = {"precision": precision, "tokens_per_microbatch": BUDGETS[num_microbatches]}
    recipe = {**recipe, "training": {**recipe["training"], **how}}
    undisturbed = folder / "undisturbed"
    fasttune.fit(recipe, output=undisturbed, progress=False)
    found = {}
    for step in steps:
        run = folder / f"stopped-{step}"
        stopped = fasttune.fit(recipe, output=run, progress=False, observers=[stop_at(step, here)])
        assert not stopped.is_complete, f"{run} was not stopped"
        fasttune.fit(recipe, output=run, progress=False, resume=True)
        barrier()
        found[step] = list(differences(run, undisturbed)) if is_main() else []
    return found
