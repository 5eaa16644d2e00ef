"""Devices and processes, through accelerate; one process on one device unless a launcher started more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(device: str, precision: str) -> Accelerator:
    """An accelerator for `device` (cpu | cuda | mps) and `precision` (fp32 | bf16 | fp16).

    accelerate keeps device and precision for the whole process. One Python session may train in bf16 and then predict
    in fp32, so what an earlier call left is dropped first; only a process group, once started, stays.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    in_process_group = PartialState._shared_state != {} and PartialState().use_distributed
    AcceleratorState._reset_state(reset_partial_state=not in_process_group)
    return Accelerator(cpu=device == "cpu", mixed_precision=MIXED_PRECISION[precision])
