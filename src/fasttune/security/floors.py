"""The oldest releases of libraries with which a stranger's file can be read: before them it could run code."""

from __future__ import annotations

import functools

FLOORS = {
    "torch": "2.10",
    "transformers": "5.5",
    "safetensors": "0.4.2",
    "PyYAML": "5.4",
    "fsspec": "2026.9",
}


def version_of(package: str) -> str | None:
    """The installed version; None where the package is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # help is instant without them

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def is_too_old(package: str) -> bool:
    from packaging.version import Version

    installed = version_of(package)
    return installed is not None and Version(installed) < Version(FLOORS[package])
