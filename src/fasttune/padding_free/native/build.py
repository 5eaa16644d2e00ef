"""Compile kernels.c for this very processor, once.

The wheel holds C text and no binary. The result is kept in the user's cache folder under a name made of source,
compiler and processor; another machine that shares the folder compiles its own. FASTTUNE_NATIVE=0 switches it off.
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

from fasttune.padding_free.native.library import Library
from fasttune.security.cache import cache_folder
from fasttune.security.paths import is_ours, make_private, temporary_folder

# Without -fopenmp at the link: torch has loaded an OpenMP runtime, and a second one would fight it for the cores.
COMPILE = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-c")
LINK = ("-shared",)
SECONDS_TO_COMPILE = 120


@dataclass(frozen=True)
class Found:
    """The library, or None; the reason in words either way."""

    library: Library | None
    reason: str


@functools.lru_cache(maxsize=1)
def find() -> Found:
    """Compile or take from the cache, and load; never raises: without it torch does the work."""
    if os.environ.get("FASTTUNE_NATIVE") == "0":
        return Found(None, "switched off by FASTTUNE_NATIVE=0")
    if platform.system() != "Linux" or not torch.cpu.get_capabilities().get("avx512_bf16"):
        return Found(None, "the kernels in C are for Linux on CPUs with AVX512_BF16")
    compiler = next(
        (path for name in (os.environ.get("CC"), "gcc", "cc") if name and (path := shutil.which(name))), None
    )
    if compiler is None:
        return Found(None, "no C compiler here; with gcc training is faster")
    try:
        library = loaded(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return Found(None, f"{Path(compiler).name} failed: {said.strip().splitlines()[0][:200]}")
    return Found(library, f"compiled here by {Path(compiler).name} for AVX512_BF16")


def loaded(compiler: str) -> Library:
    path = compiled(compiler)
    try:
        return Library(path)
    except (OSError, AttributeError):  # damaged where it was kept: no shared library, or without our functions
        path.unlink(missing_ok=True)
        return Library(compiled(compiler))


def compiled(compiler: str) -> Path:
    """The shared library for this source, compiler and processor; OSError or SubprocessError when it cannot be made."""
    source = importlib.resources.files("fasttune.padding_free.native").joinpath("kernels.c").read_bytes()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    capabilities = sorted(name for name, has in torch.cpu.get_capabilities().items() if has)
    made_of = repr((source, version, COMPILE, LINK, platform.machine(), capabilities))
    name = f"kernels-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    folder = cache_folder("native")
    path = folder / name
    if not (is_ours(folder) and is_ours(path)):  # else anybody's code would be loaded
        try:
            if not make_private(folder):
                raise PermissionError
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:  # read-only, or not ours: this process compiles for itself
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
