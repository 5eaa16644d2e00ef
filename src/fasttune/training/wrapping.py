"""How several processes train one model: each holds a full copy (DDP) or a shard of every layer (FSDP2).

accelerate's configuration chooses: its config file, or the variables that its launcher sets from it. accelerate itself
always uses DDP on a CPU, so fasttune calls `fully_shard` directly, the same way on every device (docs/decisions/0019).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.parallel.collectives import assert_equal_on_all_ranks, is_main, raise_on_all_ranks
from fasttune.parallel.launcher import launcher_requests
from fasttune.training.precision import Choice, choose_device

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

ALONE, DDP, FSDP2 = "one process", "DDP", "FSDP2"
USE_FSDP2 = "distributed_type: FSDP with fsdp_version: 2, which shards weights, gradients and moments"


def choose_parallel(accelerator: Accelerator) -> Choice:
    """What the launcher's configuration asks for, after `check_configuration`."""
    if accelerator.num_processes == 1:
        return Choice(ALONE, "not started by a launcher")
    if not launcher_requests("ACCELERATE_USE_FSDP"):
        return Choice(DDP, f"{accelerator.num_processes} processes, each with a full copy of the model")
    return Choice(FSDP2, "from the accelerate config: each process keeps a shard of weights and moments")


def check_launch(device: str) -> None:
    """Check the launcher's configuration, and that all ranks use the same device; `device` is the recipe's."""
    raise_on_all_ranks(check_configuration)
    chosen = raise_on_all_ranks(lambda: choose_device(device))
    assert_equal_on_all_ranks({"device": chosen.value}, "training.device=cpu")


def check_configuration() -> None:
    """EnvironmentProblem if the launcher's configuration asks for something unsupported."""
    if launcher_requests("ACCELERATE_USE_DEEPSPEED"):
        raise unsupported("DeepSpeed", USE_FSDP2)
    if launcher_requests("ACCELERATE_USE_FSDP"):
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise unsupported("FSDP1, which torch has deprecated", "fsdp_version: 2 in the accelerate config")
        instead = {"offload_params": "", "activation_checkpointing": ", and training.gradient_checkpointing=true"}
        for name, remedy in instead.items():
            if os.environ.get(f"FSDP_{name.upper()}", "false").lower() in ("true", "1"):
                raise unsupported(f"fsdp_{name}", f"fsdp_{name}: false in the accelerate config{remedy}")


def unsupported(found: str, hint: str) -> EnvironmentProblem:
    expected = "DDP (no distributed type) or FSDP2 without offloading"
    return EnvironmentProblem(
        Problem(where="accelerate's configuration", found=found, expected=expected, hint=hint, code="E543")
    )


def wrap(model: nn.Module, accelerator: Accelerator, parallel: str) -> nn.Module:
    """`model` as it is trained: DDP broadcasts the weights of the main process, FSDP2 shards them in place."""
    if parallel == ALONE:
        return model
    if parallel == DDP:
        device = accelerator.device
        wrapped = nn.parallel.DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])
        # A forward pass changes no buffer of an encoder. Set here because torch 2.13 renamed the argument and warns of
        # the old name.
        wrapped.broadcast_buffers = False
        return wrapped
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    # None is torch's default: layers free gathered weights after their forward pass, the root keeps them.
    reshard = None if os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("true", "1") else False
    for module in list(model.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
    return model


def is_sharded(model: nn.Module) -> bool:
    """Whether every forward pass is a collective operation, as with FSDP2."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def full(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor; for a shard this is a collective operation."""
    from torch.distributed.tensor import DTensor

    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor | DTensor:
    """A whole tensor that all ranks have, on the device of `other` and sharded like it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(other, DTensor):
        return tensor.to(other.device)
    # Every rank has the whole tensor, so nothing needs to be sent.
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state_dict with whole tensors, as `whole` has them."""
    return whole(model.state_dict())


def whole(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, unsharded. If some are sharded, all ranks must call it, and only rank 0 gets the result.

    Sharded tensors are gathered one after the other on the CPU, since together they may not fit on a device.
    """
    if not any(is_share(tensor) for tensor in tensors.values()):
        return {name: tensor.detach() for name, tensor in tensors.items()}
    gathered = ((name, full(tensor)) for name, tensor in tensors.items())
    return {name: tensor.cpu() for name, tensor in gathered if is_main()}


def is_share(tensor: torch.Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def load_state(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `state_of`."""
    current = model.state_dict()
    model.load_state_dict(
        {name: like(tensor, current[name]) if name in current else tensor for name, tensor in tensors.items()}
    )
