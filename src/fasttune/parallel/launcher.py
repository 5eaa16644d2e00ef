"""Create accelerators, and handle the variables that accelerate's launcher sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.state import PartialState

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
LAUNCHER_VARIABLES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # variables that accelerate's launcher sets


def make_accelerator(device: str, precision: str) -> Accelerator:
    """An accelerator for `device` (cpu | cuda | mps) and `precision` (fp32 | bf16 | fp16).

    accelerate keeps the device and precision for the whole process. A Python session may train in bf16 and then predict
    in fp32, so the state of an earlier call is reset first. A process group, once started, stays.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    AcceleratorState._reset_state(reset_partial_state=process_group() is None)
    # A launcher's gradient_accumulation_steps would divide losses that `training.step` has already divided.
    no_accumulation = GradientAccumulationPlugin(num_steps=1)
    with hide_launcher():
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=MIXED_PRECISION[precision],
            gradient_accumulation_plugin=no_accumulation,
        )


def launcher_requests(variable: str) -> bool:
    """Whether the launcher set one of LAUNCHER_VARIABLES to true."""
    return os.environ.get(variable, "false").lower() in ("true", "1")


@contextmanager
def hide_launcher() -> Iterator[None]:
    """Hide LAUNCHER_VARIABLES from accelerate and transformers within this context.

    fasttune shards the model itself: accelerate would do it on some devices only, and transformers would load the model
    without weights in all processes but the first.
    """
    hidden = {variable: os.environ.pop(variable) for variable in LAUNCHER_VARIABLES if variable in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def process_group() -> PartialState | None:
    """The process group, or None if none was started."""
    from accelerate.state import PartialState

    return PartialState() if PartialState._shared_state and PartialState().use_distributed else None
