"""What is wrong with a machine, before a run finds out: `fasttune doctor`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

import psutil
import torch
from huggingface_hub.constants import HF_HOME
from packaging.requirements import Requirement

from fasttune import api
from fasttune.data.starter.model import embedded_model_path
from fasttune.errors import Error
from fasttune.padding_free.native import find
from fasttune.runs.folder import DEFAULT_PARENT
from fasttune.security.cache import cache_folder
from fasttune.security.floors import FLOORS, is_too_old, version_of
from fasttune.training import signals
from fasttune.training.alerts import VARIABLE
from fasttune.training.precision import choose_device, fast_precision

OK, WARNING, FAILURE = "ok", "warning", "FAILURE"
LEAST_DISK, LEAST_MEMORY = 5e9, 4e9  # bytes; a BERT-base has 1.3 GB a checkpoint, of which four may lie there
LEAST_SHARED = 256e6  # bytes of /dev/shm; processes on one machine talk through it
STEPS = 4


@dataclass(frozen=True)
class Finding:
    """`state`: ok, warning (a run goes on with it) or FAILURE (none will). `hint`: what to type."""

    name: str
    state: str
    found: str
    hint: str = ""


def examine() -> Iterator[Finding]:
    """Each check when it is made; the last one trains for a few seconds."""
    yield Finding("python", OK if sys.version_info >= (3, 11) else FAILURE, sys.version.split()[0])
    yield from packages()
    yield from places()
    yield shared_memory()
    free = psutil.virtual_memory().available
    state, hint = (OK, "") if free >= LEAST_MEMORY else (WARNING, "end other programs, or take a small model")
    yield Finding("memory", state, f"{free / 1e9:.1f} GB free", hint)
    yield device()
    yield Finding("kernels in C", OK, find().reason)
    yield self_test()


def packages() -> Iterator[Finding]:
    """What fasttune asks for, and what is safe to read files with."""
    wanted = [Requirement(line) for line in requires("fasttune") or ()]
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        installed = version_of(one.name)
        fits = installed is not None and one.specifier.contains(installed, prereleases=True)
        hint = "" if fits else f"pip install '{one.name}{one.specifier}'"
        if not fits:
            yield Finding(one.name, FAILURE, f"{installed or 'not installed'}, needed {one.specifier}", hint)
    for name, floor in FLOORS.items():
        if is_too_old(name):
            found = f"{version_of(name)}, unsafe below {floor}"
            yield Finding(name, FAILURE, found, f"pip install '{name}>={floor}'")
    names = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "datasets")
    yield Finding("packages", OK, ", ".join(f"{name} {version_of(name) or 'missing'}" for name in names))


def places() -> Iterator[Finding]:
    """Where runs, caches and temporary files go: can they be written, and is there room?"""
    for name, path in (
        ("runs", DEFAULT_PARENT.absolute()),
        ("cache of fasttune", cache_folder("")),
        ("cache of the hub", Path(HF_HOME)),
        ("temporary files", Path(tempfile.gettempdir())),
    ):
        place = path
        while not place.exists():
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"fasttune")
        except OSError as error:
            yield Finding(name, FAILURE, f"{path} cannot be written ({error.strerror})", f"chmod u+w {place}")
            continue
        free = shutil.disk_usage(place).free
        state, hint = (OK, "") if free >= LEAST_DISK else (WARNING, f"make room on the disk of {place}")
        yield Finding(name, state, f"{path}, {free / 1e9:.1f} GB free", hint)


def shared_memory() -> Finding:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return Finding("shared memory", OK, "no /dev/shm here")
    size = shutil.disk_usage(shared).total
    if size >= LEAST_SHARED:
        return Finding("shared memory", OK, f"{size / 1e9:.1f} GB")
    hint = "docker run --shm-size=1g, for training with several processes"
    return Finding("shared memory", WARNING, f"{size / 1e6:.0f} MB in /dev/shm", hint)


def device() -> Finding:
    chosen = choose_device("auto")
    found = f"{chosen.value} ({chosen.reason}), {fast_precision(chosen.value).value}"
    has_card = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if has_card and not torch.cuda.is_available():
        cuda = torch.version.cuda
        built = "a torch without CUDA" if cuda is None else f"a driver too old for CUDA {cuda}, or none"
        hint = "the install line of https://pytorch.org/get-started for this machine"
        return Finding("device", WARNING, f"{found}; there is an NVIDIA card, but {built}", hint)
    return Finding("device", OK, found)


def self_test() -> Finding:
    """A few steps with the embedded model, a checkpoint, a score and a prediction."""
    try:
        embedded_model_path()
    except Error as error:
        return Finding("self-test", WARNING, "not made: no embedded model", error.problems[0].hint)
    os.environ.pop(VARIABLE, None)  # nobody has to be told of this run
    begin = time.perf_counter()
    settings = [f"training.max_steps={STEPS}", "data.max_train_samples=64", "data.max_eval_samples=16"]
    try:
        with tempfile.TemporaryDirectory(prefix="fasttune-doctor-") as folder:
            run = api.fit("quickstart", output=Path(folder) / "run", overrides=settings, progress=False)
            if run.signal is not None:
                raise signals.Stopped(run.signal)
            answers = api.predict(run.folder, ["a room with a view"])
    except Error as error:
        return Finding("self-test", FAILURE, str(error.problems[0]), error.problems[0].hint)
    seconds = time.perf_counter() - begin
    speed = run.metrics["train_tokens_per_second"]
    done = f"{STEPS} steps, a checkpoint, scores and {len(answers)} prediction in {seconds:.0f} s"
    return Finding("self-test", OK, f"{done}, {speed:,.0f} tokens/s with the first steps, which are slow")
