"""`training.seeds`: every seed is the run that `training.seed` makes; the best becomes the run."""

from __future__ import annotations

import json
import math
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv

import fasttune
from fasttune import recipe as recipes
from fasttune.errors import RecipeError
from fasttune.training.events import Started, StepDone
from fasttune.training.seeds import best_seed, mean_and_spread, scores_of

SEEDS = [3, 1, 2]


def settings(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    rows = {name: folder / f"{name}.csv" for name in ("train", "test")}
    if not rows["train"].exists():
        write_csv(rows["train"], make_rows(60))
        write_csv(rows["test"], make_rows(20, seed=9))
    return {
        "model": str(model),
        "data": {name: str(path) for name, path in rows.items()},
        "training": {
            "preset": "tutorial",
            "learning_rate": 1e-3,
            "num_train_epochs": 2,
            "precision": "fp32",
            **training,
        },
        "tracking": {"report_to": "none"},
    }


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("seeds")
    return fasttune.fit(settings(tiny_model, folder, seeds=SEEDS), output=folder / "run", progress=False)


def test_each_is_the_run_with_that_seed(trained: fasttune.Run, tiny_model: Path, tmp_path: Path) -> None:
    one = fasttune.fit(settings(tiny_model, tmp_path, seed=1), output=tmp_path / "one", progress=False)
    assert weights(one.folder) == weights(trained.folder / "seeds" / "seed-1")


def test_mean_and_spread_are_those_of_the_runs_and_the_best_is_the_run(trained: fasttune.Run) -> None:
    summary = json.loads((trained.folder / "seeds.json").read_text())
    runs = {
        seed: json.loads((trained.folder / "seeds" / f"seed-{seed}" / "all_results.json").read_text()) for seed in SEEDS
    }
    for name in ("eval_loss", "eval_accuracy", "test_accuracy"):
        values = [runs[seed][name] for seed in SEEDS]
        assert summary["mean"][name] == pytest.approx(statistics.mean(values))
        assert summary["standard_deviation"][name] == pytest.approx(statistics.stdev(values))
    assert not any("runtime" in name or "per_second" in name for name in summary["mean"])
    best = max(SEEDS, key=lambda seed: runs[seed]["eval_accuracy"])
    assert summary["best"] == best
    assert weights(trained.folder) == weights(trained.folder / "seeds" / f"seed-{best}")
    assert trained.metrics["eval_accuracy"] == runs[best]["eval_accuracy"]
    assert f"run with seed {best}" in (trained.folder / "README.md").read_text()
    assert fasttune.evaluate(trained.folder, progress=False)["test_accuracy"] == trained.metrics["test_accuracy"]


def test_an_interrupted_series_resumes_where_it_was(trained: fasttune.Run, tiny_model: Path, tmp_path: Path) -> None:
    recipe = settings(tiny_model, tmp_path, seeds=SEEDS)
    started: list[int] = []

    def interrupt(event: Any) -> None:
        started.extend([event.step] if isinstance(event, Started) else [])
        if len(started) == 2 and isinstance(event, StepDone) and event.step == 5:
            signal.raise_signal(signal.SIGINT)

    stopped = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[interrupt])
    assert stopped.signal == signal.SIGINT and not stopped.is_complete
    assert (tmp_path / "run" / "seeds" / "seed-3" / "all_results.json").exists()
    assert not (tmp_path / "run" / "all_results.json").exists()
    started.clear()
    resumed = fasttune.fit(
        recipe,
        output=tmp_path / "run",
        resume=True,
        progress=False,
        observers=[lambda event: started.append(event.step) if isinstance(event, Started) else None],
    )
    assert started == [5, 0]  # the second seed from its checkpoint, then the third
    for seed in SEEDS:
        assert weights(resumed.folder / "seeds" / f"seed-{seed}") == weights(trained.folder / "seeds" / f"seed-{seed}")
    again = fasttune.fit(recipe, output=tmp_path / "run", resume=True, progress=False)
    assert again.reason == "finished before" and again.metrics == resumed.metrics


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"seeds": [1, 2], "seed": 7}, "seeds .1, 2. and seed 7"),
        ({"seeds": [1, 2], "max_time": "5m"}, "max_time 5m is the time of one run"),
        ({"seeds": [1]}, "two or more different seeds"),
        ({"seeds": [1, 1]}, "two or more different seeds"),
    ],
)
def test_what_does_not_go_with_seeds(training: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipes.load({"data": {"train": "rows.csv"}, "training": training})


def test_an_undefined_score_is_never_the_best() -> None:
    assert best_seed({1: math.nan, 2: 0.1, 3: 0.2}, "pearson") == 3
    assert best_seed({1: math.nan, 2: 0.1, 3: 0.2}, "loss") == 2
    scores = [scores_of({"eval_pearson": value, "eval_rmse": 1.0}) for value in (math.nan, 0.5)]
    assert list(mean_and_spread(scores)["mean"]) == ["eval_rmse"]
