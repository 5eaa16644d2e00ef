"""Recipes: the settings of a run. `load` reads and checks a recipe, `dump` writes it with all its defaults.

This package does not import torch, open data or download anything.
"""

from fasttune.recipe.data_schema import Columns
from fasttune.recipe.load import Overrides, differences, digest, dump, is_recipe, load, shipped, shipped_text
from fasttune.recipe.schema import Recipe, fields
from fasttune.recipe.section import Section
from fasttune.recipe.types import METRICS

__all__ = [
    "Columns",
    "Overrides",
    "Recipe",
    "Section",
    "METRICS",
    "fields",
    "load",
    "dump",
    "differences",
    "digest",
    "is_recipe",
    "shipped",
    "shipped_text",
]
