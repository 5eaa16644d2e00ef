"""`fasttune reproduce`: does training again, with the saved recipe and the same data, give the same model?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttune.data.pipeline import read_splits
from fasttune.errors import DataError, Problem
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, read_events, read_json
from fasttune.tasks import TASKS
from fasttune.training.events import Replanned

ROUNDING = 1e-4  # a difference of scores in 0..1 that sums in another order may leave
CHOICES = ("device", "precision", "kernel", "attention", "parallel")  # that change numbers


@dataclass(frozen=True)
class Reproduced:
    """`scores`: name -> (before, now). `environment`: what differs between the two machines, in words."""

    original: Path
    folder: Path
    has_equal_weights: bool
    scores: dict[str, tuple[float, float]] = field(repr=False)
    environment: list[str] = field(repr=False)

    @property
    def sentence(self) -> str:
        """The verdict."""
        if self.has_equal_weights:
            return f"{self.folder} has bit for bit the weights of {self.original}."
        changed = {name: values for name, values in self.scores.items() if abs(values[0] - values[1]) > ROUNDING}
        if not changed:
            return f"{self.folder} has the scores of {self.original}; the weights differ by rounding."
        name, (before, now) = max(changed.items(), key=lambda item: abs(item[1][0] - item[1][1]))
        why = " What differs: " + "; ".join(self.environment) + "." if self.environment else ""
        return f"{self.folder} differs from {self.original}, most in {name}: {now:.4f} now, {before:.4f} before.{why}"

    def as_json(self) -> dict[str, Any]:
        scores = {name: {"before": before, "now": now} for name, (before, now) in self.scores.items()}
        return {
            "run": str(self.original),
            "again": str(self.folder),
            "has_equal_weights": self.has_equal_weights,
            "scores": scores,
            "environment": self.environment,
            "sentence": self.sentence,
        }


def recipe_to_repeat(folder: RunFolder) -> Recipe:
    """The saved recipe for another folder; DataError if the files are no longer those that the run read."""
    if not folder.checksums.exists():
        found = "the run has no checksums.json, as early runs of 0.1.0, so its weights cannot be compared"
        raise DataError(Problem(code="E531", where=f"reproduce {folder.path}", found=found))
    recipe = load_recipe(folder.recipe, {"output": {"dir": None, "mirror": None}})
    kept = read_json(folder.data_report)["splits"]
    changed = [
        split.where
        for split in read_splits(recipe, TASKS).all()
        if split.name in kept and split.fingerprint != kept[split.name]["fingerprint"]
    ]
    if changed:
        found = f"{', '.join(dict.fromkeys(changed))} changed since the run"
        hint = "restore the file, or train anew: fasttune train " + str(folder.recipe)
        raise DataError(Problem(code="E531", where=f"reproduce {folder.path}", found=found, hint=hint))
    return recipe


def replanned_in(folder: RunFolder) -> dict[int, int]:
    """After which step training.max_time gave the run another number of steps, and which."""
    return {event["step"]: event["num_steps"] for event in read_events(folder) if event["event"] == Replanned.name}


def compared(original: RunFolder, again: RunFolder) -> Reproduced:
    """What two finished runs of the same recipe have in common."""
    before, now = (read_json(folder.all_results) for folder in (original, again))
    scores = {name: (before[name], now[name]) for name in before if name in now and _is_score(name, before[name])}
    kept = [read_json(folder.checksums) for folder in (original, again)]
    weights = [{name: digest for name, digest in one.items() if name.endswith(".safetensors")} for one in kept]
    environments = [read_json(folder.environment) for folder in (original, again)]
    examples = [read_json(folder.data_report)["training_examples"] for folder in (original, again)]
    differing = list(_differences(*environments))
    if examples[0] != examples[1]:  # beyond the files of the splits: data.unlabelled, or the teacher
        differing.append("the training examples differ")
    return Reproduced(original.path, again.path, weights[0] == weights[1], scores, differing)


def _is_score(name: str, value: Any) -> bool:
    other = ("_runtime", "_per_second", "_samples", "_low", "_high")
    return (
        isinstance(value, float)
        and (name.startswith(("eval_", "test_")) or name == "train_loss")
        and not name.endswith(other)
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for package, version in before["versions"].items():
        if now["versions"].get(package) != version:
            yield f"{package} {now['versions'].get(package, 'missing')} now, {version} before"
    for name in CHOICES:
        values = [environment.get(name, {}).get("value") for environment in (now, before)]
        if values[0] != values[1]:
            yield f"{name} {values[0]} now, {values[1]} before"
    if before["num_processes"] != now["num_processes"]:
        yield f"{now['num_processes']} processes now, {before['num_processes']} before"
