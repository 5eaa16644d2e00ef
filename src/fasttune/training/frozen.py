"""The lowest layers of a model, left as they are: their output is computed once and read in every epoch.

Layers whose inputs and weights do not change give the same output each time. So a run with `training.freeze_layers`
passes over the training examples once, keeps what enters the first trained layer, and then neither runs the layers
below nor computes their gradients. An evaluation runs the whole model (docs/decisions/0028).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MethodType
from typing import Any, cast

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel

from fasttune.data.batching.collate import MicroBatch, Padding, token_positions
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import Problem, RecipeError
from fasttune.parallel.collectives import all_reduce_max
from fasttune.recipe import Recipe
from fasttune.tasks import Task
from fasttune.training.layers import ABOVE_LAYERS, encoder_layers
from fasttune.training.precision import Choice
from fasttune.training.scoring import run_split
from fasttune.training.setup import Setup
from fasttune.training.wrapping import FSDP2
from fasttune.unpadding import is_padding_free

# Of the memory that is free before training; the rest is for activations, gradients and the optimizer.
LARGEST_SHARE = 0.4
# Families whose layers take and return hidden states and depend on nothing else that is trained.
KEEPABLE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "distilbert", "modernbert")
FROZEN, ONCE = "frozen_layers", "computed once"  # the name of the choice, and how its reason begins


def choose_frozen(recipe: Recipe, setup: Setup, store: TokenStore, num_steps: int) -> Choice | None:
    """How the run treats its frozen layers, None if it has none; RecipeError if the model has fewer layers."""
    frozen, model = recipe.training.freeze_layers, setup.model
    if not frozen:
        return None
    layers, name = encoder_layers(model), recipe.model
    if layers is None or frozen > len(layers):
        found = f"the layers of {model.config.model_type} share their weights (model {name})"
        if layers is not None:
            found = f"{frozen}, but model {name} has {len(layers)} layers"
        hint = f"training.freeze_layers={0 if layers is None else len(layers) // 2}"
        raise RecipeError(Problem(where="training.freeze_layers", found=found, hint=hint, code="E413"))
    needed = 4 * store.num_tokens * model.config.hidden_size
    available = -all_reduce_max(-psutil.virtual_memory().available)[0]
    reason = None
    if recipe.data.streaming:
        reason = "the rows are a stream"
    elif model.config.model_type not in KEEPABLE:
        reason = f"the layers of {model.config.model_type} need more than their input"
    elif setup.choices["parallel"].value == FSDP2:
        reason = "the model is sharded"
    elif num_steps <= math.ceil(len(store) / recipe.training.batch_size):
        reason = "each row is used once"
    elif needed > LARGEST_SHARE * available:
        reason = f"their output would take {needed / 2**30:.1f} of {available / 2**30:.1f} GiB of free memory"
    kept = f"{ONCE} ({needed / 2**20:,.0f} MiB)" if reason is None else f"computed in every step: {reason}"
    return Choice(f"{frozen} of {len(layers)}", kept)


def is_kept(choices: Mapping[str, Choice]) -> bool:
    """Whether the output of the frozen layers is computed once."""
    return FROZEN in choices and choices[FROZEN].reason.startswith(ONCE)


class FrozenLayers:
    """The embeddings and the lowest `num_layers` of `model` while it trains: no gradients, no dropout.

    A batch with `inputs_embeds` [B, S, D] instead of `input_ids` enters the model above them.
    """

    def __init__(self, model: PreTrainedModel, num_layers: int):
        base: Any = model.base_model
        layers = encoder_layers(model)
        assert layers is not None, "choose_frozen refuses such a model"
        self.model = model
        self.layers = list(layers)[:num_layers]
        above = [*list(layers)[num_layers:], *(child for name, child in base.named_children() if name in ABOVE_LAYERS)]
        trained = {module for part in above for module in part.modules()}
        self.modules = [module for module in base.modules() if trained.isdisjoint(module.modules())]
        self.parameters = [
            parameter
            for module in self.modules
            for parameter in module.parameters(recurse=False)
            if parameter.requires_grad
        ]
        self.is_skipped = False  # in the current forward pass

    @contextmanager
    def applied(self) -> Iterator[FrozenLayers]:
        """Freeze on entry; on exit the model is as before."""
        base: Any = self.model.base_model
        projection = [base.embeddings_project] if hasattr(base, "embeddings_project") else []  # ELECTRA's
        try:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
            for module in self.modules:
                module.eval()
                module.train = MethodType(lambda module, mode=True: module, module)  # dropout stays off
            base.embeddings.forward = MethodType(self._unless_given(type(base.embeddings).forward), base.embeddings)
            for module in [*projection, *self.layers]:
                module.forward = MethodType(self._unless_skipped(type(module).forward), module)
            yield self
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            for module in self.modules:
                vars(module).pop("train", None)
                vars(module).pop("forward", None)  # the instance's; the class keeps its own

    def _unless_given(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        """The embeddings' forward, which returns `inputs_embeds` as they are."""
        signature = inspect.signature(stock)

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            given = signature.bind(module, *args, **kwargs).arguments.get("inputs_embeds")
            self.is_skipped = given is not None
            return given if self.is_skipped else stock(module, *args, **kwargs)

        return forward

    def _unless_skipped(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def forward(module: nn.Module, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return hidden_states if self.is_skipped else stock(module, hidden_states, *args, **kwargs)

        return forward

    def kept(self, setup: Setup, store: TokenStore, alive: Callable[[], None]) -> KeptStates:
        """Run the frozen layers over all examples; Interrupted if a signal was noted."""
        unlabelled, states = replace(store, targets={}, token_targets={}), _States()
        outputs = run_split(
            model=_UpTo(self.model, self.layers[-1], setup.accelerator.autocast),
            task=cast(Task, states),
            store=unlabelled,
            accelerator=setup.accelerator,
            padding=setup.padding,
            tokens_per_microbatch=setup.tokens_per_microbatch,
            padded=setup.padded,
            alive=alive,
        )
        return KeptStates(torch.from_numpy(outputs.results).to(states.dtype), store, setup.padding)


class KeptStates:
    """What enters the first trained layer: `states` (T, D), for all tokens of `store`."""

    def __init__(self, states: torch.Tensor, store: TokenStore, padding: Padding):
        self.states, self.store, self.padding = states, store, padding

    def __call__(self, batch: MicroBatch) -> MicroBatch:
        """The batch with states in place of tokens."""
        positions, is_real = token_positions(self.store, batch.examples, self.padding)
        padded = self.states.new_zeros(*is_real.shape, self.states.shape[1])
        padded[torch.from_numpy(is_real)] = self.states[torch.from_numpy(positions)]
        inputs = {"inputs_embeds": padded, "attention_mask": batch.inputs["attention_mask"]}
        return replace(batch, inputs=inputs)


class _Reached(Exception):
    """The last frozen layer has run; the rest of the forward pass is not needed."""


class _UpTo(nn.Module):
    """The model up to and with one of its layers: token ids -> the layer's output [B, S, D]."""

    def __init__(self, model: PreTrainedModel, layer: nn.Module, autocast: Callable[[], Any]):
        super().__init__()
        self.model, self.layer, self.autocast = model, layer, autocast

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        reached: list[torch.Tensor] = []

        def stop(layer: nn.Module, args: Any, output: torch.Tensor) -> None:
            reached.append(output)
            raise _Reached

        handle = self.layer.register_forward_hook(stop)
        try:
            with suppress(_Reached), self.autocast():
                self.model.base_model(**inputs)
        finally:
            handle.remove()
        states = reached[0]
        if not is_padding_free(self.model):
            return states
        is_real = inputs["attention_mask"].bool()
        padded = states.new_zeros(*is_real.shape, states.shape[-1])
        padded[is_real] = states[0, : int(is_real.sum())]  # fillers come last
        return padded


class _States:
    """For `run_split`: keeps the hidden states of each token."""

    result_per_token = True
    dtype = torch.float32

    def result(self, outputs: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        self.dtype = outputs.dtype
        return outputs
