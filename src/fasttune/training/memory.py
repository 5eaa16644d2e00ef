"""Memory: the token budget of a micro-batch, recovery when memory runs out, and the settings of the C allocator."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import PreTrainedConfig

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.training.precision import REQUESTED, Choice

# Each micro-batch has a fixed cost (casting weights, adding gradients), so larger ones are faster up to a point.
# Evaluation has no such cost, and small ones leave too little behind for memory to grow (docs/decisions/0011).
CPU_TOKENS, CPU_EVALUATION_TOKENS = 4096, 1024
# Bytes of activations per layer, token and hidden unit, for an intermediate size of 4 times the hidden size and an
# attention that keeps no matrix of weights; measured with a BERT, and rounded up (docs/decisions/0011).
KEPT_BYTES = {"bf16": 56, "fp16": 56, "fp32": 88}
SHARE_OF_FREE = 0.5  # other programs use the machine too
MIN_TOKENS = 512
# Until a GPU is probed: by KEPT_BYTES, a BERT-base in bf16 needs 8.5 GB of activations (estimated, not measured).
GPU_TOKENS = 16384


# mallopt(3) of glibc: names from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 256 * 2**20}
# Any call of mallopt ends glibc's own adjustment; these are the values it reaches in a process with large tensors.
USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20, M_TOP_PAD: 0}


# How many compiled matrix products oneDNN and ideep (between it and torch) cache; each reads its variable on first use.
# A layer needs about nine for one number of tokens, forward and backward (docs/decisions/0011).
FEW_PROGRAMS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "24", "LRU_CACHE_CAPACITY": "16"}
# Tokens: in shorter steps compiling them again takes a measurable share of the time (docs/decisions/0011).
SHORT_STEP = 750


def keep_few_programs() -> None:
    """Limit the caches of compiled products, which fragment memory. Variables that the user has set are kept."""
    for name, value in FEW_PROGRAMS.items():
        os.environ.setdefault(name, value)


def choose_tokens_per_microbatch(asked: int | str, device: str, precision: str, config: PreTrainedConfig) -> Choice:
    """The budget from the recipe, or one that is fast and, on a CPU, fits into half of the free memory."""
    if asked != "auto":
        return Choice(str(asked), REQUESTED)
    if device == "cuda":
        return Choice(str(GPU_TOKENS), "a starting size")
    kept = KEPT_BYTES[precision] * config.hidden_size * config.num_hidden_layers
    free = psutil.virtual_memory().available / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fitting = int(SHARE_OF_FREE * free / kept)
    if fitting < CPU_TOKENS:
        reason = f"half of the {free / 1e9:.1f} GB of free memory, at {kept / 1e3:,.0f} kB per token"
        return Choice(str(max(fitting, MIN_TOKENS)), reason)
    return Choice(str(CPU_TOKENS), f"larger is no faster; activations take {kept * CPU_TOKENS / 1e9:.1f} GB")


# How oneDNN and cuBLAS report a failed allocation.
OTHER_WORDS = ("could not create a primitive", "CUBLAS_STATUS_ALLOC_FAILED")


class MicroBatchOOM(Exception):
    """A micro-batch ran out of memory; what it allocated is free again once this is caught.

    `is_here`: on this rank, not on another one.
    """

    def __init__(self, reason: str, is_here: bool = True):
        super().__init__(reason)
        self.is_here = is_here


@contextmanager
def as_micro_batch_oom() -> Iterator[None]:
    """Turn every device's out-of-memory error into MicroBatchOOM."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)
        if not is_known and not any(words in str(error) for words in OTHER_WORDS):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        error.__traceback__ = None  # its frames hold the tensors that must be freed
        raise MicroBatchOOM(lines[0]) from None


def smaller_budget(tokens_per_microbatch: int, largest: int, num_sequences: int, reason: str) -> int:
    """The budget to try next, after a micro-batch of `num_sequences` with `largest` tokens ran out of memory.

    EnvironmentProblem if it was a single text, which cannot be divided.
    """
    clear_device_cache(garbage_collection=True)
    if num_sequences == 1:
        raise EnvironmentProblem(
            Problem(
                where=f"one text of {largest} tokens",
                found=f"not enough memory to train on it: {reason}",
                hint=f"preprocessing.max_length={max(largest // 2, 1)} (windows: preprocessing.long_text=head_tail), "
                "a smaller model, or training.device=cpu",
                code="E506",
            )
        )
    return max(min(tokens_per_microbatch, largest) // 2, 1)


def oom_while_ranks_wait(tokens_per_microbatch: int, reason: str) -> EnvironmentProblem:
    """The error if memory runs out where other ranks wait for the result, so that the step cannot be repeated."""
    return EnvironmentProblem(
        Problem(
            where="training step",
            found=f"a micro-batch ran out of memory while the other ranks waited for its result: {reason}",
            hint=f"resume with smaller ones: training.tokens_per_microbatch={max(tokens_per_microbatch // 2, 1)} "
            "--resume --allow-changes",
            code="E507",
        )
    )


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Let glibc keep freed memory instead of returning it to the kernel after each operation; Linux only.

    Otherwise every tensor above 32 MB, such as the gradient of the word embeddings, is mapped again, and each of its
    pages faults on first touch (docs/decisions/0008). Evaluation does not benefit.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        yield
        return
    for option, value in KEEPING.items():
        mallopt(option, value)
    try:
        yield
    finally:
        for option, value in USUAL.items():
            mallopt(option, value)
        give_back_freed_memory()


def give_back_freed_memory() -> None:
    """Return freed memory to the kernel.

    glibc asks for more than an aligned block needs, so the hole of a freed tensor is too small for the next one of its
    size: without this, batches of ever new shapes make the process grow without end (docs/decisions/0011).
    """
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """None with another C library, such as musl, and on other systems."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
