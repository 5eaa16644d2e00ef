"""Memory: how many tokens one forward and backward may hold, what to do when it was too much, and how the C library
hands it out."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import PreTrainedConfig

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.training.precision import Choice

# A micro-batch costs a fixed time (weights cast, gradients added: about 30 bytes of traffic a parameter) beside that of
# its tokens. On two cores 4,096 tokens were 10 to 15 % faster than 2,048 in training, and no faster in evaluation.
# There 1,024 take 0 to 9 % longer than 2,048 and leave too little behind for memory to grow (docs/decisions/0011).
CPU_TOKENS, CPU_EVALUATION_TOKENS = 4096, 1024
# Bytes that a layer keeps for its backward, for each token and hidden unit (intermediate size 4 times the hidden one,
# attention that keeps no matrix of weights): measured with a BERT of 6 layers of 384, 54 and 85.
KEPT_BYTES = {"bf16": 56, "fp16": 56, "fp32": 88}
SHARE_OF_FREE = 0.5  # of the memory of a machine that others use too
FEWEST_TOKENS = 512
# Until a GPU is probed: 16,384 tokens of a BERT-base in bf16 hold 8.5 GB by KEPT_BYTES (not measured).
GPU_TOKENS = 16384


# mallopt(3) of glibc: names from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 256 * 2**20}
# Where glibc's own adjustment, which any call of mallopt ends, comes to by itself in a process with large tensors.
USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20, M_TOP_PAD: 0}


# How many programs for products oneDNN and the layer between it and torch (ideep) keep; each reads its variable when it
# is first used. A layer needs about nine for one number of tokens, forward and backward (docs/decisions/0011).
FEW_PROGRAMS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "24", "LRU_CACHE_CAPACITY": "16"}
# Making them anew took 12 % of a step of 400 tokens, and nothing that could be measured of one of 900.
SHORT_STEP = 750


def keep_few_programs() -> None:
    """Let programs go that are not in use: where they lie, no large tensor finds room. What the user set stays."""
    for name, value in FEW_PROGRAMS.items():
        os.environ.setdefault(name, value)


def choose_tokens_per_microbatch(asked: int | str, device: str, precision: str, config: PreTrainedConfig) -> Choice:
    """The recipe's; else what is fast on a CPU and fits into half of the memory that is free there."""
    if asked != "auto":
        return Choice(str(asked), "asked for")
    if device == "cuda":
        return Choice(str(GPU_TOKENS), "a size to begin with")
    kept = KEPT_BYTES[precision] * config.hidden_size * config.num_hidden_layers
    free = psutil.virtual_memory().available / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fitting = int(SHARE_OF_FREE * free / kept)
    if fitting < CPU_TOKENS:
        reason = f"{kept / 1e3:,.0f} kB a token, half of the {free / 1e9:.1f} GB of memory that are free"
        return Choice(str(max(fitting, FEWEST_TOKENS)), reason)
    return Choice(str(CPU_TOKENS), f"more gains nothing; it keeps {kept * CPU_TOKENS / 1e9:.1f} GB for the backward")


# What libraries under torch make of an allocation that failed: oneDNN on a CPU, cuBLAS.
OTHER_WORDS = ("could not create a primitive", "CUBLAS_STATUS_ALLOC_FAILED")


class MicroBatchOOM(Exception):
    """A micro-batch did not fit; what it had allocated is free again once this is caught.

    `is_here`: in this process, not in another one that trains with it.
    """

    def __init__(self, reason: str, is_here: bool = True):
        super().__init__(reason)
        self.is_here = is_here


@contextmanager
def as_micro_batch_oom() -> Iterator[None]:
    """Every device's way to run out of memory, as MicroBatchOOM."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_known = isinstance(error, MemoryError) or should_reduce_batch_size(error)
        if not is_known and not any(words in str(error) for words in OTHER_WORDS):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        error.__traceback__ = None  # its frames hold the tensors that have to go
        raise MicroBatchOOM(said[0]) from None


def halved(tokens_per_microbatch: int, largest: int, num_sequences: int, reason: str) -> int:
    """The budget to try next, after a micro-batch of `num_sequences` with `largest` tokens did not fit.

    EnvironmentProblem when there is nothing left to halve.
    """
    clear_device_cache(garbage_collection=True)
    if num_sequences == 1:
        raise EnvironmentProblem(
            Problem(
                where=f"one text of {largest} tokens",
                found=reason,
                expected="memory for one text with all its windows, forward and backward",
                hint=f"preprocessing.max_length={max(largest // 2, 1)} (preprocessing.long_text=head_tail where texts "
                "are read in windows), a smaller model, or training.device=cpu",
                code="E506",
            )
        )
    return max(min(tokens_per_microbatch, largest) // 2, 1)


def out_of_step(tokens_per_microbatch: int, reason: str) -> EnvironmentProblem:
    """Where a micro-batch did not fit at a place where other processes wait for what it would have computed."""
    return EnvironmentProblem(
        Problem(
            where="a micro-batch, while the other processes waited for its result",
            found=reason,
            expected="memory for it",
            hint=f"go on with smaller ones: training.tokens_per_microbatch={max(tokens_per_microbatch // 2, 1)} "
            "--resume --allow-changes",
            code="E507",
        )
    )


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Let glibc keep what tensors free instead of giving it back to the kernel after each operation; Linux only.

    Otherwise tensors above 32 MB, such as the gradient of the word embeddings, are mapped anew, and each of their pages
    faults on first touch (docs/decisions/0008). For training only: evaluation gains nothing by it.
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
    """Let the kernel have what tensors left behind: 10 ms, and as much again where it is soon touched once more.

    glibc asks for more than an aligned block needs, so that the hole of a freed tensor is too small for the next one of
    its size: batches of ever new shapes make a process grow, by half a megabyte each, without end.
    """
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """None with another C library, such as musl, and on other systems."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
