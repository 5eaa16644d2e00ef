"""The minimum versions of libraries that read untrusted files; in older ones, a file could run code."""

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
    """The installed version, or None if the package is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # imported late, to keep --help fast

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def is_too_old(package: str) -> bool:
    from packaging.version import Version

    installed = version_of(package)
    return installed is not None and Version(installed) < Version(FLOORS[package])
