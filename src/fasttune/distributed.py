"""Devices and processes, through accelerate; one process on one device unless a launcher started more.

With one process everything here that concerns several does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.state import PartialState

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
LONGEST_WAIT = timedelta(hours=24)
Value = TypeVar("Value")


def make_accelerator(device: str, precision: str) -> Accelerator:
    """An accelerator for `device` (cpu | cuda | mps) and `precision` (fp32 | bf16 | fp16).

    accelerate keeps device and precision for the whole process. One Python session may train in bf16 and then predict
    in fp32, so what an earlier call left is dropped first; only a process group, once started, stays.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=_group() is None)
    return Accelerator(cpu=device == "cpu", mixed_precision=MIXED_PRECISION[precision])


def join(device: str) -> None:
    """Meet the other processes, where a launcher started several; `device` as the recipe has it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _group() is not None:
        return
    import torch
    from accelerate.state import PartialState

    # Tokenising may take hours, in which the others wait; what hangs in training is ended by the watchdog.
    PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def is_main() -> bool:
    """Whether this process writes, prints and decides for all."""
    state = _group()
    return state.is_main_process if state is not None else os.environ.get("RANK", "0") == "0"


def from_main(value: Value) -> Value:
    """What the main process has, in all processes; any value that can be sent."""
    if _group() is None:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def greatest(*values: int) -> Sequence[int]:
    """Of each number the greatest that any process has; all processes have to ask."""
    state = _group()
    if state is None:
        return values
    import torch

    together = torch.tensor(values, device=state.device)
    torch.distributed.all_reduce(together, torch.distributed.ReduceOp.MAX)
    return [int(value) for value in together.tolist()]


def wait_for_all() -> None:
    state = _group()
    if state is not None:
        state.wait_for_everyone()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block before the others do, which then find what it made."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def _group() -> PartialState | None:
    """The process group, where one is started."""
    from accelerate.state import PartialState

    return PartialState() if PartialState._shared_state and PartialState().use_distributed else None
