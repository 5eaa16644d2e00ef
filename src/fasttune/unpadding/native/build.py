"""Compile kernels.c for this machine's processor, once.

The wheel contains C source and no binary. The library is cached in the user's cache folder, under a name derived from
the source, compiler and processor, so that machines that share the folder each compile their own. FASTTUNE_NATIVE=0
turns the kernels off.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from fasttune.security.cache import cache_folder
from fasttune.security.paths import is_ours, make_private, temporary_folder
from fasttune.unpadding.native.library import Library

# Not linked with -fopenmp: torch has already loaded an OpenMP runtime, and a second one would compete for the cores.
COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-c")
LINK = ("-shared",)
SECONDS_TO_COMPILE = 120


@dataclass(frozen=True)
class BuildResult:
    """The library, or None; `reason` explains either in words."""

    library: Library | None
    reason: str


@functools.lru_cache(maxsize=1)
def find() -> BuildResult:
    """Compile the library or find it in the cache, and load it. Never raises: torch can do without."""
    if os.environ.get("FASTTUNE_NATIVE") == "0":
        return BuildResult(None, "turned off by FASTTUNE_NATIVE=0")
    if platform.system() != "Linux" or not torch.cpu.get_capabilities().get("avx512_bf16"):
        return BuildResult(None, "the C kernels are for Linux on CPUs with AVX512_BF16")
    names = [name for name in (os.environ.get("CC"), "gcc", "cc") if name]
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    if compiler is None:
        return BuildResult(None, "no C compiler found; training is faster with gcc")
    try:
        library = load_library(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        message = getattr(error, "stderr", None) or str(error)
        return BuildResult(None, f"{Path(compiler).name} failed: {message.strip().splitlines()[0][:200]}")
    return BuildResult(library, f"compiled by {Path(compiler).name} for AVX512_BF16")


def load_library(compiler: str) -> Library:
    path = compile_kernels(compiler)
    try:
        return Library(path)
    except (OSError, AttributeError):  # the cached file is damaged: not a library, or without the functions
        path.unlink(missing_ok=True)
        return Library(compile_kernels(compiler))


def compile_kernels(compiler: str) -> Path:
    """The path of the library for this source, compiler and processor; OSError or SubprocessError if it fails."""
    source = importlib.resources.files("fasttune.unpadding.native").joinpath("kernels.c").read_bytes()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    capabilities = sorted(name for name, is_supported in torch.cpu.get_capabilities().items() if is_supported)
    inputs = repr((source, version, COMPILE, LINK, platform.machine(), capabilities))
    name = f"kernels-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.so"
    folder = cache_folder("native")
    path = folder / name
    if not (is_ours(folder) and is_ours(path)):  # otherwise another user's code could be loaded
        try:
            if not make_private(folder):
                raise PermissionError
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:  # read-only or another user's: compile for this process only
            folder = temporary_folder()
            path = folder / name
        with tempfile.TemporaryDirectory(dir=folder) as staged:
            (Path(staged) / "kernels.c").write_bytes(source)
            for command in ([*COMPILE, "kernels.c", "-o", "kernels.o"], [*LINK, "kernels.o", "-lm", "-o", name]):
                subprocess.run(
                    [compiler, *command],
                    cwd=staged,
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=SECONDS_TO_COMPILE,
                )
            (Path(staged) / name).replace(path)
    return path
