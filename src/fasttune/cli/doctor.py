"""`fasttune doctor`: finds what would keep this machine from training."""

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
from fasttune.runs.folder import DEFAULT_PARENT
from fasttune.security.cache import cache_folder
from fasttune.security.floors import FLOORS, is_too_old, version_of
from fasttune.training import signals
from fasttune.training.alerts import VARIABLE
from fasttune.training.precision import choose_device, fast_precision
from fasttune.unpadding.native import find

OK, WARNING, FAILURE = "ok", "warning", "FAILURE"
MIN_DISK, MIN_MEMORY = 5e9, 4e9  # bytes; a run keeps up to four checkpoints, for a BERT-base of 1.3 GB each
MIN_SHARED = 256e6  # bytes of /dev/shm, through which processes on one machine communicate
STEPS = 4


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. `state`: ok, warning (training works) or FAILURE (it does not)."""

    name: str
    state: str
    found: str
    hint: str = ""


def examine() -> Iterator[Finding]:
    """Run the checks one by one; the last one trains for a few seconds."""
    yield Finding("python", OK if sys.version_info >= (3, 11) else FAILURE, sys.version.split()[0])
    yield from packages()
    yield from places()
    yield shared_memory()
    free = psutil.virtual_memory().available
    state, hint = (OK, "") if free >= MIN_MEMORY else (WARNING, "close other programs, or use a smaller model")
    yield Finding("memory", state, f"{free / 1e9:.1f} GB free", hint)
    yield device()
    yield Finding("compiled kernels", OK, find().reason)
    yield self_test()


def packages() -> Iterator[Finding]:
    """The requirements of fasttune, and the minimum versions that read untrusted files safely."""
    wanted = [Requirement(line) for line in requires("fasttune") or ()]
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, specifier = requirement.name, requirement.specifier
        installed = version_of(name)
        if installed is None or not specifier.contains(installed, prereleases=True):
            found = f"{installed or 'not installed'}; {specifier} is required"
            yield Finding(name, FAILURE, found, f"pip install '{name}{specifier}'")
    for name, floor in FLOORS.items():
        if is_too_old(name):
            found = f"{version_of(name)}; versions below {floor} are unsafe"
            yield Finding(name, FAILURE, found, f"pip install '{name}>={floor}'")
    names = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "datasets")
    yield Finding("packages", OK, ", ".join(f"{name} {version_of(name) or 'missing'}" for name in names))


def places() -> Iterator[Finding]:
    """Whether the folders of runs, caches and temporary files are writable and have room."""
    for name, path in (
        ("runs", DEFAULT_PARENT.absolute()),
        ("fasttune cache", cache_folder("")),
        ("hub cache", Path(HF_HOME)),
        ("temporary files", Path(tempfile.gettempdir())),
    ):
        existing = path
        while not existing.exists():
            existing = existing.parent
        try:
            with tempfile.TemporaryFile(dir=existing) as file:
                file.write(b"fasttune")
        except OSError as error:
            yield Finding(name, FAILURE, f"cannot write to {path} ({error.strerror})", f"chmod u+w {existing}")
            continue
        free = shutil.disk_usage(existing).free
        state, hint = (OK, "") if free >= MIN_DISK else (WARNING, f"free some space on the disk of {existing}")
        yield Finding(name, state, f"{path}, {free / 1e9:.1f} GB free", hint)


def shared_memory() -> Finding:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return Finding("shared memory", OK, "this system has no /dev/shm")
    size = shutil.disk_usage(shared).total
    if size >= MIN_SHARED:
        return Finding("shared memory", OK, f"{size / 1e9:.1f} GB")
    hint = "to train with several processes: docker run --shm-size=1g"
    return Finding("shared memory", WARNING, f"{size / 1e6:.0f} MB in /dev/shm", hint)


def device() -> Finding:
    chosen = choose_device("auto")
    found = f"{chosen.value} ({chosen.reason}), {fast_precision(chosen.value).value}"
    has_card = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if has_card and not torch.cuda.is_available():
        cuda = torch.version.cuda
        reason = "torch was built without CUDA" if cuda is None else f"its driver is missing or too old for CUDA {cuda}"
        hint = "install torch for this machine: https://pytorch.org/get-started"
        return Finding("device", WARNING, f"{found}; an NVIDIA GPU is present, but {reason}", hint)
    return Finding("device", OK, found)


def self_test() -> Finding:
    """Train a few steps with the embedded model, save, evaluate and predict."""
    try:
        embedded_model_path()
    except Error as error:
        return Finding("self-test", WARNING, "skipped: no embedded model", error.problems[0].hint)
    os.environ.pop(VARIABLE, None)  # no alerts for this run
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
    done = f"{STEPS} steps, a checkpoint, an evaluation and {len(answers)} prediction in {seconds:.0f} s"
    return Finding("self-test", OK, f"{done}; {speed:,.0f} tokens/s, slow first steps included")
