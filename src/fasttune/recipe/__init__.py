"""The recipe: what a run is made from. `load` reads and checks one, `dump` writes it whole.

Nothing here imports torch, opens data or downloads anything.
"""

from fasttune.recipe.data_schema import Columns
from fasttune.recipe.load import Overrides, differences, digest, dump, is_recipe, load, shipped, shipped_text
from fasttune.recipe.schema import METRICS, Recipe, Section, fields

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
