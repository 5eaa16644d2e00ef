"""`fasttune lr-range`: the loss while the learning rate rises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv

from fasttune import api, cli
from fasttune.errors import RecipeError
from fasttune.training.lr_range import _found


def settings(model: Path, folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": str(write_csv(folder / "rows.csv", make_rows(80)))},
        "training": {"precision": "fp32", **training},
    }


def test_the_loss_falls_where_it_says_and_rises_beyond(tiny_model: Path, tmp_path: Path) -> None:
    found = api.lr_range(settings(tiny_model, tmp_path), output=tmp_path / "lr", progress=False)
    assert found.rates[0] == pytest.approx(1e-6) and found.rates == sorted(found.rates)
    assert found.suggestion is not None and 1e-5 < found.suggestion < found.lowest_loss_at
    assert found.losses[found.rates.index(found.lowest_loss_at)] == min(found.losses)
    assert {path.name for path in found.files} == {"lr_range.json", "lr_range.svg", "lr_range.png"}
    assert json.loads((tmp_path / "lr" / "lr_range.json").read_text())["suggestion"] == found.suggestion


def test_it_is_the_same_every_time(tiny_model: Path, tmp_path: Path) -> None:
    first, second = (api.lr_range(settings(tiny_model, tmp_path), progress=False) for _ in range(2))
    assert first == second


def test_frozen_layers_take_part(tiny_model: Path, tmp_path: Path) -> None:
    frozen = api.lr_range(settings(tiny_model, tmp_path, freeze_layers=1), progress=False)
    assert frozen.losses != api.lr_range(settings(tiny_model, tmp_path), progress=False).losses


def test_the_suggestion_is_the_steepest_descent() -> None:
    rates = [10.0**power for power in range(-6, 0)]
    found = _found(rates, [1.0, 0.99, 0.7, 0.65, 0.64, 0.9])
    assert (found.suggestion, found.lowest_loss_at, found.diverged_at) == (1e-4, 1e-2, 1e-1)
    assert _found(rates, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]).suggestion is None


def test_a_stream_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    recipe = settings(tiny_model, tmp_path)
    recipe["data"] |= {"streaming": True, "validation": recipe["data"]["train"]}
    with pytest.raises(RecipeError, match="needs the rows in memory"):
        api.lr_range(recipe, progress=False)


def test_the_command(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_csv(tmp_path / "rows.csv", make_rows(80))
    assert cli.run(["lr-range", str(rows), f"model={tiny_model}"]) == 0
    said = capsys.readouterr().out
    assert "it falls fastest at" in said and "training.learning_rate=" in said
