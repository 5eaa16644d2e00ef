"""Whether torch.compile makes the layers of the encoder faster on this machine: measured before training.

It fuses small operations, so that a GPU is given fewer kernels to start: what small models are limited by. Programs are
made for any number of tokens. On CPUs it is slower than torch's own kernels (docs/decisions/0038).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch

from fasttune.data.batching.collate import MicroBatch, collate
from fasttune.data.batching.plan import longest_first, split_by_budget
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import EnvironmentProblem, Problem, RecipeError
from fasttune.parallel.collectives import broadcast_object, is_main, raise_on_all_ranks
from fasttune.recipe import Recipe
from fasttune.tasks import Task
from fasttune.training.memory import MicroBatchOOM, as_micro_batch_oom
from fasttune.training.precision import REQUESTED, Choice
from fasttune.training.setup import Setup
from fasttune.training.step import run_model
from fasttune.training.wrapping import FSDP2
from fasttune.unpadding import compiled_layers, is_padding_free, layers_to_compile
from fasttune.unpadding.families import OWN_ATTENTION

YES, NO = "true", "false"
NUM_SIZES, PASSES = 3, 4  # micro-batches that are timed, and how often each
COMPILE_SECONDS = 60.0  # for a layer, forward and backward (assumption, not measured on a GPU; 20 s on two CPU cores)
BEST_GAIN = 0.3  # of the time of a step (assumption): a run too short to win COMPILE_SECONDS back is not measured
LEAST_GAIN = 0.03  # less is noise


def choose_compile(recipe: Recipe, setup: Setup, task: Task, store: TokenStore, num_steps: float) -> Choice:
    """Whether to compile the layers, for a run of `num_steps`; RecipeError if it was asked for and cannot be done."""
    asked = recipe.training.compile
    if asked is False:
        return Choice(NO, REQUESTED)
    obstacle = _obstacle(recipe, setup)
    if asked is True:
        if obstacle:
            hint = "training.compile=false; a run that resumes needs --allow-changes for that"
            raise RecipeError(Problem(where="training.compile", found=f"true, but {obstacle}", hint=hint, code="E419"))
        return Choice(YES, REQUESTED)
    if obstacle:
        return Choice(NO, obstacle)
    if setup.accelerator.device.type != "cuda":
        return Choice(NO, f"no faster on {setup.accelerator.device.type}")
    batches = sample(recipe, setup, store)
    on_rank = recipe.training.batch_size / setup.accelerator.num_processes
    num_passes = num_steps * math.ceil(on_rank / len(batches[0].examples))
    measured = raise_on_all_ranks(lambda: vars(measure(setup, task, batches, num_passes)) if is_main() else None)
    return Choice(**broadcast_object(measured))


def _obstacle(recipe: Recipe, setup: Setup) -> str:
    """Why the layers of this run cannot be compiled, in words, or ""."""
    if not is_padding_free(setup.model):
        return "the model runs padded"
    if setup.model.config.model_type in OWN_ATTENTION:
        return "the attention of this family runs in Python loops"
    if not layers_to_compile(setup.model):
        return "this model has no layer to compile"
    if setup.choices["parallel"].value == FSDP2:
        return "FSDP2 shards the layers"
    if recipe.training.gradient_checkpointing:
        return "training.gradient_checkpointing computes the layers again"
    if recipe.training.freeze_layers:
        return "training.freeze_layers keeps what layers compute"
    return ""


def sample(recipe: Recipe, setup: Setup, store: TokenStore) -> list[MicroBatch]:
    """Micro-batches of several sizes; the same whenever this run starts or resumes."""
    batches = []
    for number in range(NUM_SIZES):
        rows = np.arange(number * recipe.training.batch_size, (number + 1) * recipe.training.batch_size) % len(store)
        order = longest_first(np.unique(rows), store.lengths)
        examples = split_by_budget(order, store.lengths, setup.tokens_per_microbatch, setup.padded)[0]
        batches.append(collate(store, examples, setup.padding))
    return batches


def measure(setup: Setup, task: Task, batches: Sequence[MicroBatch], num_passes: float) -> Choice:
    """The choice for a run of `num_passes` forward and backward passes like these."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        with as_micro_batch_oom():
            eager = _seconds(setup, task, batches)
            if num_passes * eager * BEST_GAIN < COMPILE_SECONDS:
                return Choice(NO, "the run is too short to win back the time that it takes to compile")
            begin = time.perf_counter()
            with compiled_layers(setup.model):
                faster = _seconds(setup, task, batches)
    except MicroBatchOOM:  # the first step will be repeated in smaller ones
        return Choice(NO, "a micro-batch did not fit into memory when this was measured")
    except TorchDynamoException as error:
        return Choice(NO, f"torch.compile failed: {_first_line(error)}")
    spent = time.perf_counter() - begin
    times = f"{eager * 1e3:.1f} ms for a micro-batch, {faster * 1e3:.1f} ms compiled, after {spent:.0f} s"
    return Choice(YES if faster < eager * (1 - LEAST_GAIN) else NO, times)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _seconds(setup: Setup, task: Task, batches: Sequence[MicroBatch]) -> float:
    """The median of forward and backward passes, after each batch has run twice."""
    times = []
    for turn in range(PASSES + 2):
        for batch in batches:
            begin = time.perf_counter()
            run_once(setup, task, batch)
            if turn >= 2:
                times.append(time.perf_counter() - begin)
    return statistics.median(times)


def run_once(setup: Setup, task: Task, batch: MicroBatch) -> None:
    """A forward and backward pass that leaves no gradients and draws no random numbers, also if it fails."""
    model, device = setup.model, setup.accelerator.device
    was_training = model.training
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            model.train()
            batch = batch.to(device)
            setup.accelerator.backward(task.loss(run_model(model, batch), batch, training=True))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        finally:
            model.zero_grad(set_to_none=True)
            model.train(was_training)


@contextmanager
def compiled(recipe: Recipe, setup: Setup, task: Task, store: TokenStore) -> Iterator[None]:
    """Compile the layers for this block, if the recipe says so.

    The programs depend a little on the first batch that they see. So that is always the same one, and a resumed run
    computes the same bits. EnvironmentProblem if torch cannot compile here.
    """
    if recipe.training.compile is not True:
        yield
        return
    with compiled_layers(setup.model):
        raise_on_all_ranks(lambda: _make_programs(setup, task, sample(recipe, setup, store)[0]))
        yield


def _make_programs(setup: Setup, task: Task, batch: MicroBatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    try:
        with suppress(MicroBatchOOM), as_micro_batch_oom():  # the first step will be repeated in smaller ones
            run_once(setup, task, batch)
    except TorchDynamoException as error:
        raise EnvironmentProblem(
            Problem(
                where="training.compile",
                found=f"torch.compile failed: {_first_line(error)}",
                expected="a C++ compiler; on a GPU also Triton and the headers of Python",
                hint="training.compile=false",
                code="E508",
            )
        ) from error
