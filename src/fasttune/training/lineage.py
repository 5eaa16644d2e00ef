"""The models and runs that a run comes from, oldest first: environment.json keeps them, card and report show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, read_json

LINEAGE = "lineage"  # in environment.json


def lineage_of(recipe: Recipe) -> list[dict[str, Any]]:
    """The pretrained model, and each run since: {"model"}, then {"run", "run_id", "task", "num_rows"}.

    Empty if the recipe starts from a pretrained model itself.
    """
    folder = RunFolder(Path(recipe.model).expanduser())
    if not folder.is_run or not folder.environment.exists():  # a model, or a run from the hub
        return []
    saved, environment = load_recipe(folder.recipe), read_json(folder.environment)
    earlier = environment.get(LINEAGE) or [{"model": saved.model}]
    splits = read_json(folder.data_report)["splits"] if folder.data_report.exists() else {}
    own = {
        "run": folder.path.resolve().name,
        "run_id": environment["run_id"],
        "task": saved.task,
        "num_rows": splits.get("train", {}).get("num_rows"),
    }
    return [*earlier, own]


def in_words(lineage: Sequence[Mapping[str, Any]]) -> list[str]:
    """One phrase for each ancestor, oldest first."""
    words = []
    for one in lineage:
        if "model" in one:
            is_path = Path(one["model"]).is_absolute() or one["model"].startswith(("~", "."))
            words.append(Path(one["model"]).name if is_path else one["model"])
        else:
            rows = "" if one["num_rows"] is None else f", {one['num_rows']:,} rows"
            words.append(f"{one['run']} ({one['task']}{rows})")
    return words
