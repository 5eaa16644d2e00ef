"""Every command takes --json, and prints what docs/reference/json-schema.json says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from served import fitted, free_port
from tiny import make_rows, write_csv

from fasttune.cli import commands as cli
from fasttune.cli.commands import app

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "docs/reference/json-schema.json").read_text())
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LINES = ("predict", "show", "doctor", "serve")  # one object per line
SETTINGS = ["training.max_steps=2", "training.precision=fp32", "output.report=false", "evaluation.baselines=false"]


def valid(name: str, printed: str) -> Any:
    found = [json.loads(line) for line in printed.splitlines()] if name in LINES else [json.loads(printed)]
    for one in found:
        jsonschema.validate(one, {**SCHEMA, "$ref": f"#/$defs/{name}"})
    return found if name in LINES else found[0]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = {"evaluation": {"baselines": False}, "training": {"max_steps": 2, "precision": "fp32"}}
    return fitted(tiny_model, tmp_path_factory.mktemp("run"), make_rows(60), **recipe)


def test_every_command_has_the_option_and_a_schema() -> None:
    assert set(COMMANDS) == set(SCHEMA["$defs"]) - {"error", "prediction"}
    for name, command in COMMANDS.items():
        assert any("--json" in parameter.opts for parameter in command.params), name


def commands(run: Path, folder: Path, model: Path) -> dict[str, list[list[object]]]:
    rows = write_csv(folder / "rows.csv", make_rows(60))
    (folder / "places.yaml").write_text(f"dataset: places\nfiles: {{train: {rows}}}\n")
    shutil.copytree(run, folder / "other")
    data = [rows, f"model={model}", *SETTINGS]
    return {
        "train": [["train", *data, "-o", folder / "trained", "--quiet"]],
        "check": [["check", *data, "--quiet"]],
        "lr-range": [["lr-range", *data, "--quiet"]],
        "evaluate": [["evaluate", run]],
        "compare": [["compare", run, folder / "other"]],
        "labels": [["labels", folder / "other", "--folds", 2, "--quiet"]],
        "predict": [
            ["predict", run, "good food"],
            ["predict", run, "--data", rows],
            ["predict", run, "--data", rows, "--output", folder / "predictions.csv"],
        ],
        "show": [["show", rows]],
        "build": [["build", folder / "places.yaml", "-o", folder / "places"]],
        "reproduce": [["reproduce", run, "-o", folder / "again"]],
        "search": [["search", *data, "search.num_trials=1", "-o", folder / "search", "--quiet"]],
        "doctor": [["doctor"]],
        "models": [["models", "--language", "zh"]],
        "recipes": [["recipes"], ["recipes", "quickstart"]],
        "init": [["init", rows]],
        "env": [["env"]],
    }


NAMES = (
    *("train", "check", "lr-range", "evaluate", "compare", "labels", "predict", "show", "build", "models", "recipes"),
    *("env", "reproduce", "search", "doctor", "init"),
)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_command_prints_is_as_documented(
    name: str, run: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in commands(run, tmp_path, tiny_model)[name]:
        assert cli.run([*map(str, words), "--json"]) == 0, capfd.readouterr().err
        valid(name, capfd.readouterr().out)


@pytest.mark.report
def test_a_report(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", str(run), "--json", "--quiet"]) == 0
    assert Path(valid("report", capfd.readouterr().out)["report"]).exists()


def test_errors_are_json_too(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("a,b\nx,y\nz,w\n")
    for words, code in (
        (["evaluate", str(tmp_path)], 5),
        (["train", str(tmp_path / "rows.csv")], 4),
        (["train", str(tmp_path / "rows.csv"), "training.learning_rat=1"], 3),
    ):
        assert cli.run([*words, "--json"]) == code
        out, err = capfd.readouterr()
        error = valid("error", out)["error"]
        assert error["exit_code"] == code and error["problems"][0]["found"] and err.startswith("error: ")


def test_a_server_names_its_address(run: Path) -> None:
    port = str(free_port())
    command = [sys.executable, "-m", "fasttune", "serve", str(run), "--port", port, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        (found,) = valid("serve", process.stdout.readline())
        process.kill()
    assert found == {"address": f"http://localhost:{port}", "runs": {"run": str(run)}}


def test_a_file_that_cannot_be_read_is_an_error_in_json(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "checksums.json").unlink()
    assert cli.run(["evaluate", str(tmp_path / "run"), "--json"]) == 5
    (problem,) = valid("error", capfd.readouterr().out)["error"]["problems"]
    assert problem["code"] and problem["found"]
