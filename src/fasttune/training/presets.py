"""`training.preset`: values for the training settings that a recipe leaves open, by rows and size of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.training.precision import Choice

PRESET = "preset"  # the name of the choice in environment.json
# Fields that a preset may fill; a resume keeps the saved values of those that its recipe leaves open.
FILLED = (
    "num_train_epochs",
    "batch_size",
    "learning_rate",
    "head_learning_rate",
    "layer_decay",
    "warmup_steps",
    "attention_dropout",
)
# Peak learning rates by hidden size. ELECTRA's published settings (Clark et al., 2020) decrease with the size in the
# same way: 3e-4 for 256, 1e-4 for 768, 5e-5 for 1,024. These are lower, because the head has a rate of its own;
# the one for 384 is measured (benchmarks/results/2026-11-29-ideas-for-few-rows.md).
LEARNING_RATES = {512: 1e-4, 800: 5e-5, math.inf: 3e-5}
HEAD_FACTOR = 5  # the head's rate in multiples of the rate of the highest layer
LAYER_DECAY = 0.9
SHARED_LAYERS = ("albert",)  # one set of weights for all layers cannot have several rates
WARMUP = 0.1
# By numbers of rows.
BATCH_SIZES = {10_000: 8, 100_000: 16, math.inf: 32}
EPOCHS = {
    "fast": {math.inf: 1.0},
    "auto": {10_000: 3.0, 100_000: 2.0, math.inf: 1.0},
    "accurate": {10_000: 5.0, 100_000: 3.0, math.inf: 2.0},
}
# Few rows need more epochs: fine-tuning on few rows fails mostly for too few steps (Mosbach et al., 2021; Zhang et al.,
# 2021, both at ICLR).
FEWEST_STEPS = {"fast": 60, "auto": 150, "accurate": 300}
MOST_EPOCHS = 40.0


def with_preset(recipe: Recipe, num_rows: int, config: PreTrainedConfig) -> tuple[Recipe, Choice | None]:
    """The recipe with the fields that `training.preset` fills, and the choice with its reason.

    A field that the recipe sets wins. `num_rows`: of the training split.
    """
    training = recipe.training
    name, is_set = training.preset, training.model_fields_set
    chosen = _values(recipe, num_rows, config)
    values = {field: chosen[field] for field in FILLED if field in chosen and field not in is_set}
    if not values:
        return recipe, None
    if training.max_steps > 0:
        values.pop("num_train_epochs", None)
    reason = f"for {num_rows:,} rows: " + " ".join(f"{field}={value:g}" for field, value in values.items())
    return load_recipe(recipe, {"training": values}), Choice(name, reason)


def _values(recipe: Recipe, num_rows: int, config: PreTrainedConfig) -> dict[str, Any]:
    training = recipe.training
    if training.preset == "tutorial":
        return {}
    # A time limit takes what fits of a long run.
    pace = "accurate" if training.preset == "auto" and training.max_time else training.preset
    is_set = training.model_fields_set
    batch_size = training.batch_size if "batch_size" in is_set else min(_by(num_rows, BATCH_SIZES), num_rows)
    rate = training.learning_rate if "learning_rate" in is_set else _by(config.hidden_size, LEARNING_RATES)
    steps_per_epoch = math.ceil(num_rows / batch_size)
    epochs = max(_by(num_rows, EPOCHS[pace]), math.ceil(FEWEST_STEPS[pace] / steps_per_epoch))
    values: dict[str, Any] = {
        "num_train_epochs": min(epochs, MOST_EPOCHS),
        "batch_size": batch_size,
        "learning_rate": rate,
        "head_learning_rate": min(HEAD_FACTOR * rate, 1.0),
        "warmup_steps": WARMUP,
    }
    if config.model_type not in SHARED_LAYERS:
        values["layer_decay"] = LAYER_DECAY
    if pace == "fast" or num_rows < 10_000:
        values["attention_dropout"] = 0.0  # pays off in long runs only
    return values


def _by(number: float, limits: Mapping[float, Any]) -> Any:
    """The value of the first limit that `number` does not exceed; the limits rise."""
    return next(value for limit, value in limits.items() if number <= limit)
