"""`training.seeds`: one run per seed in RUN/seeds/seed-N, their mean and spread, and the best as the run itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from statistics import mean, stdev
from typing import Any

from fasttune.parallel.collectives import barrier, broadcast_object, is_main, raise_on_all_ranks
from fasttune.recipe import Recipe, dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.schema import Training
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.runs.folder import RunFolder, copy_model, locked, read_json, write_json, write_text
from fasttune.runs.mirror import Mirror
from fasttune.training.callbacks import Observer
from fasttune.training.fit import Run, fit_in_folder
from fasttune.training.run import Log


def fit_seeds(
    recipe: Recipe,
    folder: RunFolder,
    *,
    resume: bool,
    allow_changes: bool,
    log: Log,
    observers: Sequence[Observer],
) -> Run:
    """Train a run for each of `training.seeds`, one after the other; the arguments are those of `fit_in_folder`.

    A killed series resumes with the seed it was at. The tokens are read from the cache after the first run.
    """
    training = recipe.training
    assert training.seeds is not None
    arguments: dict[str, Any] = {"resume": resume, "allow_changes": allow_changes, "log": log, "observers": observers}
    if broadcast_object(resume and folder.is_finished):
        return fit_in_folder(recipe, folder, **arguments)
    raise_on_all_ranks(lambda: write_text(folder.recipe, dump(recipe)) if is_main() and not folder.is_run else None)
    runs: dict[int, Run] = {}
    for number, seed in enumerate(training.seeds, 1):
        own = RunFolder(folder.path / "seeds" / f"seed-{seed}")
        log(f"seed {seed}, run {number} of {len(training.seeds)}")
        with locked(own) if is_main() else nullcontext():
            runs[seed] = fit_in_folder(_of_seed(recipe, seed, own), own, **arguments)
        if recipe.training.compile == "auto" and runs[seed].is_complete:  # seeds shall differ in nothing else
            chosen = broadcast_object(load_recipe(own.recipe).training.compile if is_main() else None)
            recipe = load_recipe(recipe, {"training": {"compile": chosen}})
        if runs[seed].signal is not None or not runs[seed].is_complete:
            return Run(folder.path, runs[seed].metrics, runs[seed].reason, False, runs[seed].signal)
    raise_on_all_ranks(lambda: _publish(recipe, folder, runs) if is_main() else None)
    summary, results = broadcast_object((read_json(folder.seeds), read_json(folder.all_results)) if is_main() else None)
    for line in spread(summary):
        log(line)
    if recipe.output.mirror is not None and is_main():
        Mirror(recipe.output.mirror, folder).send_all()
    barrier()
    best = runs[summary["best"]]
    return Run(folder.path, results, f"{len(runs)} seeds done", example=best.example)


def _of_seed(recipe: Recipe, seed: int, folder: RunFolder) -> Recipe:
    mirror = recipe.output.mirror
    own_mirror = None if mirror is None else f"{mirror.rstrip('/')}/seeds/{folder.path.name}"
    output = {"dir": str(folder.path), "mirror": own_mirror}
    return load_recipe(recipe, {"training": {"seed": seed, "seeds": None}, "output": output})


def _publish(recipe: Recipe, folder: RunFolder, runs: Mapping[int, Run]) -> None:
    """Make the best run the content of `folder`; the results come last and mark it finished."""
    scores = {seed: scores_of(run.metrics) for seed, run in runs.items()}
    chosen = load_recipe(RunFolder(next(iter(runs.values())).folder).recipe)
    metric = chosen.evaluation.metric_for_best_model or "loss"
    best = best_seed({seed: values.get(f"eval_{metric}", math.nan) for seed, values in scores.items()}, metric)
    own = RunFolder(runs[best].folder)
    copy_model(own, folder)
    settings = {"seed": Training().seed, "seeds": recipe.training.seeds}
    changes = {"training": settings, "output": {"dir": str(folder.path), "mirror": recipe.output.mirror}}
    write_text(folder.recipe, dump(load_recipe(load_recipe(own.recipe), changes)))
    summary = {"metric": metric, "best": best, "scores": scores, **mean_and_spread(scores.values())}
    write_json(folder.seeds, summary)
    write_text(folder.card, own.card.read_text("utf-8") + "\n".join(["\n## Seeds\n", *table(summary)]) + "\n")
    write_json(folder.all_results, read_json(own.all_results))


def scores_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scores on validation and test rows, without times and rates; undefined ones are left out."""
    return {
        name: value
        for name, value in metrics.items()
        if name.startswith(("eval_", "test_"))
        and isinstance(value, float)
        and not math.isnan(value)
        and not name.endswith(("_runtime", "_low", "_high"))
        and "_per_second" not in name
    }


def best_seed(values: Mapping[int, float], metric: str) -> int:
    """The seed with the best value; ties go to the first, and NaN is worse than any number."""
    sign = -1 if metric in LESS_IS_BETTER else 1
    return max(values, key=lambda seed: -math.inf if math.isnan(values[seed]) else sign * values[seed])


def mean_and_spread(scores: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of a sample: divided by n - 1) of each score that all seeds have."""
    scores = list(scores)
    defined = [name for name in scores[0] if all(name in one for one in scores)]
    values = {name: [one[name] for one in scores] for name in defined}
    return {
        "mean": {name: mean(numbers) for name, numbers in values.items()},
        "standard_deviation": {name: stdev(numbers) for name, numbers in values.items()},
    }


def spread(summary: Mapping[str, Any]) -> Iterator[str]:
    """The scores over the seeds, for the log."""
    yield f"over {len(summary['scores'])} seeds, mean and standard deviation"
    for name, value in summary["mean"].items():
        yield f"  {name:<24}{value:.4f} +- {summary['standard_deviation'][name]:.4f}"
    yield f"  best on validation rows by {summary['metric']}: seed {summary['best']}"


def table(summary: Mapping[str, Any]) -> Iterator[str]:
    """The scores over the seeds, for the card."""
    names = list(summary["mean"])
    yield f"| seed | {' | '.join(names)} |"
    yield "|---|" + "---|" * len(names)
    for seed, scores in summary["scores"].items():
        yield f"| {seed} | {' | '.join(f'{scores[name]:.4f}' for name in names)} |"
    means, deviations = summary["mean"], summary["standard_deviation"]
    yield f"| mean | {' | '.join(f'{means[name]:.4f} ± {deviations[name]:.4f}' for name in names)} |"
    yield (
        f"\nThis model is the run with seed {summary['best']}, the best on the validation rows by {summary['metric']}. "
        "Each run is in `seeds/`; ± is one standard deviation."
    )
