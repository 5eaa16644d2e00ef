"""A run goes to the hub without its rows, and comes back as the same model for fasttune and for other libraries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from loopback_hub import Hub, faults_of_card, serve
from served import fitted
from tiny import make_questions, make_rows, make_sentences

import fasttune
from fasttune.cli.commands import run as run_command
from fasttune.errors import EnvironmentProblem, UsageError
from fasttune.runs import hub as runs_on_hub

# huggingface_hub sends large files in a way that httpx is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")
TEXTS = [row["text"] for row in make_rows(12, seed=5)]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The libraries read these settings once, when they are imported."""
    with serve(tmp_path / "hub") as found:
        pages = f"{found.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in (("ENDPOINT", found.address), ("HUGGINGFACE_CO_URL_TEMPLATE", pages)):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        runs_on_hub.downloaded.cache_clear()
        yield found


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tiny_model, tmp_path_factory.mktemp("run"), make_rows(80))


def files_on(hub: Hub, name: str) -> dict[str, bytes]:
    folder = hub.folder / name
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_pushed_run_is_loaded_by_its_name(hub: Hub, run: Path, tmp_path: Path) -> None:
    assert fasttune.push(run, "ann/reviews") == f"{hub.address}/ann/reviews"
    assert hub.created[0]["visibility"] == "private"
    assert set(hub.authorizations) == {"Bearer hf_secret"}
    files = files_on(hub, "ann/reviews")
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(files) == {*model, "README.md", "recipe.yaml", "checksums.json"}
    texts = b"\n".join(content for name, content in files.items() if not name.endswith(".safetensors"))
    rows = [row["text"].encode() for row in make_rows(80) if len(row["text"]) > 20]
    assert not any(row in texts for row in rows)
    assert b"hf_secret" not in texts and str(run.parent).encode() not in texts
    card = files["README.md"].decode()
    assert not list(faults_of_card(card))
    assert 'model="ann/reviews"' in card and "fasttune predict ann/reviews" in card and "FOLDER" not in card

    predictor = fasttune.load("ann/reviews")
    assert predictor.folder.path.is_relative_to(tmp_path / "cache")
    assert predictor.predict(TEXTS) == fasttune.load(run).predict(TEXTS)
    with pytest.raises(UsageError, match="the hub, which does not have its rows\n  hint: --data FILE"):
        fasttune.evaluate("ann/reviews", progress=False)
    rows_of_run = run.parent / "rows.jsonl"
    scores = fasttune.evaluate("ann/reviews", data=str(rows_of_run), progress=False)
    assert scores["eval_accuracy"] == fasttune.evaluate(run, data=str(rows_of_run), progress=False)["eval_accuracy"]
    with pytest.raises(UsageError, match="it came from the hub, without the results of its training"):
        fasttune.write_report("ann/reviews")


def test_the_command_pushes_and_predicts_by_name(hub: Hub, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["push", str(run), "ann/reviews", "--public"]) == 0
    assert capfd.readouterr().out == f"{hub.address}/ann/reviews\n"
    assert hub.created[0]["visibility"] == "public"
    assert run_command(["predict", "ann/reviews", "good food", "--json"]) == 0
    named = capfd.readouterr().out
    assert run_command(["predict", str(run), "good food", "--json"]) == 0
    assert named == capfd.readouterr().out
    assert run_command(["predict", "ann/nothing", "good"]) == EnvironmentProblem.exit_code
    assert "E519 hub model ann/nothing: cannot download" in capfd.readouterr().err
    (hub.folder / "bob" / "other").mkdir(parents=True)
    (hub.folder / "bob" / "other" / "config.json").write_text("{}")
    assert run_command(["predict", "bob/other", "good"]) == EnvironmentProblem.exit_code
    assert "fasttune did not upload it\n  hint: train from it: model=bob/other" in capfd.readouterr().err


def test_a_path_is_never_taken_for_a_name(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for path in ("runs/typo", "mine/typo", "./typo", "typo"):
        with pytest.raises(EnvironmentProblem, match="no such folder"):
            fasttune.load(path)
    assert not hub.requests


def test_what_cannot_be_pushed_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem, match="E511 hub model ann/reviews: cannot upload"):
        fasttune.push(run, "ann/reviews")
    with pytest.raises(EnvironmentProblem, match="E511"):
        fasttune.push(run, "no name at all")
    with pytest.raises(UsageError, match=r"no report\.html"):
        fasttune.push(run, "ann/reviews", with_report=True)
    with pytest.raises(UsageError, match="it is not an export"):
        fasttune.push(run, "ann/reviews", export=run)


def elsewhere(hub: Hub, code: str, inputs: Any) -> Any:
    """The JSON that `code` prints in a process that knows only the hub; it finds `inputs`."""
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(hub.folder.parent / "home"), "HF_HUB_DISABLE_XET": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and "OFFLINE" not in name}
    code = f"import json, sys\ninputs = json.loads(sys.argv[1])\n{code}"
    command = [sys.executable, "-W", "ignore", "-c", code, json.dumps(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def uncalibrated(run: str | Path) -> fasttune.Predictor:
    """Other libraries show the plain probabilities."""
    predictor = fasttune.load(run)
    predictor.task = predictor.task.with_temperature(1.0)
    return predictor


def code_of(hub: Hub, name: str, word: str) -> str:
    """The example of the card that has this word, and needs no fasttune."""
    card = (hub.folder / name / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if word in block)
    assert "fasttune" not in code
    return code


@pytest.mark.slow
def test_transformers_gives_the_same_probabilities(hub: Hub, run: Path) -> None:
    fasttune.push(run, "ann/reviews")
    code = """
from transformers import pipeline
found = pipeline("text-classification", model="ann/reviews", top_k=None)(inputs)
print(json.dumps([{one["label"]: one["score"] for one in scores} for scores in found]))
"""
    expected = [prediction["probabilities"] for prediction in uncalibrated(run).predict(TEXTS)]
    assert elsewhere(hub, code, TEXTS) == [pytest.approx(one, abs=1e-6) for one in expected]


@pytest.mark.slow
def test_the_card_answers_questions_without_fasttune(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    recipe = {
        "task": "question-answering",
        "preprocessing": {"doc_stride": 8},
        "training": {"preset": "tutorial", "max_steps": 60, "precision": "fp32"},
    }
    run = fitted(tiny_model, tmp_path, make_questions(80, longest=20), **recipe)
    fasttune.push(run, "ann/answers")
    code = code_of(hub, "ann/answers", "AutoModelForQuestionAnswering")
    code = code.replace('question, context = "Who came?", "Ann came at noon."', "for question, context in inputs:")
    head, tail = code.split("for question")
    body = ("for question" + tail).replace("\n", "\n    ").replace("print(", "answers.append(")
    given = [(row["question"], row["context"]) for row in make_questions(8, seed=4, longest=20)]
    found = elsewhere(hub, f"answers = []\n{head}{body}\nprint(json.dumps(answers))", given)
    assert found == [prediction["answer"] for prediction in fasttune.load("ann/answers").predict(given)]


@pytest.mark.slow
def test_the_card_finds_entities_without_fasttune(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    recipe = {"task": "token-classification", "training": {"preset": "tutorial", "max_steps": 60, "precision": "fp32"}}
    run = fitted(tiny_model, tmp_path, make_sentences(60), **recipe)
    fasttune.push(run, "ann/entities")
    code = code_of(hub, "ann/entities", "token-classification")
    code += "spans = [[(one['entity_group'], one['start'], one['end']) for one in find(text)] for text in inputs]\n"
    code += "print(json.dumps(spans))"
    texts = [" ".join(row["tokens"][:20]) for row in make_sentences(6)]
    expected = [prediction["entities"] for prediction in fasttune.load("ann/entities").predict(texts)]
    assert any(expected)
    assert elsewhere(hub, code, texts) == [[[one["type"], one["start"], one["end"]] for one in own] for own in expected]


@pytest.mark.slow
def test_a_pair_model_is_a_cross_encoder(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pairs = [{**row, "text_pair": " ".join(reversed(row["text"].split()))} for row in make_rows(40, longest=8)]
    run = fitted(tiny_model, tmp_path, pairs, model_head="mean")
    fasttune.push(run, "ann/pairs")
    given = [(row["text"], row["text_pair"]) for row in pairs[:8]]
    code = """
from sentence_transformers import CrossEncoder
print(json.dumps(CrossEncoder("ann/pairs", device="cpu").predict([tuple(pair) for pair in inputs]).tolist()))
"""
    found = torch.tensor(elsewhere(hub, code, given)).softmax(-1).tolist()
    expected = [list(prediction["probabilities"].values()) for prediction in uncalibrated("ann/pairs").predict(given)]
    assert found == [pytest.approx(one, abs=1e-5) for one in expected]


def test_an_export_goes_with_its_run(hub: Hub, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    fasttune.export_run(run, "onnx", output=tmp_path / "export", most_lost=1000, progress=False)
    fasttune.push(run, "ann/reviews", export=tmp_path / "export")
    assert "onnx/model.onnx" in files_on(hub, "ann/reviews") and not fasttune.load("ann/reviews").is_export
    fasttune.push(tmp_path / "export", "ann/small")
    assert "model.safetensors" not in files_on(hub, "ann/small")
    small = fasttune.load("ann/small")
    assert small.is_export
    for one, other in zip(small.predict(TEXTS), fasttune.load(run).predict(TEXTS), strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_no_path_of_this_machine_is_uploaded(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    """Also where Markdown escapes it, or YAML breaks a long line."""
    folder = tmp_path / f"my_data [2026] {'a long name ' * 10}"
    folder.mkdir()
    rows = make_rows(80)
    rows[5] = rows[6]  # a warning that names the file
    run = fitted(tiny_model, folder, rows)
    card = (run / "README.md").read_text()
    assert "W258" in card
    folded = f"data:\n  train: {folder}/rows\n    and more.jsonl"
    block = re.sub(r"```yaml\n.*?\n```", lambda match: f"```yaml\n{folded}\n```", card, flags=re.DOTALL)
    (run / "README.md").write_text(block)  # as early versions wrote it
    fasttune.push(run, "ann/private")
    for name, content in files_on(hub, "ann/private").items():
        if name.endswith((".md", ".yaml")):
            text = content.decode().replace("\\", "").replace("\n", " ")
            assert "long name" not in text and str(tmp_path) not in text, name
    assert fasttune.load("ann/private").predict(TEXTS[:1])


def test_only_what_belongs_together_is_pushed(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "stopped")
    (tmp_path / "stopped" / "all_results.json").unlink()
    with pytest.raises(UsageError, match="the run has not finished"):
        fasttune.push(tmp_path / "stopped", "ann/reviews")
    shutil.copytree(run, tmp_path / "export")
    (tmp_path / "export" / "export.json").write_text("{}")
    environment = json.loads((run / "environment.json").read_text())
    (tmp_path / "export" / "environment.json").write_text(json.dumps({**environment, "run_id": "another"}))
    with pytest.raises(UsageError, match="it was made from another run"):
        fasttune.push(run, "ann/reviews", export=tmp_path / "export")
