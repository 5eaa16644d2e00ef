"""Loads a model for a recipe: device, precision, lengths, kernel, each an automatic choice with its reason."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fasttune.data.batching.collate import Padding
from fasttune.data.label_matching import LABELS_SHOWN
from fasttune.data.problems import some_of
from fasttune.data.starter.model import EMBEDDED_MODEL, EMBEDDED_MODEL_DESCRIPTION
from fasttune.errors import EnvironmentProblem, Problem, RecipeError, shown
from fasttune.parallel.launcher import make_accelerator
from fasttune.recipe import Recipe
from fasttune.runs.folder import RunFolder, read_json
from fasttune.tasks import TASKS, Task
from fasttune.training.dropout import use_cpu_dropout
from fasttune.training.mean_head import MEAN_HEAD
from fasttune.training.memory import (
    SHORT_STEP,
    choose_tokens_per_microbatch,
    keep_few_programs,
)
from fasttune.training.model import (
    check_model,
    load_config,
    load_model,
    load_tokenizer,
    longest_input,
    own_attention_dropout,
)
from fasttune.training.precision import REQUESTED, Choice, choose_device, choose_precision, dtype_of
from fasttune.training.wrapping import choose_parallel
from fasttune.unpadding import cuda, padding_free, read_first_token, restore_padding, unsupported_reason, verify_kernel
from fasttune.unpadding.attention import MAX_COMPILED_LENGTH, compiled_for
from fasttune.unpadding.families import OWN_ATTENTION
from fasttune.unpadding.unpad import FAMILIES

# Without padding only heads see the width of a micro-batch. If a head reads every token, oneDNN compiles a product for
# each width, so widths are rounded up to few values (docs/decisions/0011).
ROUND_WIDTH = 32
MAX_NEW_TOKENS = 1_000  # tokens added to a tokenizer; more mean that it belongs to another model
HUB_NAME = re.compile(r"[\w-]+/[\w.-]+")
POOLING = "AutoModelForSequenceClassification"  # its heads read one position of each sequence


@dataclass
class Setup:
    """A model on its device, and how it runs.

    `model` is the plain Hugging Face model, placed on its device; for training it is wrapped as `choices["parallel"]`
    says (training/wrapping.py). `padded`: whether the layers see the `padding`. `tokens_per_microbatch` shrinks when
    memory runs out.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    accelerator: Accelerator
    choices: dict[str, Choice]
    max_length: int
    tokens_per_microbatch: int
    padded: bool
    padding: Padding


def choose_max_length(recipe: Recipe, name: str, tokenizer: PreTrainedTokenizerBase, default: int | None) -> Choice:
    """The recipe's, the task's `default` or the model's maximum; RecipeError if the recipe exceeds that."""
    limit = min(longest_input(load_config(name)), tokenizer.model_max_length)
    asked = recipe.preprocessing.max_length
    if asked is None:
        if default is not None and default < limit:
            return Choice(str(default), "the default of this task")
        return Choice(str(limit), "the maximum of the model")
    if asked > limit:
        raise RecipeError(
            Problem(
                where="preprocessing.max_length",
                found=str(asked),
                expected=f"at most {limit}, the maximum of model {name}",
                hint=f"preprocessing.max_length={limit}",
                code="E408",
            )
        )
    return Choice(str(asked), REQUESTED)


def choose_attention(recipe: Recipe, name: str, device: str, precision: str) -> tuple[Choice, Choice]:
    """The attention kernel without padding on this device, and its dropout."""
    requested, config = recipe.training.attention_dropout, load_config(name)
    model_dropout = own_attention_dropout(config)
    kernel = Choice("torch", f"fused kernels on {device}")
    dropout = Choice(str(model_dropout), "from the model's config.json")
    if recipe.preprocessing.padding == "none" and config.model_type in FAMILIES:
        width = config.hidden_size // config.num_attention_heads
        if config.model_type in OWN_ATTENTION:
            kernel = Choice("the model's own", "in buckets of similar length")
        elif device == "cuda":
            uses_dropout = model_dropout > 0 if requested == "auto" else float(requested) > 0
            chosen, reason = cuda.choose_kernel(torch.device(device), dtype_of(precision), width, uses_dropout)
            kernel = Choice("torch" if chosen is None else chosen.__name__, reason)
        elif device == "cpu":
            built = compiled_for(device, dtype_of(precision), width)
            limit = f"; torch above {MAX_COMPILED_LENGTH:,} tokens per sequence" if built.library else ""
            kernel = Choice("compiled" if built.library else "torch", built.reason + limit)
            if model_dropout > 0 and built.library is None:
                reason = f"torch's fast attention on CPUs has no dropout; config.json keeps the model's {model_dropout}"
                dropout = Choice("0.0", reason)
    return kernel, dropout if requested == "auto" else Choice(str(requested), REQUESTED)


def set_up(recipe: Recipe, name: str, task: Task, tokens_per_step: float = math.inf) -> Setup:
    """Load model `name` for `task`, choose device, precision, lengths and kernel, and place it on the device.

    `tokens_per_step`: roughly, for one training step.
    """
    training = recipe.training
    device = choose_device(training.device)
    if device.value == "cpu" and tokens_per_step >= SHORT_STEP:
        keep_few_programs()
    if device.value == "cuda":
        # What deterministic algorithms need. torch reads it at the first matrix product of a process, and a later run
        # may be deterministic; it is as much memory as torch takes by itself on a Hopper.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    precision = choose_precision(training.precision, device.value)
    load_config(name)  # first, since it pins the commit for all other files from the hub
    tokenizer = load_tokenizer(name, task.needs_offsets)
    max_length = choose_max_length(recipe, name, tokenizer, task.default_max_length)
    attention, dropout = choose_attention(recipe, name, device.value, precision.value)
    auto_class = MEAN_HEAD if recipe.model_head == MEAN_HEAD else task.auto_class
    loaded = load_model(name, auto_class, task.state(), training.seed, float(dropout.value))
    if training.gradient_checkpointing:  # before the kernel is chosen, which depends on it for some families
        _checkpoint_activations(loaded.model, name)
    asked = training.tokens_per_microbatch
    budget = choose_tokens_per_microbatch(asked, device.value, precision.value, loaded.model.config)
    accelerator = make_accelerator(device.value, precision.value)
    added_tokens = _grow_vocabulary(loaded.model, len(tokenizer), name, training.seed)
    kernel = make_padding_free(recipe, loaded.model, device.value)
    if kernel.value == "padding-free":
        kernel = _verified_on_device(loaded.model, kernel, accelerator)
    if kernel.value == "padding-free" and training.freeze_layers < loaded.model.config.num_hidden_layers:
        read_first_token(loaded.model)
    elif kernel.value != "padding-free":
        attention = Choice("transformers", f"{loaded.model.config._attn_implementation}, as for any padded batch")
    # A BERT tokenizer may come with a model without segments, or with a single one, whose table has no row for the ids
    # of a pair's second text.
    accepted = set(signature(loaded.model.base_model.forward).parameters)
    if getattr(loaded.model.config, "type_vocab_size", 2) == 1:
        accepted.discard("token_type_ids")
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in accepted]
    if device.value == "cpu" and training.compile is not True:
        use_cpu_dropout(loaded.model)
    choices = {
        "model": Choice(name, _described(name, loaded.model.config.model_type)),
        "device": device,
        "parallel": choose_parallel(accelerator),
        "precision": precision,
        "kernel": kernel,
        "attention": attention,
        "attention_dropout": dropout,
        "max_length": max_length,
        "tokens_per_microbatch": budget,
    }
    if auto_class == MEAN_HEAD:
        choices["model_head"] = Choice(MEAN_HEAD, "the run folder is a CrossEncoder of sentence-transformers")
    if added_tokens:
        choices["vocabulary"] = Choice(f"{len(tokenizer):,} rows", added_tokens)
    if loaded.new_weights:
        layers = sorted({weight.rpartition(".")[0] for weight in loaded.new_weights})
        reason = f"initialised with seed {training.seed}"
        if loaded.kept_labels:
            reason = f"rows of {some_of(list(map(shown, loaded.kept_labels)), LABELS_SHOWN)} kept, the others {reason}"
        choices["new_weights"] = Choice(", ".join(layers), reason)
    padded, length = kernel.value != "padding-free", int(max_length.value)
    padding = Padding(
        token_id=tokenizer.pad_token_id or 0,
        length=length if recipe.preprocessing.padding == "max_length" else None,
        multiple=1 if padded or task.auto_class == POOLING else ROUND_WIDTH,
        most=length,
    )
    # Placed on the device, with autocast in its forward pass; the trainer wraps it for several processes.
    model = accelerator.prepare_model(loaded.model, device_placement=True, evaluation_mode=True)
    return Setup(
        model=model,
        tokenizer=tokenizer,
        accelerator=accelerator,
        choices=choices,
        max_length=length,
        tokens_per_microbatch=int(budget.value),
        padded=padded,
        padding=padding,
    )


def task_of_run(folder: RunFolder, recipe: Recipe) -> Task:
    """The task of a finished run or an export; EnvironmentProblem if a file has changed since it was saved."""
    if folder.checksums.exists():  # early runs of 0.1.0 have none
        check_model(folder.path, read_json(folder.checksums))
    task = TASKS[recipe.task].from_state(read_json(folder.config), recipe)
    if folder.calibration.exists():
        task = task.with_temperature(float(read_json(folder.calibration)["temperature"]))
    return task


def set_up_run(folder: RunFolder, recipe: Recipe) -> tuple[Task, Setup]:
    """The task and the model of a finished run; `recipe`: the run's, with changes."""
    task = task_of_run(folder, recipe)
    return task, set_up(recipe, str(folder.path), task)


def _described(name: str, family: str) -> str:
    if name == EMBEDDED_MODEL:
        return EMBEDDED_MODEL_DESCRIPTION
    looks_like_the_hub = HUB_NAME.fullmatch(name) is not None
    return f"{family}, from the local folder of this name" if looks_like_the_hub and Path(name).exists() else family


def _grow_vocabulary(model: PreTrainedModel, num_tokens: int, name: str, seed: int) -> str:
    """Add embedding rows for tokens that the tokenizer has and the weights do not; returns the reason, or ""."""
    rows = cast(torch.Tensor, model.get_input_embeddings().weight).shape[0]
    missing = num_tokens - rows
    if missing <= 0:
        return ""
    if missing > MAX_NEW_TOKENS:
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found=f"the tokenizer has {num_tokens:,} tokens, but the weights only {rows:,} rows",
                hint="use tokenizer.json and model.safetensors of the same model",
                code="E407",
            )
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    return f"{missing:,} new ones, initialised with seed {seed}"


def _verified_on_device(model: PreTrainedModel, kernel: Choice, accelerator: Accelerator) -> Choice:
    """Repeat the probe on the device and in the precision of training, if they differ from fp32 on the CPU."""
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "no":
        return kernel
    model.to(accelerator.device)
    with accelerator.autocast():
        reason = verify_kernel(model)
    if reason is None:
        return kernel
    restore_padding(model)
    return Choice("padded to longest", f"{reason}, on {accelerator.device.type} in {accelerator.mixed_precision}")


def _checkpoint_activations(model: PreTrainedModel, name: str) -> None:
    """Turn on gradient checkpointing; RecipeError if transformers does not support it for this family."""
    if not model.supports_gradient_checkpointing:
        raise RecipeError(
            Problem(
                where="training.gradient_checkpointing",
                found=f"transformers does not support it for {model.config.model_type} (model {name})",
                hint="training.gradient_checkpointing=false, and a smaller training.tokens_per_microbatch",
                code="E412",
            )
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def make_padding_free(recipe: Recipe, model: PreTrainedModel, device: str) -> Choice:
    """Make the model padding-free if possible on this device, or give the reason why it runs padded."""
    asked = recipe.preprocessing.padding
    if asked != "none":
        return Choice(f"padded to {asked}", REQUESTED)
    reason = unsupported_reason(model)
    if reason is None and device == "cuda" and model.config.model_type in OWN_ATTENTION:
        reason = "its attention would run in many small blocks, which a GPU is slow at"
    if reason is None:
        try:
            padding_free(model)
        except EnvironmentProblem as error:
            reason = error.problems[0].found
    if reason is not None:
        return Choice("padded to longest", reason)
    return Choice("padding-free", "verified against the padded model")
