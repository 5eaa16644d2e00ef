"""Exports: the predictions of the weights, whoever shares a batch; refused if too far from them; used as a run is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from parity import FAMILIES, HEADS
from served import fitted, post
from tiny import make_questions, make_rows, make_sentences

import fasttune
from fasttune.cli.commands import run as run_command
from fasttune.data.batching.collate import Padding
from fasttune.errors import EnvironmentProblem, Problem, UsageError
from fasttune.evaluation.exported import FORMATS, ExportedModel
from fasttune.export import exporting, formats
from fasttune.export.verify import Answers, Difference, Speed
from fasttune.serving.app import make_app, service
from fasttune.serving.guard import LOOPBACK

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

PAIRS = [{**row, "text_pair": " ".join(reversed(row["text"].split()))} for row in make_rows(40, longest=8)]
TASKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[Any]]] = {
    "text": (make_rows(60), {}, [row["text"] for row in make_rows(20, seed=7)]),
    "pair": (PAIRS, {}, [(row["text"], row["text_pair"]) for row in PAIRS[:12]]),
    "question": (
        make_questions(40, unanswered=0.3),
        {"task": "question-answering", "preprocessing": {"doc_stride": 8}},
        [(row["question"], row["context"]) for row in make_questions(12, seed=3)],
    ),
    "sentence": (
        make_sentences(40),
        {"task": "token-classification"},
        [" ".join(row["tokens"]) for row in make_sentences(10)],
    ),
}
ANY_LOSS = 1_000.0  # models of four steps score anything


def export(run: Path, format: str | list[str], output: Path, **options: Any) -> exporting.Export:
    return fasttune.export_run(run, format, output=output, most_lost=ANY_LOSS, progress=False, **options)


def close(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two predictions are the same up to their numbers' last digits; candidates may change places."""
    if isinstance(one, float):
        return abs(one - other) <= tolerance
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return one == other


def without_candidates(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name != "n_best"} for one in predictions]


@pytest.fixture(scope="module", params=list(TASKS))
def trained(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    rows, recipe, inputs = TASKS[request.param]
    return request.param, fitted(tiny_model, tmp_path_factory.mktemp(request.param), rows, **recipe), inputs


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tiny_model, tmp_path_factory.mktemp("run"), make_rows(60))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """`run` as onnx and onnx-int8."""
    export(run, ["onnx", "onnx-int8"], run.parent / "exported")
    return run.parent / "exported"


@pytest.fixture
def made_before(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the files of `exported` instead of making them again, which takes seconds."""

    def copy(model: Any, format: Any, rows: Any, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(exported / format.file, path)

    monkeypatch.setattr(formats, "write", copy)


@pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_export_in_fp32_gives_the_predictions_of_the_weights(trained: Any, format: str, tmp_path: Path) -> None:
    _, run, inputs = trained
    found = export(run, format, tmp_path / "export")
    assert found.formats[0].difference.agreement == 1 and found.formats[0].difference.largest < 1e-5
    predicted = without_candidates(fasttune.load(tmp_path / "export").predict(inputs))
    assert close(predicted, without_candidates(fasttune.load(run).predict(inputs)), 1e-5)
    scores = fasttune.evaluate(tmp_path / "export", split="validation", progress=False)
    own = fasttune.evaluate(run, split="validation", progress=False)
    same = [name for name in own if "second" not in name and "runtime" not in name]
    assert {name: scores[name] for name in same} == pytest.approx({name: own[name] for name in same}, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx-int8", "openvino-int8"])
def test_int8_answers_do_not_depend_on_the_batch(trained: Any, format: str, tmp_path: Path) -> None:
    kind, run, inputs = trained
    export(run, format, tmp_path / "export")
    check_int8(kind, fasttune.load(run), fasttune.load(tmp_path / "export"), inputs)


def test_onnx_int8_answers_do_not_depend_on_the_batch(run: Path, exported: Path, tmp_path: Path) -> None:
    about = json.loads((exported / "export.json").read_text())
    shutil.copytree(exported, tmp_path / "export")
    (tmp_path / "export" / "export.json").write_text(json.dumps({**about, "format": "onnx-int8"}))
    check_int8("text", fasttune.load(run), fasttune.load(tmp_path / "export"), TASKS["text"][2])


def check_int8(kind: str, weights: fasttune.Predictor, export: fasttune.Predictor, inputs: list[Any]) -> None:
    assert export.precision == "int8"
    together = without_candidates(export.predict(inputs))
    alone = [{**export.predict([one])[0], "id": str(number)} for number, one in enumerate(inputs)]
    assert close(together, without_candidates(alone), 1e-5)
    if kind in ("text", "pair"):  # spans and tags of a model of four steps are all about as good
        assert close(together, without_candidates(weights.predict(inputs)), 0.05)


def test_several_formats_in_one_folder_answer_with_the_fastest(exported: Path) -> None:
    about = json.loads((exported / "export.json").read_text())
    speeds = {one["format"]: one["rows_per_second"] for one in about["formats"]}
    assert about["format"] == max(speeds, key=speeds.__getitem__) == fasttune.load(exported).setup.model.format.name
    # What transformers.js and text-embeddings-inference look for: one file each, without weights beside it.
    assert {path.name for path in (exported / "onnx").iterdir()} == {"model.onnx", "model_quantized.onnx"}
    names = {path.name for path in exported.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert "model.safetensors" not in names


def of_speed(rows_per_second: dict[str, float]) -> Any:
    """A stand-in for the clock: by the name of the format, "" for the weights."""

    def speed(self: Any, setup: Any) -> Speed:
        format = setup.model.format.name if isinstance(setup.model, ExportedModel) else ""
        return Speed(rows_per_second[format], 1.0)

    return speed


def test_fastest_keeps_one_format_or_nothing(
    run: Path, made_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "FORMATS", {name: FORMATS[name] for name in ("onnx", "onnx-int8")})
    monkeypatch.setattr(exporting.ComparedRows, "speed", of_speed({"": 100.0, "onnx": 200.0, "onnx-int8": 300.0}))
    found = export(run, "fastest", tmp_path / "kept")
    assert found.folder == tmp_path / "kept" and found.fastest == "onnx-int8"
    assert [path.name for path in (tmp_path / "kept" / "onnx").iterdir()] == ["model_quantized.onnx"]
    monkeypatch.setattr(exporting.ComparedRows, "speed", of_speed({"": 100.0, "onnx": 50.0, "onnx-int8": 90.0}))
    found = export(run, "fastest", tmp_path / "nothing")
    assert found.folder is None and not (tmp_path / "nothing").exists()
    assert found.fastest in ("fp32", "bf16") and "does not pay" in found.verdict[0]


def test_a_format_that_differs_too_much_is_refused(
    run: Path, made_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exporting._exported
    found = Difference(agreement=0.5, largest=0.4, points=2.5)
    monkeypatch.setattr(exporting, "_exported", lambda *given: replace(made(*given), score=0.0, difference=found))
    with pytest.raises(EnvironmentProblem, match=r"2\.5 points, and 1 are allowed"):
        fasttune.export_run(run, "onnx-int8", output=tmp_path / "export", progress=False)
    assert not list(tmp_path.iterdir())  # nothing staged is left either
    # In fp32 a difference of more than rounding is a broken graph, whatever the score.
    found = Difference(agreement=1.0, largest=0.01, points=0.0)
    with pytest.raises(EnvironmentProblem, match=r"a number differs by 0\.01"):
        export(run, "onnx", tmp_path / "export")


def test_a_score_that_falls_is_measured_in_points(run: Path) -> None:
    predictor = fasttune.load(run)
    rows = exporting.ComparedRows(predictor, exporting.read_own_split(predictor, None))
    answers = rows.answers(predictor.setup, predictor.task)
    other = [dict(one) for one in answers.predictions]
    other[0] = {**other[0], "label": "another", "probabilities": dict.fromkeys(other[0]["probabilities"], 0.5)}
    worse = Answers(other, answers.score - 0.02)
    found = rows.difference(answers, worse)
    assert found.points == pytest.approx(2)
    assert found.agreement == 1 - 1 / len(other)
    assert found.largest == pytest.approx(max(abs(p - 0.5) for p in answers.predictions[0]["probabilities"].values()))
    assert rows.difference(replace(answers, score=0.904), replace(worse, score=0.894)).points == 1  # and is allowed
    rows.metric = "rmse"
    assert rows.difference(answers, Answers(other, answers.score * 1.1)).points == pytest.approx(10)


def test_the_server_takes_an_export_for_a_run(run: Path, exported: Path) -> None:
    texts = [row["text"] for row in make_rows(5, seed=9)]
    one = service("reviews", exported, True, lambda line: None)
    assert one.examples
    guard = make_app([one], LOOPBACK, None, lambda line: None)
    answer = post(guard, json={"inputs": texts})
    assert close(
        [{**found, "id": ""} for found in answer.json()["predictions"]],
        [{**found, "id": ""} for found in fasttune.load(run).predict(texts)],
        1e-2,
    )
    assert post(guard, "/words", json={"inputs": texts[:1]}).status_code == 422  # an export has no gradient
    one.batcher.close()


def test_commands_that_need_weights_say_so(exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(exported, tmp_path / "export")
    for command in ("report", "reproduce", "export"):
        assert run_command([command, str(tmp_path / "export")]) == UsageError.exit_code
        assert f"an export has no weights\n  hint: fasttune {command} RUN" in capfd.readouterr().err
    path = tmp_path / "export" / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert run_command(["predict", str(tmp_path / "export"), "good"]) == EnvironmentProblem.exit_code
    assert "onnx/model.onnx has changed or is damaged" in capfd.readouterr().err


def test_wrong_input(run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'tflite', expected one of onnx, onnx-int8, openvino, openvino-int8, fastest"):
        export(run, "tflite", tmp_path / "export")
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="it is already there"):
        export(run, "onnx", tmp_path / "there")
    monkeypatch.setattr("fasttune.evaluation.exported._is_there", lambda package: package != "nncf")
    with pytest.raises(EnvironmentProblem, match="nncf is not installed\n  hint: pip install openvino nncf"):
        export(run, "openvino-int8", tmp_path / "export")
    with pytest.raises(EnvironmentProblem, match=r"training\.device=cuda, but an export runs on the CPU"):
        fasttune.load(exported, device="cuda")


def test_the_command_prints_a_table_and_json(
    run: Path, made_before: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert run_command(["export", str(tmp_path / "run"), "--most-lost", "1000", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert not err
    assert "agreement" in out and "100.0%" in out and f"fasttune serve {tmp_path / 'run-onnx'}" in out
    command = ["export", str(tmp_path / "run"), "--format", "onnx", "-o", str(tmp_path / "b"), "--quiet", "--json"]
    assert run_command(command) == 0
    about = json.loads(capfd.readouterr().out)
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/json-schema.json").read_text())
    jsonschema.validate(about, {**schema, "$ref": "#/$defs/export"})
    assert about["formats"][0]["format"] == "onnx" and about["weights"]["speed"]["fp32"]["rows_per_second"] > 0


def test_openvino_reports_to_nobody(run: Path, tmp_path: Path) -> None:
    """OpenVINO and nncf count their uses by default: neither a packet nor a file in the home folder may be left."""
    code = f"""
import socket, sys
def refuse(*arguments, **options): raise AssertionError("a connection")
import fasttune
from fasttune import api
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
api.export_run({str(run)!r}, "openvino-int8", output={str(tmp_path / "export")!r}, most_lost=1000, progress=False)
fasttune.load({str(tmp_path / "export")!r}).predict(["good food"])
assert not hasattr(sys.modules.get("openvino_telemetry"), "Telemetry")
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(home), "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in home.rglob("*") if "intel" in str(path).lower()]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_every_family_exports(family: str, head: str, tmp_path: Path) -> None:
    import torch
    from parity import make_batch

    config = FAMILIES[family]
    torch.manual_seed(0)
    model = HEADS[head].from_config(type(config).from_dict(config.to_dict())).eval()
    pad = model.config.pad_token_id or 0
    traced, other = make_batch(pad, [7, 5]), make_batch(pad, [1, 12, 9, 3])
    for format in (FORMATS["onnx"], FORMATS["openvino"]):
        path = tmp_path / format.file
        formats.write(model, format, [traced], path)
        found = ExportedModel(path, format, Padding(pad, most=64))(**other)
        with torch.no_grad():
            expected = model(**other)
        mask = other["attention_mask"].bool().numpy()
        for name, values in found.items():
            own = expected[name].numpy()
            is_per_token = own.shape[:2] == mask.shape
            both = (values.numpy()[mask], own[mask]) if is_per_token else (values.numpy(), own)
            np.testing.assert_allclose(*both, atol=2e-5)


def test_one_format_that_fails_leaves_the_others(
    run: Path, made_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = formats.write

    def fails(model: Any, format: Any, rows: Any, path: Path) -> None:
        if format.name == "onnx":
            raise EnvironmentProblem(Problem(where="export to onnx", found="it is too large", code="E551"))
        write(model, format, rows, path)

    monkeypatch.setattr(formats, "write", fails)
    found = export(run, ["onnx", "onnx-int8"], tmp_path / "export")
    assert found.refused == {"onnx": "it is too large"} and [one.format for one in found.formats] == ["onnx-int8"]
    assert [path.name for path in (tmp_path / "export" / "onnx").iterdir()] == ["model_quantized.onnx"]


def test_an_export_of_a_run_on_a_gpu_runs_on_a_cpu(run: Path, made_before: None, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("device: auto", "device: cuda"))
    export(tmp_path / "run", "onnx", tmp_path / "export")
    assert fasttune.load(tmp_path / "export").predict(["good food"])


def test_predicted_numbers_have_no_agreement_and_are_judged_by_their_error(
    tiny_model: Path, made_before: None, tmp_path: Path
) -> None:
    rows = [{"text": row["text"], "label": 1000.0 + number} for number, row in enumerate(make_rows(40))]
    run = fitted(tiny_model, tmp_path, rows, problem="regression")
    predictor = fasttune.load(run)
    compared = exporting.ComparedRows(predictor, exporting.read_own_split(predictor, None))
    answers = compared.answers(predictor.setup, predictor.task)
    shifted = [{**one, "score": one["score"] + 0.5} for one in answers.predictions]
    found = compared.difference(answers, Answers(shifted, answers.score * 1.2))
    assert compared.metric == "rmse" and found.agreement is None
    assert found.points == pytest.approx(20) and found.largest <= 0.5
