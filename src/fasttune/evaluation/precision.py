"""The precision in which a finished run answers on this machine, if training chose its own by itself."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from statistics import median

import torch

from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, read_json, write_json
from fasttune.security.cache import cache_folder
from fasttune.tasks import Task
from fasttune.training.flops import cpu_name
from fasttune.training.model import load_config
from fasttune.training.precision import REQUESTED, Choice, choose_device, fast_precision
from fasttune.training.setup import Setup, set_up

PASSES = 5
SHAPES = ((1, 24), (8, 128))  # a short request alone, and a batch: [B, S]
CLEARLY = 1.1  # times as fast as the run's own precision; less is noise


def precision_here(folder: RunFolder, recipe: Recipe, task: Task, measures: bool) -> Choice | None:
    """Another precision than the run's, if that is slow here; None to keep it.

    A run that was trained in bf16 or fp16 on another machine answers in fp32 where a device is slow in it, or cannot
    compute in it. With `measures`, a CPU that has bf16 is timed in both, once per model and machine.
    """
    own = recipe.training.precision
    if folder.environment.exists() and read_json(folder.environment)["precision"]["reason"] == REQUESTED:
        return None
    device = choose_device(recipe.training.device).value
    here = fast_precision(device)
    if own not in (here.value, "fp32"):
        return here
    if not measures or device != "cpu" or here.value == "fp32":
        return None
    seconds = _seconds(folder, recipe, task)
    fastest = min(seconds, key=lambda precision: seconds[precision])
    gain = seconds[own] / seconds[fastest]
    return Choice(fastest, f"measured on this CPU: {gain:.1f}x as fast as {own}") if gain >= CLEARLY else None


def _seconds(folder: RunFolder, recipe: Recipe, task: Task) -> dict[str, float]:
    """The time of the same work in fp32 and bf16, from the cache if it was measured before."""
    path = cache_folder("precision") / f"{_key(folder)}.json"
    with suppress(OSError, ValueError):  # not measured yet, or damaged
        return {precision: float(seconds) for precision, seconds in read_json(path).items()}
    measured = {precision: _time(folder, recipe, task, precision) for precision in ("fp32", "bf16")}
    with suppress(OSError):  # only a cache
        write_json(path, measured)
    return measured


def _key(folder: RunFolder) -> str:
    """What the speed depends on: the CPU, its threads, torch, and the sizes of the model."""
    config = load_config(str(folder.path)).to_dict()
    sizes = sorted(
        (name, value) for name, value in config.items() if isinstance(value, int) and not name.endswith("_id")
    )
    about = [cpu_name(), torch.get_num_threads(), torch.__version__, config["model_type"], sizes]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


@torch.no_grad()
def _time(folder: RunFolder, recipe: Recipe, task: Task, precision: str) -> float:
    setup = set_up(load_recipe(recipe, {"training": {"precision": precision}}), str(folder.path), task)
    prepare_for_predictions(setup)
    model = setup.model.eval()
    total = 0.0
    for batch, length in SHAPES:
        ids = torch.full((batch, min(length, setup.max_length)), setup.tokenizer.unk_token_id or 0)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        times = []
        for _ in range(1 + PASSES):
            begin = time.perf_counter()
            model(**inputs)
            times.append(time.perf_counter() - begin)
        total += median(times[1:])
    return total


def prepare_for_predictions(setup: Setup) -> None:
    """Cast the weights of linear layers to bf16 once, as autocast on a CPU would in every forward pass.

    The outputs stay the same bits. For a short request, casting takes as long as the rest.
    """
    if setup.accelerator.device.type == "cpu" and setup.accelerator.mixed_precision == "bf16":
        for module in setup.model.modules():
            if type(module) is torch.nn.Linear:
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.bfloat16()
