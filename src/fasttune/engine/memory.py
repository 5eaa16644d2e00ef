"""Memory: how many tokens one forward and backward may hold, what to do when it was too much, and how the C library
hands it out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from fasttune.engine.precision import Choice
from fasttune.errors import EnvironmentProblem, Problem

# CPU: a step of 16 reviews fits in one (assumption, not studied: smaller starves the products, larger costs memory).
# GPU: 16,384 tokens of a BERT-base in bf16 hold about 10 GB of activations (from layer sizes; not measured).
TOKENS_PER_MICROBATCH = {"cpu": 4096, "cuda": 16384, "mps": 4096}

# mallopt(3) of glibc: names from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = 2**31 - 1
TOP_PAD_BYTES = 256 * 2**20


def choose_tokens_per_microbatch(asked: int | str, device: str) -> Choice:
    if asked != "auto":
        return Choice(str(asked), "asked for")
    return Choice(str(TOKENS_PER_MICROBATCH[device]), f"a good size for {device}")


# What libraries under torch make of an allocation that failed: oneDNN on a CPU, cuBLAS.
OTHER_WORDS = ("could not create a primitive", "CUBLAS_STATUS_ALLOC_FAILED")


class TooLarge(Exception):
    """A micro-batch did not fit; what it had allocated is free again once this is caught."""


@contextmanager
def naming_out_of_memory() -> Iterator[None]:
    """Every device's way to run out of memory, as TooLarge."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, MemoryError) or should_reduce_batch_size(error)
        if not is_known and not any(words in str(error) for words in OTHER_WORDS):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        error.__traceback__ = None  # its frames hold the tensors that have to go
        raise TooLarge(said[0]) from None


def halved(tokens_per_microbatch: int, largest: int, num_sequences: int, reason: str) -> int:
    """The budget to try next, after a micro-batch of `num_sequences` with `largest` tokens did not fit.

    EnvironmentProblem when there is nothing left to halve.
    """
    clear_device_cache(garbage_collection=True)
    if num_sequences == 1:
        raise EnvironmentProblem(
            Problem(
                where=f"one sequence of {largest} tokens",
                found=reason,
                expected="memory for one sequence, forward and backward",
                hint=f"preprocessing.max_length={max(largest // 2, 1)}, a smaller model, or training.device=cpu",
                code="E506",
            )
        )
    return max(min(tokens_per_microbatch, largest) // 2, 1)


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free instead of giving it back to the kernel after each operation; Linux only.

    By default every tensor above 32 MB, and most above a few, is mapped anew, and each of its pages faults on first
    touch: a quarter of a training step on a CPU (docs/decisions/0008). The price is that the process keeps its peak.
    It holds for the whole process and cannot be undone, so it is called only when a model is set up on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD_BYTES)):
        mallopt(option, value)
