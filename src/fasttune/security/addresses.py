"""Which addresses are opened: file systems that hold data, and none that unpacks, renders or runs what it finds."""

from __future__ import annotations

import os

# s3 and its like, Google's and Azure's stores, the hub, the web. `memory` is this process's own. fsspec knows some
# forty more: `reference` renders templates, `dask` unpickles, `zip` and `::` chains hide what is opened.
SCHEMES = ("file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "http", "https")
LOCAL = ("file", "memory")
OFFLINE = "FASTTUNE_OFFLINE"


def scheme_of(address: str) -> str:
    """The scheme of `scheme://rest`, in small letters; empty for a path."""
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else ""


def is_remote(spec: str) -> bool:
    return scheme_of(spec) not in ("", *LOCAL)


def refusal(address: str) -> tuple[str, str] | None:
    """What is wrong with an address and what is expected, in words; None where it may be opened."""
    scheme = scheme_of(address)
    if "::" in address:
        return "an address with a chain (`::`)", "the address of one file system"
    if scheme not in ("", *SCHEMES):
        return f"an address of {scheme}", f"one of {', '.join(f'{name}://' for name in SCHEMES)}"
    if is_offline() and is_remote(address):
        return "an address on the network, with --offline", "a file of this machine"
    return None


def is_offline() -> bool:
    return os.environ.get(OFFLINE) == "1"


def go_offline() -> None:
    """From here on nothing is asked of the network: by us, the hub's library, datasets or transformers."""
    for name in (OFFLINE, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"


def send_no_telemetry() -> None:
    """Hugging Face's libraries count loads and report versions unless they are told not to."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
