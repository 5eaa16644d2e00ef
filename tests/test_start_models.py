"""`fasttune models`, and the advice against sentence embedders for two texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv

import fasttune
from fasttune import cli
from fasttune.start_models import rows_per_second, start_models


def test_the_table_is_sound() -> None:
    models = start_models()
    assert len({model.model for model in models}) == len(models) > 20
    for model in models:
        assert model.model == "embedded" or model.model.count("/") == 1
        assert model.licence in ("apache-2.0", "mit")
        for score in model.scores:
            assert 0 < score.value < 100 and score.source.startswith("https://"), model.model


def test_the_operations_are_those_of_the_model() -> None:
    """Six for each weight in the layers of the embedded model: 6 x (4 x 384^2 + 2 x 384 x 1536) weights."""
    embedded = next(model for model in start_models() if model.model == "embedded")
    assert embedded.flops_per_token == 6 * 10_616_832


def test_languages() -> None:
    chinese = {model.languages for model in start_models("zh")}
    assert chinese == {"zh", "many"}
    assert all(model.languages == "many" for model in start_models("xx"))


def test_larger_models_are_slower() -> None:
    by_name = {model.model: model for model in start_models()}
    small, large = by_name["embedded"], by_name["microsoft/deberta-v3-large"]
    fast, slow = rows_per_second([small, large])
    assert fast > 20 * slow > 0


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "--language", "de"]) == 0
    said = capsys.readouterr().out
    assert "deepset/gbert-base" in said and "bert-base-chinese" not in said and "estimated" in said
    assert cli.run(["models", "--json"]) == 0
    entries: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert all(entry["rows_per_second"] > 0 for entry in entries)
    assert entries[1]["scores"][0]["source"].startswith("https://")


@pytest.mark.parametrize(("is_embedder", "is_pair"), [(True, True), (True, False), (False, True)])
def test_an_embedder_for_pairs_is_a_warning(
    is_embedder: bool, is_pair: bool, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    if is_embedder:
        (model / "1_Pooling").mkdir()
        (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    rows = [{**row, **({"text_pair": row["text"]} if is_pair else {})} for row in make_rows(40)]
    recipe = {"model": str(model), "data": {"train": str(write_csv(tmp_path / "rows.csv", rows))}}
    fasttune.check(recipe)
    assert ("is a sentence embedder; for two texts" in capsys.readouterr().err) == (is_embedder and is_pair)
