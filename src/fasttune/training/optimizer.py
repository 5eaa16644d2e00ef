"""AdamW, the learning rate of each step, and the optimizer's state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fasttune.errors import Problem, RecipeError
from fasttune.recipe.schema import Training
from fasttune.training.layers import ABOVE_LAYERS, encoder_layers
from fasttune.training.wrapping import like

# Loshchilov and Hutter 2019 (decoupled decay) with the constants of Kingma and Ba 2015, as in transformers' Trainer.
BETAS = (0.9, 0.999)
EPSILON = 1e-8

FUSED_DEVICES = ("cpu", "cuda", "mps")


def decays(model: nn.Module) -> Callable[[str], bool]:
    """Tells by a parameter's name whether weight decay applies: not to biases and normalisation layers."""
    norms = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.LayerNorm) or "norm" in type(module).__name__.lower()
    }
    return lambda name: name not in norms and not name.endswith("bias")


def rates(model: PreTrainedModel, training: Training) -> Callable[[str], float]:
    """The learning rate of a parameter, by its name, as a multiple of `training.learning_rate`.

    The n-th layer from the top has `layer_decay` ** (n - 1), and what is below the layers counts as one more (Howard
    and Ruder 2018, discriminative fine-tuning). RecipeError if the model has no layers to tell apart.
    """
    head = 1.0 if training.head_learning_rate is None else training.head_learning_rate / training.learning_rate
    layers, layer_decay = encoder_layers(model), training.layer_decay
    if layers is None and layer_decay != 1:
        raise RecipeError(
            Problem(
                where="training.layer_decay",
                found=f"the layers of {model.config.model_type} share their weights",
                hint="training.layer_decay=1",
                code="E413",
            )
        )
    names = {module: name for name, module in model.named_modules()}
    depths = {f"{names[layer]}.": depth for depth, layer in enumerate(reversed(list(layers or ())))}
    base = f"{model.base_model_prefix}."
    above = tuple(f"{base}{name}." for name in ABOVE_LAYERS)

    def rate(name: str) -> float:
        if not name.startswith(base) or name.startswith(above):
            return head
        depth = next((depth for prefix, depth in depths.items() if name.startswith(prefix)), len(depths))
        return layer_decay**depth

    return rate


def same_rate(name: str) -> float:
    return 1.0


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, multiple: Callable[[str], float] = same_rate
) -> torch.optim.AdamW:
    """AdamW, fused on devices for which torch has it, which is faster than a loop over parameters.

    `multiple` of `learning_rate` is what the parameter of a name is trained with; each group holds it.
    """
    is_decayed = decays(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((multiple(name), is_decayed(name)), []).append(parameter)
    options: list[dict[str, Any]] = [
        {"params": parameters, "multiple": factor, "weight_decay": weight_decay if decayed else 0.0}
        for (factor, decayed), parameters in groups.items()
    ]
    fused = next(model.parameters()).device.type in FUSED_DEVICES
    return torch.optim.AdamW(options, lr=learning_rate, betas=BETAS, eps=EPSILON, fused=fused)


def num_warmup_steps(warmup_steps: float, num_steps: int) -> int:
    """Warm-up steps as a number; below 1 they are a share of all steps, rounded up as transformers does."""
    return math.ceil(warmup_steps * num_steps) if warmup_steps < 1 else int(warmup_steps)


class Schedule:
    """The learning rate as a function of the step alone, so that a resume has nothing to restore."""

    def __init__(self, kind: str, learning_rate: float, warmup_steps: float, num_steps: int):
        from transformers import get_scheduler

        kind = "constant_with_warmup" if kind == "constant" else kind
        # transformers wraps its formulas in LambdaLR, which needs an optimizer; only the formula is used.
        unused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_scheduler(kind, unused, num_warmup_steps(warmup_steps, num_steps), num_steps)
        self.multiplier: Callable[[float], float] = scheduler.lr_lambdas[0]
        self.learning_rate = learning_rate

    def __call__(self, step: float) -> float:
        """The learning rate of update number `step` + 1."""
        return self.learning_rate * self.multiplier(step)


def progress(step: int, num_steps: int, replanned: Sequence[tuple[int, int]]) -> float:
    """The place of `step` in a schedule of `num_steps`, in steps of that schedule.

    After each of `replanned` (a step, and the new number of steps) what was left of the schedule is spread over what is
    left of the run, so the learning rate neither jumps nor stops above its end.
    """
    place, begin, end = 0.0, 0, num_steps
    for at, new_end in (*replanned, (step, 0)):
        place += (num_steps - place) * (at - begin) / max(end - begin, 1)
        begin, end = at, new_end
    return place


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """`learning_rate` is that of the highest layer."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("multiple", 1.0)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as tensors named STATE.PARAMETER, such as exp_avg.classifier.weight."""
    return {
        f"{key}.{name}": value.detach()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """The inverse of `optimizer_tensors`; KeyError if a tensor belongs to no trained parameter."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer.state.clear()
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(".")
        parameter = parameters[name]
        # The step count is a scalar that fused AdamW keeps beside the parameter.
        optimizer.state[parameter][key] = like(value, parameter) if value.dim() else value.to(parameter.device)
