"""Run Hugging Face encoders on real tokens only: `remove_padding(model)` and its parts."""

from fasttune.padding_free.boundaries import Boundaries
from fasttune.padding_free.unpad import (
    ENCODER_STACK,
    is_padding_free,
    remove_padding,
    restore_padding,
    unsupported_reason,
    verify_kernel,
)

__all__ = [
    "ENCODER_STACK",
    "Boundaries",
    "is_padding_free",
    "remove_padding",
    "restore_padding",
    "unsupported_reason",
    "verify_kernel",
]
