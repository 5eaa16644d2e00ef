"""fasttune fine-tunes a Transformer encoder on your labelled file and evaluates, saves and loads the model.

Names are imported on first use, so that `import fasttune` and `fasttune --help` stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasttune.security import addresses

__version__ = "0.1.0"

# Hugging Face's libraries read these settings when they are imported.
addresses.send_no_telemetry()
if addresses.is_offline():
    addresses.go_offline()

if TYPE_CHECKING:
    from fasttune.api import (
        Predictor,
        Run,
        check,
        compare,
        evaluate,
        export_run,
        fit,
        load,
        notebook_fit,
        predict,
        push,
    )
    from fasttune.errors import Error
    from fasttune.recipe import Recipe
    from fasttune.unpadding import padding_free

_HOME = {
    "Error": "errors",
    "Predictor": "api",
    "Recipe": "recipe",
    "Run": "api",
    "check": "api",
    "compare": "api",
    "evaluate": "api",
    "export_run": "api",
    "fit": "api",
    "load": "api",
    "notebook_fit": "api",
    "padding_free": "unpadding",
    "predict": "api",
    "push": "api",
    "rank_labels": "api",
    "write_report": "api",
}

__all__ = [
    "Error",
    "Predictor",
    "Recipe",
    "Run",
    "check",
    "compare",
    "evaluate",
    "export_run",
    "fit",
    "load",
    "notebook_fit",
    "padding_free",
    "predict",
    "push",
    "rank_labels",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"fasttune.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fasttune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
