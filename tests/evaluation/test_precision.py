"""A run answers in a precision that is fast on the machine it is opened on, unless its user chose one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from served import fitted
from tiny import make_rows, save_tiny_model

import fasttune
from fasttune.evaluation import precision
from fasttune.evaluation.predictor import Predictor
from fasttune.runs.folder import RunFolder
from fasttune.training.precision import Choice

TEXTS = [row["text"] for row in make_rows(6, seed=2)]


def trained(tiny_model: Path, folder: Path, own: str, reason: str) -> Path:
    """A run as if another machine had chosen this precision."""
    folder.mkdir()
    run = fitted(tiny_model, folder, make_rows(40))
    environment = json.loads((run / "environment.json").read_text())
    environment["precision"] = {"value": own, "reason": reason}
    (run / "environment.json").write_text(json.dumps(environment))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("precision: fp32", f"precision: {own}"))
    return run


@pytest.mark.parametrize("own", ["bf16", "fp16"])
def test_a_run_of_a_faster_machine_answers_in_fp32(
    own: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tiny_model, tmp_path / "run", own, "NVIDIA T4 has it")
    monkeypatch.setattr(precision, "fast_precision", lambda device: Choice("fp32", "this CPU has no bf16 instructions"))
    lines: list[str] = []
    predictor = Predictor.open(run, log=lines.append)
    assert predictor.precision == "fp32" and lines == ["precision fp32: this CPU has no bf16 instructions"]
    assert predictor.predict(TEXTS) == fasttune.load(run, precision="fp32").predict(TEXTS)


def test_what_the_user_asked_for_stays(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tiny_model, tmp_path / "run", "bf16", precision.REQUESTED)
    monkeypatch.setattr(precision, "fast_precision", lambda device: Choice("fp32", "slow"))
    assert Predictor.open(run, fastest=True).precision == "bf16"
    run = trained(tiny_model, tmp_path / "other", "fp32", "a reason")
    assert Predictor.open(run, {"training": {"precision": "bf16"}}, fastest=True).precision == "bf16"


def test_a_server_measures_once_and_remembers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "fast_precision", lambda device: Choice("bf16", "this CPU has AVX512_BF16"))
    seconds, asked = {"fp32": 1.0, "bf16": 2.0}, []

    def timed(folder: object, recipe: object, task: object, name: str) -> float:
        asked.append(name)
        return seconds[name]

    monkeypatch.setattr(precision, "_time", timed)
    run = trained(tiny_model, tmp_path / "run", "bf16", "this CPU has AVX512_BF16")
    assert Predictor.open(run).precision == "bf16" and not asked  # predict and evaluate keep the run's
    lines: list[str] = []
    assert Predictor.open(run, log=lines.append, fastest=True).precision == "fp32"
    assert asked == ["fp32", "bf16"]
    assert lines == ["precision fp32: measured on this CPU: 2.0x as fast as bf16"]
    assert Predictor.open(run, fastest=True).precision == "fp32" and len(asked) == 2
    (kept,) = (tmp_path / "cache" / "fasttune" / "precision").iterdir()
    kept.write_text("{")  # damaged
    seconds["bf16"] = 0.95  # as good as the same
    assert Predictor.open(run, fastest=True).precision == "bf16" and len(asked) == 4


def test_both_precisions_are_timed(tiny_model: Path, tmp_path: Path) -> None:
    run = fitted(tiny_model, tmp_path, make_rows(40))
    predictor = fasttune.load(run)
    for name in ("fp32", "bf16"):
        assert 0 < precision._time(predictor.folder, predictor.recipe, predictor.task, name) < 60


def test_models_of_other_sizes_are_timed_for_themselves(tmp_path: Path) -> None:
    keys = set()
    for number, sizes in enumerate(({}, {"num_hidden_layers": 3}, {"hidden_size": 64}, {"pad_token_id": 1})):
        folder = save_tiny_model(tmp_path / str(number), **sizes)
        keys.add(precision._key(RunFolder(folder)))
    assert len(keys) == 3  # where padding has another number, the speed is the same
