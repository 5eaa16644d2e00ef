"""transformers.js in Node gives the probabilities of the weights, in fp32 and nearly so in int8."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from loopback_hub import serve
from served import fitted
from tiny import make_rows, make_sentences

import fasttune

pytest.importorskip("onnxruntime")
VERSION = "4.3.2"
PROGRAM = """
import { pipeline, env } from "@huggingface/transformers";
const [place, task, model, dtype, options, texts] = process.argv.slice(2).map((word) => JSON.parse(word));
env.allowRemoteModels = place.startsWith("http");
env.allowLocalModels = !env.allowRemoteModels;
env.cacheDir = "./cache";
if (env.allowRemoteModels) env.remoteHost = place; else env.localModelPath = place;
const run = await pipeline(task, model, { dtype });
console.log(JSON.stringify(await Promise.all(texts.map((text) => run(text, options)))));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js")
    folder = tmp_path_factory.mktemp("node")
    # The scripts of its packages would download runtimes for GPUs.
    command = ["npm", "install", "--ignore-scripts", "--no-audit", f"@huggingface/transformers@{VERSION}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install transformers.js: {done.stderr.strip()[-200:]}")
    (folder / "program.mjs").write_text(PROGRAM)
    return folder


def found_by(node: Path, place: str, *words: Any) -> Any:
    """`words`: task, model, dtype, options and texts; `place`: a folder of models, or a hub."""
    command = ["node", "program.mjs", *map(json.dumps, (place, *words))]
    done = subprocess.run(command, cwd=node, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")
def test_classes(node: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder, and from a hub that the run was pushed to with its export."""
    run = fitted(tiny_model, tmp_path, make_rows(60))
    options: dict[str, Any] = {"output": tmp_path / "export", "most_lost": 1000, "progress": False}
    fasttune.export_run(run, ["onnx", "onnx-int8"], **options)
    texts = [row["text"] for row in make_rows(6, seed=8)]
    expected = [prediction["probabilities"] for prediction in fasttune.load(run).predict(texts)]
    with serve(tmp_path / "hub") as hub:
        pages = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in (("ENDPOINT", hub.address), ("HUGGINGFACE_CO_URL_TEMPLATE", pages)):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        fasttune.push(run, "ann/reviews", export=tmp_path / "export")
        for place, model in ((f"{tmp_path}/", "export"), (f"{hub.address}/", "ann/reviews")):
            for dtype, tolerance in (("fp32", 1e-5), ("q8", 0.05)):
                found = found_by(node, place, "text-classification", model, dtype, {"top_k": None}, texts)
                scores = [{one["label"]: one["score"] for one in labels} for labels in found]
                assert scores == [pytest.approx(one, abs=tolerance) for one in expected], (place, dtype)


@pytest.mark.slow
def test_tokens(node: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = {"task": "token-classification", "training": {"preset": "tutorial", "max_steps": 60, "precision": "fp32"}}
    run = fitted(tiny_model, tmp_path, make_sentences(60), **recipe)
    fasttune.export_run(run, "onnx", output=tmp_path / "export", most_lost=1000, progress=False)
    texts = [" ".join(row["tokens"][:20]) for row in make_sentences(4)]
    found = found_by(node, f"{tmp_path}/", "token-classification", "export", "fp32", {}, texts)
    tags = [[(one["word"], one["entity"]) for one in words] for words in found]
    assert any(tags)
    expected = fasttune.load(run).predict(texts)
    pairs = [list(zip(one["tokens"], one["tags"], strict=True)) for one in expected]
    assert tags == [[(word, tag) for word, tag in own if tag != "O"] for own in pairs]
