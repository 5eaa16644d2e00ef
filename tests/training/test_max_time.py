"""`training.max_time`: the run has as many steps as end in time, and is otherwise the run without it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv

import fasttune
from fasttune import api
from fasttune import recipe as recipes
from fasttune.errors import RecipeError
from fasttune.recipe.types import seconds_of
from fasttune.training import preflight, time_budget
from fasttune.training.events import Event, StepDone
from fasttune.training.forecast import Forecast
from fasttune.training.run import TrainingRun

NO_REPORT = ["output.report=false"]
STEPS_PER_EPOCH, EPOCHS = 9, 3  # 72 rows in batches of 8


def settings(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    path = folder / "rows.csv"
    return {
        "model": str(model),
        "data": {"train": str(path if path.exists() else write_csv(path, make_rows(80)))},
        "training": {"preset": "tutorial", "learning_rate": 1e-3, "precision": "fp32", "device": "cpu", **training},
        "tracking": {"report_to": "none"},
    }


def weights(run: fasttune.Run) -> bytes:
    return (run.folder / "model.safetensors").read_bytes()


def slow(seconds_per_step: float, seconds_per_evaluation: float = 0.0):
    """A machine on which every step takes as long, in place of this one."""

    def measure(run: TrainingRun, num_rows: dict[str, int]) -> Forecast:
        tokens = run.stores["train"].num_tokens / STEPS_PER_EPOCH
        figures = {"tokens_per_step": tokens, "tokens_per_second": tokens / seconds_per_step, "save_seconds": 0.0}
        return Forecast(
            0.0, 0, STEPS_PER_EPOCH * EPOCHS, STEPS_PER_EPOCH, {**figures, "evaluation_seconds": seconds_per_evaluation}
        )

    return measure


@dataclass
class Clock:
    """The time of a machine that needs as many seconds per step as `pace` says, in place of this one's."""

    pace: Callable[[int], float] = lambda step: 60.0
    now: float = field(default_factory=time.perf_counter)

    def __call__(self) -> float:
        return self.now

    def watch(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.now += self.pace(event.step)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_budget, "perf_counter", clock)
    monkeypatch.setattr(time_budget, "FEWEST_STEPS", 2)
    monkeypatch.setattr(time_budget, "measure", slow(60.0))
    return clock


def lines_of(run: fasttune.Run, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run.folder / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(("pace", "num_steps"), [(90.0, 15), (40.0, 27)], ids=["slower", "faster"])
def test_a_machine_that_changes_its_speed_still_ends_in_time(
    tiny_model: Path, tmp_path: Path, clock: Clock, pace: float, num_steps: int
) -> None:
    """Planned with 60 seconds a step: 22 steps. From the fifth step on, each takes `pace`."""
    clock.pace = lambda step: 60.0 if step < 5 else pace
    begin, recipe = clock.now, settings(tiny_model, tmp_path, max_time="23m")
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[clock.watch], overrides=NO_REPORT)
    assert recipes.load(run.folder / "recipe.yaml").training.max_steps == 22
    steps = lines_of(run, "step")
    assert abs(len(steps) - num_steps) <= 1 and clock.now - begin <= 23 * 60
    assert lines_of(run, "replanned")[-1]["num_steps"] == len(steps)
    rates = [step["learning_rate"] for step in steps]
    assert rates == sorted(rates, reverse=True) and rates[0] == 1e-3
    assert rates[-1] == pytest.approx(rates[-2] / 2)  # the decay ends with the last step, as without a new plan
    assert f"at last to {len(steps)}" in (run.folder / "README.md").read_text()


def test_a_new_plan_survives_a_resume_and_a_reproduction(tiny_model: Path, tmp_path: Path, clock: Clock) -> None:
    clock.pace = lambda step: 60.0 if step < 5 else 100.0
    recipe = settings(tiny_model, tmp_path, max_time="23m")
    options: dict[str, Any] = {"progress": False, "overrides": NO_REPORT}
    whole = fasttune.fit(recipe, output=tmp_path / "whole", observers=[clock.watch], **options)
    plans = [(line["step"], line["num_steps"]) for line in lines_of(whole, "replanned")]
    assert plans

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == plans[-1][0] + 1:
            signal.raise_signal(signal.SIGINT)

    clock.now = time.perf_counter()
    stopped = fasttune.fit(recipe, output=tmp_path / "run", observers=[clock.watch, stop], **options)
    assert not stopped.is_complete
    resumed = fasttune.fit(recipe, output=tmp_path / "run", resume=True, **options)
    assert weights(resumed) == weights(whole)

    again = api.reproduce(whole.folder, output=tmp_path / "again", progress=False)
    assert again.has_equal_weights


@pytest.fixture
def fixed_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first plan alone, on a machine whose speed is only said to be another."""
    monkeypatch.setattr(time_budget.Pace, "replan", lambda self, state: None)


def test_with_enough_time_it_is_the_run_without_a_limit(tiny_model: Path, tmp_path: Path) -> None:
    """Byte for byte, though steps were timed before: they are undone."""
    free = fasttune.fit(settings(tiny_model, tmp_path), output=tmp_path / "free", progress=False)
    limited = fasttune.fit(settings(tiny_model, tmp_path, max_time="10h"), output=tmp_path / "run", progress=False)
    assert weights(limited) == weights(free)
    saved = recipes.load(limited.folder / "recipe.yaml").training
    assert (saved.max_time, saved.max_steps) == (None, -1)
    choice = json.loads((limited.folder / "environment.json").read_text())["max_time"]
    assert choice["value"] == "10h" and choice["reason"].startswith("all 27 steps fit, in about ")


def test_check_says_what_would_fit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "measure", slow(60.0))
    fasttune.check(settings(tiny_model, tmp_path, max_time="10m"))
    assert "training.max_time 10m: 9 of 27 steps fit: 1.00 of 3.00 epochs" in capsys.readouterr().err


def test_frozen_layers_are_undone_too(tiny_model: Path, tmp_path: Path) -> None:
    frozen = {"freeze_layers": 1}
    free = fasttune.fit(settings(tiny_model, tmp_path, **frozen), output=tmp_path / "free", progress=False)
    recipe = settings(tiny_model, tmp_path, max_time="10h", **frozen)
    assert weights(fasttune.fit(recipe, output=tmp_path / "run", progress=False)) == weights(free)


@pytest.mark.usefixtures("fixed_plan")
def test_only_steps_that_end_in_time_are_made_and_the_rate_decays_within_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time_budget, "measure", slow(60.0, 600.0))
    # 0.98 of 45 minutes, minus a second and half an evaluation at the end, leave 39 minutes; an evaluation per epoch.
    run = fasttune.fit(settings(tiny_model, tmp_path, max_time="45m"), output=tmp_path / "run", overrides=NO_REPORT)
    num_steps = 18  # 18 steps and two evaluations are 38 minutes; a 19th step would need a third evaluation
    assert recipes.load(run.folder / "recipe.yaml").training.max_steps == num_steps
    line = f"training.max_time 45m: {num_steps} of 27 steps fit: 2.00 of 3.00 epochs"
    assert line in capsys.readouterr().err
    steps = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    rates = [step["learning_rate"] for step in steps if step["event"] == "step"]
    assert rates == pytest.approx([1e-3 * (1 - step / num_steps) for step in range(num_steps)])


def test_too_little_time_is_refused_with_what_is_needed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_budget, "measure", slow(60.0))
    with pytest.raises(RecipeError) as caught:
        fasttune.fit(settings(tiny_model, tmp_path, max_time="9m"), output=tmp_path / "run", progress=False)
    (problem,) = caught.value.problems
    assert problem.code == "E415" and "8 steps of 27 would fit" in problem.found
    assert problem.hint.startswith("training.max_time=11m, ")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("fixed_plan")
def test_a_resume_needs_no_new_plan(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = settings(tiny_model, tmp_path, max_time="20m")
    monkeypatch.setattr(time_budget, "measure", slow(60.0))
    whole = fasttune.fit(recipe, output=tmp_path / "whole", progress=False)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            signal.raise_signal(signal.SIGINT)

    assert not fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[stop]).is_complete
    monkeypatch.setattr(time_budget, "measure", None)
    with pytest.raises(RecipeError, match="E530"):
        other = settings(tiny_model, tmp_path, max_time="30m")
        fasttune.fit(other, output=tmp_path / "run", resume=True, progress=False)
    assert weights(fasttune.fit(recipe, output=tmp_path / "run", resume=True, progress=False)) == weights(whole)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("2h", 7200), ("1h30m", 5400), ("1h0m5s", 3605), ("", 0), ("20", 0), ("5m1h", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
    if seconds:
        assert recipes.load({"data": {"train": "x"}, "training": {"max_time": text}}).training.max_time == text
    else:
        with pytest.raises(RecipeError, match="a duration such as 90s, 20m or 1h30m"):
            recipes.load({"data": {"train": "x"}, "training": {"max_time": text}})


def test_a_bare_number_is_no_duration() -> None:
    with pytest.raises(RecipeError, match="a duration such as 90s, 20m or 1h30m"):
        recipes.load({"data": {"train": "x"}}, ["training.max_time=20"])


@pytest.mark.usefixtures("fixed_plan")
def test_the_report_has_its_share_of_the_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_budget, "measure", slow(1.0, 0.6))
    steps = {}
    for name, overrides in (("with", []), ("without", NO_REPORT)):
        recipe = settings(tiny_model, tmp_path, max_time="29s")
        run = fasttune.fit(recipe, output=tmp_path / name, progress=False, overrides=overrides)
        steps[name] = recipes.load(run.folder / "recipe.yaml").training.max_steps
    assert 0 < steps["with"] < steps["without"]
