"""Encoders on real tokens only: `fasttune.padding_free(model)` and what it is made of.

The package is callable because the public name of the function is the name of the room (docs/decisions/0003).
"""

import sys
from types import ModuleType
from typing import Any

from fasttune.padding_free.boundaries import Boundaries
from fasttune.padding_free.unpad import (
    ENCODER_STACK,
    is_padding_free,
    padding_free,
    prove,
    restore_padding,
    unsupported_reason,
)

__all__ = [
    "ENCODER_STACK",
    "Boundaries",
    "is_padding_free",
    "restore_padding",
    "padding_free",
    "prove",
    "unsupported_reason",
]


class _CallableRoom(ModuleType):
    __doc__ = padding_free.__doc__

    def __call__(self, model: Any) -> Any:
        return padding_free(model)


sys.modules[__name__].__class__ = _CallableRoom
