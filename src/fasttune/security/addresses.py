"""The addresses fasttune opens: file systems that hold data, and none that unpack, render or execute content."""

from __future__ import annotations

import os

# S3 and compatible stores, Google's and Azure's, the hub and the web; `memory` is inside this process. fsspec has about
# forty more: `reference` renders templates, `dask` unpickles, `zip` and `::` chains hide what they open.
SCHEMES = ("file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "http", "https")
LOCAL = ("file", "memory")
OFFLINE = "FASTTUNE_OFFLINE"


def scheme_of(address: str) -> str:
    """The scheme of `scheme://...` in lower case; empty for a path."""
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else ""


def is_remote(spec: str) -> bool:
    return scheme_of(spec) not in ("", *LOCAL)


def refusal(address: str) -> tuple[str, str] | None:
    """What is wrong with an address and what is expected instead, in words; None if it may be opened."""
    scheme = scheme_of(address)
    if "::" in address:
        return "a chained address (`::`)", "the address of a single file system"
    if scheme not in ("", *SCHEMES):
        return f"an address with {scheme}://", f"one of {', '.join(f'{name}://' for name in SCHEMES)}"
    if is_offline() and is_remote(address):
        return "a network address with --offline", "a local file"
    return None


def is_offline() -> bool:
    return os.environ.get(OFFLINE) == "1"


def go_offline() -> None:
    """Keep fasttune, huggingface_hub, datasets and transformers off the network for the rest of this process."""
    for name in (OFFLINE, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"


def send_no_telemetry() -> None:
    """Turn off the telemetry of Hugging Face's libraries, which count loads and report versions by default."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
