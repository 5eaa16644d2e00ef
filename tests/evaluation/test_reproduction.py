"""`reproduce`: the same weights from the same data, and a refusal if the data have changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import make_rows, write_csv
from typer.testing import CliRunner

import fasttune
from fasttune import api
from fasttune.cli.commands import app
from fasttune.errors import DataError


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("reproduce")
    write_csv(folder / "rows.csv", make_rows(60))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(folder / "rows.csv"), "test_fraction": 0.2},
        "training": {"num_train_epochs": 1},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False)


def test_bit_for_bit(run: fasttune.Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", str(run.folder), "--output", str(tmp_path / "again"), "--json"])
    found = json.loads(result.stdout)
    assert found["has_equal_weights"] and found["environment"] == []
    assert found["sentence"] == f"{tmp_path / 'again'} has bit for bit the weights of {run.folder}."
    assert found["scores"]["test_loss"]["before"] == found["scores"]["test_loss"]["now"] == run.metrics["test_loss"]


def test_another_environment_is_told(run: fasttune.Run, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run.folder, other)
    (other / "recipe.yaml").write_text((other / "recipe.yaml").read_text().replace("seed: 42", "seed: 43"))
    environment = json.loads((other / "environment.json").read_text())
    environment["versions"]["torch"] = "1.0"
    (other / "environment.json").write_text(json.dumps(environment))
    found = api.reproduce(other, output=tmp_path / "again", progress=False)
    assert not found.has_equal_weights
    assert "differs from" in found.sentence and "before. What differs: torch " in found.sentence


def test_changed_data_are_refused(run: fasttune.Run, tmp_path: Path) -> None:
    rows = run.folder.parent / "rows.csv"
    content = rows.read_text()
    try:
        rows.write_text(content.replace("good", "great"))
        with pytest.raises(DataError, match="changed since the run"):
            api.reproduce(run.folder, output=tmp_path / "again", progress=False)
    finally:
        rows.write_text(content)
    assert not (tmp_path / "again").exists()
