"""The server: the answers of `predict`, whoever shares a batch; limits, tokens and hosts before any work."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served import client_of, post
from tiny import make_questions, make_rows, make_sentences, write_jsonl

import fasttune
from fasttune.data.tokens.store import joined
from fasttune.serving import app as serving
from fasttune.serving.app import make_app, service
from fasttune.serving.batcher import Batcher, QueueFull
from fasttune.serving.guard import LOOPBACK

PAIRS = [{**row, "text_pair": " ".join(reversed(row["text"].split()))} for row in make_rows(40, longest=8)]
TASKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[Any]]] = {
    "text": (make_rows(60), {}, [row["text"] for row in make_rows(20, seed=7)]),
    "pair": (PAIRS, {}, [{"text": row["text"], "text_pair": row["text_pair"]} for row in PAIRS[:12]]),
    "question": (
        make_questions(40),
        {"task": "question-answering", "preprocessing": {"doc_stride": 8}},
        [{"question": row["question"], "context": row["context"]} for row in make_questions(12, seed=3)],
    ),
    "sentence": (
        make_sentences(40),
        {"task": "token-classification"},
        [" ".join(row["tokens"]) for row in make_sentences(10)] + [row["tokens"] for row in make_sentences(3)],
    ),
}


@pytest.fixture(scope="module", params=list(TASKS))
def served(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    rows, recipe, inputs = TASKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    made = {
        "model": str(tiny_model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))},
        "training": {"preset": "tutorial", "max_steps": 4, "precision": "fp32"},
        "output": {"report": False},
        **recipe,
    }
    run = fasttune.fit(made, output=folder / "run", progress=False)
    return request.param, run.folder, inputs


def get(guard: Any, path: str, host: str = "localhost", **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with client_of(guard, host) as client:
            return await client.get(path, **request)

    return asyncio.run(ask())


def comparable(found: Any) -> Any:
    """Numbers rounded: the same rows in another batch differ in the last bits."""
    if isinstance(found, float):
        return round(found, 4)
    if isinstance(found, dict):
        return {name: comparable(value) for name, value in found.items() if name != "id"}
    return [comparable(one) for one in found] if isinstance(found, list) else found


def test_the_answers_are_those_of_predict(served: Any) -> None:
    kind, run, inputs = served
    one = service("run", run, False, lambda line: None)
    guard = make_app([one], LOOPBACK, None, lambda line: None)
    given = [tuple(item.values()) if isinstance(item, dict) else item for item in inputs]
    expected = fasttune.load(run).predict(given)
    answer = post(guard, json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    assert all("n_best" not in prediction for prediction in found)
    for prediction in expected:
        prediction.pop("n_best", None)
    assert comparable(found) == comparable(expected)
    if kind == "question":
        best = post(guard, json={"inputs": inputs[:2], "n_best": 2}).json()["predictions"]
        assert [len(prediction["n_best"]) for prediction in best] == [2, 2]


def test_whoever_shares_the_batch_the_answer_is_the_same(served: Any) -> None:
    _, run, inputs = served
    predictor = fasttune.load(run)
    given = [tuple(item.values()) if isinstance(item, dict) else item for item in inputs]
    alone = [predictor.predict([item])[0] for item in given]
    batcher = Batcher(predictor)
    with predictor.lock:  # so that all requests wait and become one batch
        jobs = [batcher.submit(predictor.task.rows_of([item])) for item in given]
    answers = [job.result(timeout=30) for job in jobs]
    assert comparable([found[0] for found, _ in answers]) == comparable(alone)
    assert max(timing.batch_requests for _, timing in answers) > 1
    batcher.close()


def test_joined_stores_are_those_of_all_rows_together(served: Any) -> None:
    _, run, inputs = served
    predictor = fasttune.load(run)
    given = [tuple(item.values()) if isinstance(item, dict) else item for item in inputs]
    task, setup = predictor.task, predictor.setup

    def encoded(items: list[Any]) -> Any:
        return task.encode(task.rows_of(items), setup.tokenizer, setup.max_length, "texts")

    whole, parts = encoded(given), joined([encoded([item]) for item in given])
    for name in ("inputs", "features", "token_features"):
        own, expected = getattr(parts, name), getattr(whole, name)
        assert {key: value.tolist() for key, value in own.items() if key in expected} == {
            key: value.tolist() for key, value in expected.items()
        }
    assert parts.starts.tolist() == whole.starts.tolist() and parts.rows.tolist() == whole.rows.tolist()
    assert parts.num_tokens_cut.tolist() == whole.num_tokens_cut.tolist()


@pytest.fixture(scope="module")
def text_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", make_rows(60)))},
        "training": {"preset": "tutorial", "max_steps": 4, "precision": "fp32"},
        "output": {"report": False},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False).folder


@pytest.fixture
def guard(text_run: Path) -> Iterator[Any]:
    one = service("run", text_run, True, lambda line: None)
    yield make_app([one], [*LOOPBACK, "models.example"], "a-long-token", lambda line: None)
    one.batcher.close()


TOKEN = {"Authorization": "Bearer a-long-token"}
JSON = {**TOKEN, "Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {"inputs": ["good"]}}, 401),
        ({"json": {"inputs": ["good"]}, "headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"json": {"inputs": ["good"]}, "headers": {"Authorization": f"Bearer {'x' * 5000}"}}, 401),
        ({"content": b'{"inputs": ["good"]}', "headers": {**TOKEN, "Content-Type": "text/plain"}}, 422),
        ({"files": {"file": b"good"}, "headers": TOKEN}, 422),
        ({"data": {"inputs": "good"}, "headers": TOKEN}, 422),
        ({"content": b"\x1f\x8b", "headers": {**JSON, "Content-Encoding": "gzip"}}, 422),
        ({"content": b"x" * (2 * 1024 * 1024 + 1), "headers": JSON}, 413),
        ({"content": b"{", "headers": JSON}, 422),
        ({"content": b"[" * 100_000, "headers": JSON}, 422),
        ({"content": b'{"inputs": ["a"], "inputs": ["b"]}', "headers": JSON}, 422),
        ({"content": b'{"inputs": [NaN]}', "headers": JSON}, 422),
        ({"content": b'{"inputs": ["\xff"]}', "headers": JSON}, 422),
        ({"content": b'{"inputs": ["\\ud800"]}', "headers": JSON}, 422),
        ({"json": {"inputs": "good"}, "headers": TOKEN}, 422),
        ({"json": {"inputs": []}, "headers": TOKEN}, 422),
        ({"json": {"inputs": [""]}, "headers": TOKEN}, 422),
        ({"json": {"inputs": [" \n"]}, "headers": TOKEN}, 422),
        ({"json": {"inputs": [None]}, "headers": TOKEN}, 422),
        ({"json": {"inputs": [7]}, "headers": TOKEN}, 422),
        ({"json": {"inputs": [["good"]]}, "headers": TOKEN}, 422),
        ({"json": {"inputs": [{"text": "good", "text_pair": "bad"}]}, "headers": TOKEN}, 422),
        ({"json": {"inputs": ["good"], "input": 1}, "headers": TOKEN}, 422),
        ({"json": {"inputs": ["good"], "n_best": 3}, "headers": TOKEN}, 422),
        ({"json": {"inputs": ["good"] * 33}, "headers": TOKEN}, 413),
        ({"json": {"inputs": ["a" * 100_001]}, "headers": TOKEN}, 413),
        ({"json": {"inputs": ["good"]}, "headers": {**TOKEN, "Origin": "http://evil.example"}}, 403),
        ({"json": {"inputs": ["good", {"text": "bad"}]}, "headers": TOKEN}, 200),
        ({"json": {"inputs": ["\u202e\x1b[2J {0} %s <b>"]}, "headers": TOKEN}, 200),
        ({"json": {"inputs": ["z" * 50_000]}, "headers": TOKEN}, 200),
    ],
)  # fmt: skip
def test_what_is_refused_and_what_is_not(guard: Any, request_: dict[str, Any], status: int) -> None:
    answer = post(guard, **request_)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
    if status != 200:
        assert set(answer.json()["error"]) == {"type", "message"}
        assert "/" not in answer.json()["error"]["message"].replace("application/json", ""), "a path"


def test_hosts(guard: Any) -> None:
    assert get(guard, "/", "evil.example").status_code == 421
    assert get(guard, "/health", "evil.example").status_code == 200
    assert get(guard, "/", "models.example").status_code == 200
    assert get(guard, "/", "127.0.0.1").status_code == 200


def test_paths(guard: Any) -> None:
    assert get(guard, "/health").json() == {"status": "ok"} and get(guard, "/ready").json() == {"ready": True}
    assert get(guard, "/info").status_code == get(guard, "/metrics").status_code == 401
    about = get(guard, "/info", headers=TOKEN).json()["runs"][0]
    assert about["labels"] == ["negative", "positive"] and about["inputs"] == "text"
    post(guard, json={"inputs": ["good"]}, headers=TOKEN)
    text = get(guard, "/metrics", headers=TOKEN).text
    assert 'te_request_success_total{run="run"} 1.0' in text and "te_queue_size" in text
    for path in ("/predict", "/../etc/passwd", "/%2e%2e/etc/passwd", "/docs", "/files/%00"):
        assert get(guard, path, headers=TOKEN).status_code in (404, 405)
    schema = get(guard, "/openapi.json").json()
    own = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert own["example"]["inputs"] and own["schema"]["required"] == ["inputs"]
    page = get(guard, "/")
    assert "default-src 'none'" in page.headers["content-security-policy"] and "<script src=" in page.text
    assert len(get(guard, "/page.json").json()["runs"][0]["examples"]) == 6


def test_words(guard: Any, text_run: Path) -> None:
    found = post(guard, "/words", json={"inputs": ["good food, not bad"]}, headers=TOKEN).json()
    assert found["label"] in ("negative", "positive")
    assert post(guard, "/words", json={"inputs": ["good", "bad"]}, headers=TOKEN).status_code == 413


def test_a_full_queue_says_when_to_come_again(text_run: Path) -> None:
    one = service("run", text_run, False, lambda line: None)
    one.batcher = Batcher(one.predictor, most_waiting=2)
    guard = make_app([one], LOOPBACK, None, lambda line: None)

    async def many() -> list[int]:
        async with client_of(guard) as client:
            with one.predictor.lock:
                tasks = [asyncio.ensure_future(client.post("/predict", json={"inputs": ["good"]})) for _ in range(12)]
                await asyncio.sleep(0.5)
            answers = await asyncio.gather(*tasks)
        assert all(answer.headers.get("retry-after") == "1" for answer in answers if answer.status_code == 429)
        return [answer.status_code for answer in answers]

    codes = asyncio.run(many())
    assert set(codes) == {200, 429} and codes.count(200) <= 4
    one.batcher.close()


def test_what_was_accepted_is_answered_before_the_end(text_run: Path) -> None:
    predictor = fasttune.load(text_run)
    batcher = Batcher(predictor)
    with predictor.lock:
        jobs = [batcher.submit(predictor.task.rows_of([f"good {number}"])) for number in range(30)]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        time.sleep(0.1)
        with pytest.raises(QueueFull):
            batcher.submit(predictor.task.rows_of(["late"]))
    closing.join(timeout=30)
    assert all(job.result(timeout=1) for job in jobs)


def test_a_request_that_fails_leaves_the_others_alone(text_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = fasttune.load(text_run)
    batcher = Batcher(predictor)
    from fasttune.serving import batcher as module

    own = module.predict_split

    def with_nan(*arguments: Any) -> Any:
        outputs = own(*arguments)
        outputs.results[1] = np.nan
        return outputs

    monkeypatch.setattr(module, "predict_split", with_nan)
    with predictor.lock:
        jobs = [batcher.submit(predictor.task.rows_of([text])) for text in ("good", "bad", "not good")]
    assert jobs[0].result(30) and jobs[2].result(30)
    with pytest.raises(module.NotFinite):
        jobs[1].result(30)
    batcher.close()


def test_an_error_of_the_model_has_an_id_and_nothing_else(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("/secret/path is at 0x7f")

    monkeypatch.setattr("fasttune.serving.batcher.predict_split", fail)
    answer = post(guard, json={"inputs": ["good"]}, headers=TOKEN)
    assert answer.status_code == 500 and "secret" not in answer.text and "internal error" in answer.text


def test_a_new_run_is_loaded_while_requests_come(text_run: Path) -> None:
    one = service("run", text_run, False, lambda line: None)
    guard = make_app([one], LOOPBACK, None, lambda line: None)
    codes: list[int] = []

    def ask(number: int) -> None:
        codes.append(post(guard, json={"inputs": [f"good {number}"]}).status_code)

    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(ask, number) for number in range(20)]
        one.reload()
        for each in waiting:
            each.result()
    assert codes == [200] * 20
    one.batcher.close()


def test_several_runs_have_paths_of_their_own(text_run: Path) -> None:
    both = [service(name, text_run, False, lambda line: None) for name in ("a", "b")]
    guard = make_app(both, LOOPBACK, None, lambda line: None)
    assert (
        post(guard, "/a/predict", json={"inputs": ["good"]}).json()
        == post(guard, "/b/predict", json={"inputs": ["good"]}).json()
    )
    assert post(guard, "/predict", json={"inputs": ["good"]}).status_code == 404
    assert json.loads(get(guard, "/page.json").text)["runs"][1]["path"] == "/b"
    for one in both:
        one.batcher.close()


@pytest.mark.parametrize("served", ["question"], indirect=True)
def test_long_contexts_are_answered_from_all_windows(served: Any) -> None:
    _, run, inputs = served
    long = {"question": inputs[0]["question"], "context": " ".join([inputs[0]["context"]] * 6)}
    one = service("run", run, False, lambda line: None)
    guard = make_app([one], LOOPBACK, None, lambda line: None)
    found = post(guard, json={"inputs": [long]}).json()["predictions"][0]
    expected = fasttune.load(run).predict([tuple(long.values())])[0]
    assert (found["answer"], found["start"]) == (expected["answer"], expected["start"])
    assert serving.kind_of(one.predictor.task) == "question"
    one.batcher.close()
