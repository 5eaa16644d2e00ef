"""A recipe and a model name -> a model on a device, ready to run, with every automatic choice and its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fasttune.data.batching.collate import Padding
from fasttune.data.starter.model import EMBEDDED_MODEL, EMBEDDED_MODEL_DESCRIPTION
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import EnvironmentProblem, Problem, RecipeError
from fasttune.padding_free import cuda, remove_padding, restore_padding, unsupported_reason, verify_kernel
from fasttune.padding_free.attention import MAX_COMPILED_LENGTH, compiled_for
from fasttune.padding_free.families import OWN_ATTENTION
from fasttune.padding_free.unpad import FAMILIES
from fasttune.parallel.launcher import make_accelerator
from fasttune.recipe import Recipe
from fasttune.tasks import Task
from fasttune.training.dropout import use_cpu_dropout
from fasttune.training.evaluation import Outputs, run_split
from fasttune.training.memory import (
    CPU_EVALUATION_TOKENS,
    SHORT_STEP,
    choose_tokens_per_microbatch,
    keep_few_programs,
)
from fasttune.training.model import load_config, load_model, load_tokenizer, longest_input, own_attention_dropout
from fasttune.training.precision import Choice, choose_device, choose_precision, dtype_of
from fasttune.training.wrapping import choose_parallel

# Without padding only heads see the width of a micro-batch. Where they look at every token, a CPU keeps a program for
# each number of rows that they multiply: few widths are few programs (docs/decisions/0011).
ROUND_WIDTH = 32
MOST_NEW_TOKENS = 1_000  # that somebody added; more are another model's tokenizer
HUB_NAME = re.compile(r"[\w-]+/[\w.-]+")
POOLING = "AutoModelForSequenceClassification"  # its heads look at one place of each sequence


@dataclass
class Setup:
    """A model that can run.

    `model` is the plain Hugging Face model, which trains wrapped as `choices["parallel"]` says (training/wrapping.py);
    `padded` tells whether the layers see the `padding`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    accelerator: Accelerator
    choices: dict[str, Choice]
    max_length: int
    tokens_per_microbatch: int
    padded: bool
    padding: Padding

    def run(self, task: Task, store: TokenStore, alive: Callable[[], None] = lambda: None) -> Outputs:
        """A whole split without gradients, results in input order; what fitted into memory is remembered.

        `alive` is called between micro-batches.
        """
        on_cpu = self.accelerator.device.type == "cpu"
        budget = min(self.tokens_per_microbatch, CPU_EVALUATION_TOKENS) if on_cpu else self.tokens_per_microbatch
        outputs = run_split(
            model=self.model,
            task=task,
            store=store,
            accelerator=self.accelerator,
            padding=self.padding,
            tokens_per_microbatch=budget,
            padded=self.padded,
            alive=alive,
        )
        if outputs.tokens_per_microbatch < budget:
            self.tokens_per_microbatch = outputs.tokens_per_microbatch
        return outputs


def choose_max_length(recipe: Recipe, name: str, tokenizer: PreTrainedTokenizerBase, default: int | None) -> Choice:
    """The recipe's, or the task's `default`, or what the model can take; RecipeError where more than that is wanted."""
    limit = min(longest_input(load_config(name)), tokenizer.model_max_length)
    asked = recipe.preprocessing.max_length
    if asked is None:
        if default is not None and default < limit:
            return Choice(str(default), "usual for this task")
        return Choice(str(limit), "the most the model takes")
    if asked > limit:
        raise RecipeError(
            Problem(
                where="preprocessing.max_length",
                found=str(asked),
                expected=f"at most {limit}, the positions of model {name}",
                hint=f"preprocessing.max_length={limit}",
                code="E408",
            )
        )
    return Choice(str(asked), "asked for")


def choose_attention(recipe: Recipe, name: str, device: str, precision: str) -> tuple[Choice, Choice]:
    """What computes attention without padding on this device, and the dropout in it."""
    asked, config = recipe.training.attention_dropout, load_config(name)
    own = own_attention_dropout(config)
    kernel = Choice("torch", f"its fused kernels on {device}")
    dropout = Choice(str(own), "the model's own")
    if recipe.preprocessing.padding == "none" and config.model_type in FAMILIES:
        width = config.hidden_size // config.num_attention_heads
        if config.model_type in OWN_ATTENTION:
            kernel = Choice("the model's own", "on buckets of nearly equal length")
        elif device == "cuda":
            chosen, reason = cuda.choose(torch.device(device), dtype_of(precision), width)
            kernel = Choice("torch" if chosen is None else chosen.__name__, reason)
        elif device == "cpu":
            found = compiled_for(device, dtype_of(precision), width)
            limit = f"; torch for sequences above {MAX_COMPILED_LENGTH:,} tokens" if found.library else ""
            kernel = Choice("compiled" if found.library else "torch", found.reason + limit)
            if own > 0 and found.library is None:
                why = f"the fast attention of torch on a CPU has none; the model's own is {own}, config.json keeps it"
                dropout = Choice("0.0", why)
    return kernel, dropout if asked == "auto" else Choice(str(asked), "asked for")


def set_up(recipe: Recipe, name: str, task: Task, tokens_per_step: float = math.inf) -> Setup:
    """Load model `name` for `task`, choose device, precision, lengths and kernel, and move it there.

    `tokens_per_step`: about how many one step of training will have; evaluation always has many at once.
    """
    training = recipe.training
    device = choose_device(training.device)
    if device.value == "cpu" and tokens_per_step >= SHORT_STEP:
        keep_few_programs()
    precision = choose_precision(training.precision, device.value)
    load_config(name)  # first: what is read of the hub after it is of the same commit
    tokenizer = load_tokenizer(name, task.needs_offsets)
    max_length = choose_max_length(recipe, name, tokenizer, task.default_max_length)
    attention, dropout = choose_attention(recipe, name, device.value, precision.value)
    loaded = load_model(name, task.auto_class, task.state(), training.seed, float(dropout.value))
    if training.gradient_checkpointing:  # before the kernel is chosen: not every family's can compute a layer again
        _checkpoint_activations(loaded.model, name)
    asked = training.tokens_per_microbatch
    budget = choose_tokens_per_microbatch(asked, device.value, precision.value, loaded.model.config)
    accelerator = make_accelerator(device.value, precision.value)
    grown = _grow_vocabulary(loaded.model, len(tokenizer), name, training.seed)
    kernel = choose_kernel(recipe, loaded.model)
    if kernel.value == "padding-free":
        kernel = _proved_where_it_trains(loaded.model, kernel, accelerator)
    if kernel.value != "padding-free":
        attention = Choice("transformers", f"{loaded.model.config._attn_implementation}, as for any padded batch")
    takes = signature(loaded.model.forward).parameters  # a BERT tokenizer may come with a model that has no segments
    # Or with one that has a single segment, where the second text of a pair would be looked up beyond the table.
    without = {"token_type_ids"} if getattr(loaded.model.config, "type_vocab_size", 2) == 1 else set()
    tokenizer.model_input_names = [one for one in tokenizer.model_input_names if one in takes and one not in without]
    if device.value == "cpu":
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
    if grown:
        choices["vocabulary"] = Choice(f"{len(tokenizer):,} rows", grown)
    if loaded.new_weights:
        choices["new_weights"] = Choice(", ".join(loaded.new_weights), f"drawn with training.seed {training.seed}")
    padded, most = kernel.value != "padding-free", int(max_length.value)
    padding = Padding(
        token_id=tokenizer.pad_token_id or 0,
        length=most if recipe.preprocessing.padding == "max_length" else None,
        multiple=1 if padded or task.auto_class == POOLING else ROUND_WIDTH,
        most=most,
    )
    # Placed, and its forward pass made to compute in the precision; what trains is wrapped by the session.
    model = accelerator.prepare_model(loaded.model, device_placement=True, evaluation_mode=True)
    return Setup(
        model=model,
        tokenizer=tokenizer,
        accelerator=accelerator,
        choices=choices,
        max_length=most,
        tokens_per_microbatch=int(budget.value),
        padded=padded,
        padding=padding,
    )


def _described(name: str, family: str) -> str:
    if name == EMBEDDED_MODEL:
        return EMBEDDED_MODEL_DESCRIPTION
    looks_like_the_hub = HUB_NAME.fullmatch(name) is not None
    return f"{family}, from the local folder of this name" if looks_like_the_hub and Path(name).exists() else family


def _grow_vocabulary(model: PreTrainedModel, num_tokens: int, name: str, seed: int) -> str:
    """Rows for tokens that were added to the tokenizer alone; what was done, in words, or nothing."""
    rows = cast(torch.Tensor, model.get_input_embeddings().weight).shape[0]
    missing = num_tokens - rows
    if missing <= 0:
        return ""
    if missing > MOST_NEW_TOKENS:
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found=f"a tokenizer of {num_tokens:,} tokens with weights for {rows:,}",
                expected="the tokenizer that belongs to the weights",
                hint="take tokenizer.json and model.safetensors from the same model",
                code="E407",
            )
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    return f"{missing:,} more than the model's weights had, drawn with training.seed {seed}"


def _proved_where_it_trains(model: PreTrainedModel, kernel: Choice, accelerator: Accelerator) -> Choice:
    """The probe once more on the device and in the arithmetic of training, where those are others."""
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
    """RecipeError where transformers has none for this family."""
    if not model.supports_gradient_checkpointing:
        raise RecipeError(
            Problem(
                where="training.gradient_checkpointing",
                found=f"true, with model {name}, a {model.config.model_type}",
                expected="false: transformers cannot compute the layers of this family again",
                hint="training.gradient_checkpointing=false, and a smaller training.tokens_per_microbatch",
                code="E412",
            )
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def choose_kernel(recipe: Recipe, model: PreTrainedModel) -> Choice:
    """Make the model padding-free where it can be, or say why it runs padded."""
    asked = recipe.preprocessing.padding
    if asked != "none":
        return Choice(f"padded to {asked}", "asked for")
    reason = unsupported_reason(model)
    if reason is None:
        try:
            remove_padding(model)
        except EnvironmentProblem as error:
            reason = error.problems[0].found
    if reason is not None:
        return Choice("padded to longest", reason)
    return Choice("padding-free", "the probe gave the padded model's numbers, and no sequence moved another")
