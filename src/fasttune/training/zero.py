"""ZeRO 1 and 2 of DeepSpeed: each process has all weights, and a share of the moments (1) and of the gradients (2).

DeepSpeed keeps its shares as pieces of flat buffers. By its own accessors they are taken apart into tensors with names
here, so that a checkpoint is the same whoever wrote it (docs/decisions/0021).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

import torch
from packaging.version import Version
from torch import nn

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.parallel.collectives import is_main

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

# The first release whose steps were tried that are cut into any number of micro-batches.
OLDEST = "0.19.8"
# Numbers that are sent together: 64 MB. DeepSpeed's own choice of 2 GB is more than most encoders have in all.
BUCKET = 2**24
MOMENTS = ("exp_avg", "exp_avg_sq")


def check_installed() -> None:
    """EnvironmentProblem where DeepSpeed is missing or too old."""
    try:
        found = version("deepspeed")
    except PackageNotFoundError:
        found = None
    if found is None or Version(found) < Version(OLDEST):
        raise EnvironmentProblem(
            Problem(
                where="accelerate's configuration",
                found=f"DeepSpeed, which is {'not installed' if found is None else found}",
                expected=f"deepspeed {OLDEST} or newer",
                hint="pip install deepspeed",
                code="E543",
            )
        )


def begin(
    model: nn.Module, optimizer: torch.optim.Optimizer, stage: int, max_grad_norm: float
) -> tuple[DeepSpeedEngine, DeepSpeedZeroOptimizer]:
    """`model` as it is trained, its weights those of the main process, and what `optimizer` is asked through."""
    device = next(model.parameters()).device.type
    # Else it looks for a GPU by itself, whatever device the recipe names.
    os.environ.setdefault("DS_ACCELERATOR", device)
    warnings.filterwarnings("ignore", "`torch.distributed.all_gather_into_tensor` is deprecated", FutureWarning)
    import deepspeed

    if device == "cpu":
        # Its sums over shared memory, compiled on the spot, which ranks of other machines do not see. gloo makes them.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config = {
        "train_micro_batch_size_per_gpu": 1,  # for its own reports, which nobody sees
        "managed_gradient_accumulation": False,  # a step has as many micro-batches as its tokens need
        "gradient_clipping": max(max_grad_norm, 0.0),
        "zero_optimization": {"stage": stage, "reduce_bucket_size": BUCKET},
        "timers": {"throughput": {"enabled": False}},  # it would wait for the device in every forward pass
    }
    engine, shared, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    _begin_moments(shared)
    return engine, shared


def _begin_moments(optimizer: DeepSpeedZeroOptimizer) -> None:
    """As AdamW would with the first step: DeepSpeed's own linking then misses those of all but one group."""
    from deepspeed.utils import lazy_init_hp_params_optimizer_state

    for parameters, flat in zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True):
        moments = {key: torch.zeros_like(flat) for key in MOMENTS}
        optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}
        lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.state)


def has_shares(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is DeepSpeed's."""
    return hasattr(optimizer, "single_partition_of_fp32_groups")


def is_zero(model: nn.Module) -> bool:
    """Whether DeepSpeed trains it."""
    return hasattr(model, "zero_optimization_stage")


def adds_at_once(model: nn.Module) -> bool:
    """Whether every backward pass is one of all processes together: with ZeRO-2, which keeps no gradients of others."""
    return is_zero(model) and cast(Any, model).zero_optimization_stage() == 2


def update(engine: DeepSpeedEngine, loss: float) -> float:
    """One step by the gradients there are; returns their norm before clipping.

    Where it or `loss` is not finite, nothing is updated and the gradients are dropped.
    """
    if not math.isfinite(loss):  # DeepSpeed drops gradients only in a step, one that it leaves out for their norm
        trained = (parameter for parameter in engine.module.parameters() if parameter.requires_grad)
        engine.backward(sum(parameter.sum() for parameter in trained) * math.nan)
    engine.step()
    return float(engine.get_global_grad_norm())


def optimizer_tensors(model: nn.Module, optimizer: DeepSpeedZeroOptimizer) -> dict[str, torch.Tensor]:
    """As `optimizer.optimizer_tensors`, whole. All processes have to ask, and the main one alone gets them."""
    from deepspeed.utils import safe_get_full_optimizer_state

    step = next(iter(optimizer.state.values()))["step"].cpu()
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # One after the other: all of them may not fit into the memory of a device.
            moments = ((key, safe_get_full_optimizer_state(parameter, key)) for key in MOMENTS)
            found |= {f"{key}.{name}": moment.cpu() for key, moment in moments if is_main()}
            found[f"step.{name}"] = step.clone()
    return found if is_main() else {}


def load_optimizer_tensors(
    model: nn.Module, optimizer: DeepSpeedZeroOptimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """The inverse of `optimizer_tensors`, after the weights were loaded; KeyError when a tensor belongs to no parameter
    being trained.
    """
    from deepspeed.utils import safe_set_full_optimizer_state

    optimizer.refresh_fp32_params()
    _begin_moments(optimizer)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        parameter = parameters[name]
        if key in MOMENTS:
            safe_set_full_optimizer_state(parameter, tensor.to(parameter.device), key)
        else:  # the number of steps, the same for all
            for state in optimizer.state.values():
                state[key].copy_(tensor)


def end(engine: DeepSpeedEngine) -> None:
    """Leave a plain model behind, which holds nothing of DeepSpeed's."""
    engine.destroy()
    engine.module_forward_pre_hook.remove()
    engine.module_forward_post_hook.remove()
    for parameter in engine.module.parameters():
        vars(parameter).clear()  # accessors, and the piece that belongs here
        parameter.data = parameter.data.clone()  # out of the flat buffers
