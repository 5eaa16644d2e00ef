"""Chooses device and precision, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fasttune.errors import EnvironmentProblem, Problem

if TYPE_CHECKING:
    import torch


REQUESTED = "asked for"  # the reason of a choice that the user made


@dataclass(frozen=True)
class Choice:
    """A value that fasttune chose for the user, and why."""

    value: str
    reason: str


def dtype_of(precision: str) -> torch.dtype:
    """The torch dtype of fp32 | bf16 | fp16."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def choose_device(asked: str) -> Choice:
    """`asked`: auto | cpu | cuda | mps. EnvironmentProblem if the device is not available."""
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        device = next(device for device in ("cuda", "mps", "cpu") if has[device])
        return Choice(device, "the fastest device available" if device != "cpu" else "no GPU found")
    if not has[asked]:
        raise EnvironmentProblem(
            Problem(
                where="training.device",
                found=f"{asked}, which torch {torch.__version__} cannot use on this machine",
                expected=f"one of {', '.join(name for name, is_available in has.items() if is_available)}",
                hint="training.device=auto",
                code="E505",
            )
        )
    return Choice(asked, REQUESTED)


def choose_precision(asked: str, device: str) -> Choice:
    """`asked`: auto | fp32 | bf16 | fp16. EnvironmentProblem for fp16 on a device other than CUDA."""
    fast = fast_precision(device)
    if asked == "auto":
        return fast
    if asked == "fp16" and device != "cuda":
        # Loss scaling needs CUDA, and CPUs emulate fp16 products, which makes them slower than fp32.
        raise EnvironmentProblem(
            Problem(
                where="training.precision",
                found=f"fp16 on {device}",
                expected="bf16 or fp32 on this device",
                hint="training.precision=auto",
                code="E310",
            )
        )
    if asked == "bf16" and fast.value != "bf16":
        return Choice("bf16", f"asked for, but slow on this device ({fast.reason})")
    return Choice(asked, REQUESTED)


def fast_precision(device: str) -> Choice:
    """The fastest precision that trains safely on `device`."""
    import torch

    if device == "cuda":
        capability = torch.cuda.get_device_capability()
        name = torch.cuda.get_device_name()
        if capability >= (8, 0):
            return Choice("bf16", f"{name} supports bf16")
        return Choice("fp16", f"{name} has no bf16; fp16 with loss scaling")
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        for flag, instructions in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512_BF16"), ("bf16", "Arm BF16")):
            if capabilities.get(flag):
                return Choice("bf16", f"this CPU has {instructions}")
        return Choice("fp32", "this CPU has no bf16 instructions")
    return Choice("fp32", f"the safe choice on {device}")
