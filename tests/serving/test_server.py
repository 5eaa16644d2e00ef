"""The server as a process: signals, slow clients, workers, and the page in a browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from served import fitted, server
from tiny import make_questions, make_rows, write_csv

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tiny_model, tmp_path_factory.mktemp("served"), make_rows(60))


def test_the_example_of_the_guide_and_an_orderly_end(run: Path) -> None:
    with server(run) as (process, address):
        answer = httpx.post(f"{address}/predict", json={"inputs": ["great food", "never again"]}).json()
        assert [one["id"] for one in answer["predictions"]] == ["0", "1"]
        process.send_signal(signal.SIGHUP)
        time.sleep(2)
        codes: list[int] = []

        def ask() -> None:
            codes.append(httpx.post(f"{address}/predict", json={"inputs": ["good"] * 32}, timeout=60).status_code)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(timeout=30) in (0, -signal.SIGTERM, 143)
        assert codes == [200] * 8, "what was accepted is answered"


def test_slow_headers_and_lying_lengths(run: Path) -> None:
    with server(run) as (_, address):
        host, port = "127.0.0.1", int(address.rpartition(":")[2])
        with socket.create_connection((host, port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-")
            slow.settimeout(20)
            begin = time.monotonic()
            assert slow.recv(1000) == b""
            assert time.monotonic() - begin < 15
        for lines in (
            b"Content-Length: 5\r\nContent-Length: 7\r\n",
            b"Content-Length: -5\r\n",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"X-Long: " + b"a" * 100_000 + b"\r\n",
            b"Content-Length: 99999999\r\nContent-Type: application/json\r\n",
        ):
            with socket.create_connection((host, port)) as client:
                client.settimeout(20)
                client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\nhello")
                first = client.recv(1000)
                assert first == b"" or 400 <= int(first.split()[1]) < 500, (lines[:40], first)
        assert httpx.get(f"{address}/health").status_code == 200


def test_beyond_loopback_there_must_be_a_token(run: Path) -> None:
    command = [sys.executable, "-m", "fasttune", "serve", str(run), "--host", "0.0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FASTTUNE_TOKEN": ""})
    assert ended.returncode == 2 and "there is no token" in ended.stderr
    with server(run, "--host", "0.0.0.0", token="secret") as (_, address):
        assert httpx.post(f"{address}/predict", json={"inputs": ["good"]}).status_code == 401
        own = {"Authorization": "Bearer secret"}
        assert httpx.post(f"{address}/predict", json={"inputs": ["good"]}, headers=own).status_code == 200
        assert httpx.get(f"{address}/page.json").json()["runs"][0]["examples"] == []


def test_workers(run: Path) -> None:
    with server(f"one={run}", f"two={run}", "--workers", 2) as (process, address):
        for name in ("one", "two"):
            assert httpx.post(f"{address}/{name}/predict", json={"inputs": ["good"]}).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=40)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    (tmp_path / "questions").mkdir()
    preprocessing = {"doc_stride": 8}
    questions = fitted(
        tiny_model, tmp_path / "questions", make_questions(40), task="question-answering", preprocessing=preprocessing
    )
    rows = [{"text": row["text"]} for row in make_rows(40, seed=5)]
    table = write_csv(tmp_path / "some.csv", rows)
    with server(f"reviews={run}", f"answers={questions}") as (_, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        bad: list[str] = []
        for scheme, width in (("light", 1100), ("dark", 390)):
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page = context.new_page()
            page.on("console", lambda message: bad.append(message.text))
            page.on("pageerror", lambda error: bad.append(str(error)))
            page.on(
                "request",
                lambda request: bad.append(request.url) if not request.url.startswith((address, "blob:")) else None,
            )
            page.goto(address)
            page.wait_for_selector("#examples button")
            for button in page.query_selector_all("#examples button"):
                button.click()
                page.wait_for_selector("#status:text-is('Done')")
                assert page.inner_text("#output .answer") in ("positive", "negative")
            page.fill("#field-text", "<img src=x onerror='window.hurt = 1'> good")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            page.wait_for_selector("#status:text-is('Done')")
            page.click("#explain")
            page.wait_for_selector("#output .text")
            assert "<img src=x" in page.inner_text("#output .text") and page.evaluate("window.hurt") is None
            page.set_input_files("#file", str(table))
            page.wait_for_selector("#table-part:not([hidden])")
            assert len(page.query_selector_all("#table tr")) == 41
            with page.expect_download() as download:
                page.click("#download")
            assert Path(download.value.path()).read_text().startswith('"text","label","score"')
            violations = Axe().run(page).response["violations"]
            assert not [f"{one['id']}: {one['nodes'][0]['html'][:150]}" for one in violations]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.select_option("#run", "answers")
            page.wait_for_selector("#field-context")
            page.query_selector_all("#examples button")[0].click()
            page.wait_for_selector("#output .text")
            page.select_option("#language", "zh")
            assert (
                page.inner_text("#result-title") == "预测结果"
                and page.evaluate("document.documentElement.lang") == "zh"
            )
            assert not bad
            context.close()
        browser.close()


def test_openapi_is_json(run: Path) -> None:
    with server(run) as (_, address):
        assert json.loads(httpx.get(f"{address}/openapi.json").text)["info"]["title"] == "fasttune"
