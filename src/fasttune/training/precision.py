"""Which arithmetic on which device, and the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fasttune.errors import EnvironmentProblem, Problem

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Choice:
    """A value that was decided for the user, and why."""

    value: str
    reason: str


def dtype_of(precision: str) -> torch.dtype:
    """What products are computed in: fp32 | bf16 | fp16 as torch names it."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def choose_device(asked: str) -> Choice:
    """`asked`: auto | cpu | cuda | mps. EnvironmentProblem when it is not there."""
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        found = next(device for device in ("cuda", "mps", "cpu") if has[device])
        return Choice(found, "the fastest device here" if found != "cpu" else "no GPU here")
    if not has[asked]:
        raise EnvironmentProblem(
            Problem(
                where="training.device",
                found=f"{asked}, but torch {torch.__version__} sees none",
                expected=f"one of {', '.join(name for name, there in has.items() if there)}",
                hint="training.device=auto",
                code="E505",
            )
        )
    return Choice(asked, "asked for")


def choose_precision(asked: str, device: str) -> Choice:
    """`asked`: auto | fp32 | bf16 | fp16. EnvironmentProblem when the device cannot do it at all."""
    fast = fast_precision(device)
    if asked == "auto":
        return fast
    if asked == "fp16" and device != "cuda":
        # Loss scaling needs CUDA, and fp16 products are emulated on CPUs: measured 26 GFLOPS against 95 in fp32.
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
        return Choice("bf16", f"asked for, though this device is slow in it ({fast.reason})")
    return Choice(asked, "asked for")


def fast_precision(device: str) -> Choice:
    """The fastest precision that trains safely on `device`."""
    import torch

    if device == "cuda":
        capability = torch.cuda.get_device_capability()
        name = torch.cuda.get_device_name()
        if capability >= (8, 0):
            return Choice("bf16", f"{name} computes in bf16")
        return Choice("fp16", f"{name} has no bf16; fp16 with loss scaling")
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        for flag, words in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512_BF16"), ("bf16", "Arm BF16")):
            if capabilities.get(flag):
                return Choice("bf16", f"this CPU has {words}")
        return Choice("fp32", "this CPU has no bf16 instructions")
    return Choice("fp32", f"the safe choice on {device}")
