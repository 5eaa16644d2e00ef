"""Translate the settings of transformers' Trainer and its example scripts, as far as a recipe has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fasttune.recipe import aliases
from fasttune.recipe.messages import FIELDS, translated_value
from fasttune.recipe.schema import FieldPath
from fasttune.security.secrets import holds_secret, is_secret_name

PER_DEVICE, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
NOTHING: tuple[Any, ...] = (None, "", [], {})
# What `to_dict()` fills in by itself.
FILLED_IN = ("disable_tqdm", "accelerator_config", "activation_checkpointing", "dataloader_pin_memory")
MASKED = re.compile("<[A-Z_]+>")  # how it shows a token


@dataclass(frozen=True)
class Translated:
    """`settings` of a recipe, and each name that was `left_out` with the reason."""

    settings: dict[FieldPath, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def translate(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Translated:
    """`given`: names and values, as of `TrainingArguments.to_dict()`. Values that equal `defaults` are skipped.

    Never contains a secret.
    """
    translated = Translated()
    if PER_DEVICE in given or ACCUMULATION in given:
        per_device, steps = (given.get(name, defaults.get(name, 1)) for name in (PER_DEVICE, ACCUMULATION))
        if isinstance(per_device, int) and isinstance(steps, int):
            translated.settings["training", "batch_size"] = per_device * steps
        else:
            translated.left_out[PER_DEVICE] = f"{PER_DEVICE} and {ACCUMULATION} must be whole numbers"
    for name, value in given.items():
        is_default = value in NOTHING or (name in defaults and value == defaults[name])
        if is_default or name in (PER_DEVICE, ACCUMULATION, *FILLED_IN) or MASKED.fullmatch(str(value)):
            continue
        if is_secret_name(name) or holds_secret(value):
            translated.left_out[name] = "secrets come from the environment"
            continue
        reason = _add(name, value, translated.settings)
        if reason:
            translated.left_out[name] = reason
    return translated


def _add(name: str, value: Any, settings: dict[FieldPath, Any]) -> str:
    """Add the setting; or return why it is left out."""
    advice = aliases.NAMES.get(name)
    homes = sorted((path for path in FIELDS if path[-1] == name), key=lambda path: path[0] != "training")
    if advice is None and not homes:
        return "fasttune has no such setting"
    if advice is not None and not advice.write:
        return advice.why
    path = homes[0] if advice is None else tuple(advice.write.split("."))
    if advice is not None and advice.value:  # a switch
        if value is False:
            return ""
        value = advice.value
    if path not in FIELDS:
        return f"write {'.'.join(path)} yourself"
    translated = translated_value(path, value)
    if translated is not None:
        settings[path] = translated
        return ""
    return f"{'.'.join(path)} takes {(FIELDS[path].json_schema_extra or {})['allowed']}"  # type: ignore[index]
