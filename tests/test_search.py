"""`fasttune search`: trials are ordinary runs; an interrupted search ends as one that was never interrupted."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv

import fasttune
from fasttune import api, cli
from fasttune import recipe as recipes
from fasttune.errors import RecipeError
from fasttune.training import fit

pytest.importorskip("optuna")

RANGES = {
    "training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
    "training.batch_size": {"low": 4, "high": 16},
    "training.lr_scheduler_type": ["linear", "constant"],
}
NUM_TRIALS = 8


def settings(model: Path, folder: Path, **search: Any) -> dict[str, Any]:
    rows = {name: folder / f"{name}.csv" for name in ("train", "validation", "test")}
    if not rows["train"].exists():
        for seed, path in enumerate(rows.values()):
            write_csv(path, make_rows(40, seed=seed))
    return {
        "model": str(model),
        "data": {name: str(path) for name, path in rows.items()},
        "training": {"preset": "tutorial", "num_train_epochs": 2, "precision": "fp32"},
        "tracking": {"report_to": "none"},
        "search": {"num_trials": NUM_TRIALS, "ranges": RANGES, **search},
    }


def trials_of(folder: Path) -> list[dict[str, Any]]:
    trials = json.loads((folder / "search.json").read_text())["trials"]
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


@pytest.fixture(scope="module")
def found(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Found:
    folder = tmp_path_factory.mktemp("search")
    return api.search(settings(tiny_model, folder), output=folder / "run", progress=False)


def test_the_best_trial_is_the_run(found: api.Found) -> None:
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert len(found.trials) == NUM_TRIALS and complete
    best = max(complete, key=lambda trial: trial.score)
    assert found.best == best.number == found.trials[0].number
    assert [trial.score for trial in complete] == sorted((trial.score for trial in complete), reverse=True)
    assert found.metrics["eval_accuracy"] == best.score
    weights = (best.folder / "model.safetensors").read_bytes()
    assert (found.folder / "model.safetensors").read_bytes() == weights
    saved = recipes.load(found.folder / "recipe.yaml").training
    assert saved.learning_rate == best.settings["training.learning_rate"]
    assert saved.batch_size == best.settings["training.batch_size"]
    assert fasttune.load(found.folder).predict(["a text"])[0]["label"]
    assert {path.name for path in (found.folder / "plots").iterdir()} >= {"search.svg", "search.png"}
    assert "| trial | learning_rate |" in (found.folder / "README.md").read_text()


def test_settings_stay_in_their_ranges(found: api.Found) -> None:
    for trial in found.trials:
        assert 1e-5 <= trial.settings["training.learning_rate"] <= 1e-2
        assert trial.settings["training.batch_size"] in range(4, 17)
        assert trial.settings["training.lr_scheduler_type"] in ("linear", "constant")
    assert len({trial.settings["training.learning_rate"] for trial in found.trials}) == NUM_TRIALS


def test_only_the_best_is_scored_on_test_rows(found: api.Found) -> None:
    assert "test_accuracy" in found.metrics
    for trial in found.trials:
        assert not any(name.startswith("test_") for name in json.loads((trial.folder / "all_results.json").read_text()))
        assert (trial.folder / "model.safetensors").exists() == (trial.number == found.best)
        assert not (trial.folder / "checkpoints").exists()


def test_a_trial_is_the_run_that_fit_makes(found: api.Found, tiny_model: Path, tmp_path: Path) -> None:
    best = next(trial for trial in found.trials if trial.number == found.best)
    recipe = settings(tiny_model, tmp_path)
    overrides = [f"{name}={value}" for name, value in best.settings.items()]
    run = fasttune.fit(recipe, overrides=overrides, output=tmp_path / "run", progress=False)
    assert (run.folder / "model.safetensors").read_bytes() == (found.folder / "model.safetensors").read_bytes()


def test_an_interrupted_search_makes_the_same_trials(
    found: api.Found, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = settings(tiny_model, tmp_path)
    num_trained = 0
    train_and_save = fit._train_and_save

    def interrupt(run: Any, observers: Any) -> Any:
        nonlocal num_trained
        num_trained += 1

        def stop(event: Any) -> None:
            if num_trained in (2, 6) and event.step == 4:
                signal.raise_signal(signal.SIGINT)

        return train_and_save(run, [*observers, stop])

    monkeypatch.setattr(fit, "_train_and_save", interrupt)
    for _ in range(2):
        stopped = api.search(recipe, output=tmp_path / "run", resume=num_trained > 0, progress=False)
        assert stopped.signal == signal.SIGINT and not stopped.metrics
    resumed = api.search(recipe, output=tmp_path / "run", resume=True, progress=False)
    assert trials_of(resumed.folder) == trials_of(found.folder)
    assert resumed.best == found.best
    assert (resumed.folder / "model.safetensors").read_bytes() == (found.folder / "model.safetensors").read_bytes()
    monkeypatch.undo()
    with pytest.raises(RecipeError, match="E530"):
        api.search(recipe, training={"weight_decay": 0.1}, output=tmp_path / "run", resume=True, progress=False)
    longer = api.search(
        recipe, search={"num_trials": NUM_TRIALS + 1}, output=tmp_path / "run", resume=True, progress=False
    )
    assert len(longer.trials) == NUM_TRIALS + 1


def test_a_time_limit_starts_no_further_trial(tiny_model: Path, tmp_path: Path) -> None:
    recipe = settings(tiny_model, tmp_path, max_time="1s", num_trials=500)
    short = api.search(recipe, output=tmp_path / "run", progress=False)
    assert 1 <= len(short.trials) < 100 and "test_accuracy" in short.metrics


def test_a_trial_that_diverges_is_no_end(tiny_model: Path, tmp_path: Path) -> None:
    recipe = settings(tiny_model, tmp_path, num_trials=3, ranges={"training.learning_rate": [1.0, 1e-3]})
    recipe["training"] |= {"max_grad_norm": 0, "num_train_epochs": 20}
    found = api.search(recipe, output=tmp_path / "run", progress=False)
    assert len(found.trials) == 3 and "test_accuracy" in found.metrics


def test_a_search_trains_once_per_trial(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="once per trial"):
        api.search(settings(tiny_model, tmp_path), training={"seeds": [1, 2]}, output=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"training.learning_rat": [1]}, "learning_rate"),
        ({"training.learning_rate": [-1]}, "above 0"),
        ({"training.learning_rate": {"low": 2, "high": 1}}, "search.ranges"),
        ({"training.learning_rate": []}, "search.ranges"),
        ({"evaluation.n_best_size": [3, 4]}, "cannot vary"),
    ],
)
def test_wrong_ranges_are_refused_before_the_first_trial(
    ranges: dict[str, Any], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        api.search(settings(tiny_model, tmp_path, ranges=ranges), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "trial-01").exists()


def test_the_command(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows").mkdir()
    for seed, split in enumerate(("train", "test")):  # a data set with a test split of its own
        write_csv(tmp_path / "rows" / f"{split}.csv", make_rows(40, seed=seed))
    arguments = [f"model={tiny_model}", "search.num_trials=2", "search.ranges={training.learning_rate: [1e-3, 1e-4]}"]
    assert cli.run(["search", str(tmp_path / "rows"), *arguments, "--output", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "trial 2 of 2: learning_rate" in said.err
    assert "the best so far" in said.err and "test_accuracy" in said.out
    assert (
        cli.run(["search", str(tmp_path / "rows"), *arguments, "-o", str(tmp_path / "run"), "--resume", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found["trials"]) == 2 and found["best"] in (1, 2)
    assert "best" in said.out and f"fasttune evaluate {tmp_path / 'run'}" in said.out
