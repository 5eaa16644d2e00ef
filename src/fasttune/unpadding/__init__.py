"""Run Hugging Face encoders on real tokens only: `padding_free(model)` and its parts."""

from fasttune.unpadding.boundaries import Boundaries
from fasttune.unpadding.hooks import ENCODER_STACK, known_boundaries
from fasttune.unpadding.unpad import (
    compiled_layers,
    is_padding_free,
    layers_to_compile,
    padding_free,
    read_first_token,
    restore_padding,
    unsupported_reason,
    verify_kernel,
)

__all__ = [
    "ENCODER_STACK",
    "Boundaries",
    "compiled_layers",
    "is_padding_free",
    "known_boundaries",
    "layers_to_compile",
    "padding_free",
    "read_first_token",
    "restore_padding",
    "unsupported_reason",
    "verify_kernel",
]
