"""What hostile and broken clients do to the server as a process: others are answered as before."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from served import fitted, server
from tiny import make_questions, make_rows

from fasttune.serving.server import HEADER_SECONDS, MOST_CONNECTIONS, OTHER_FILES, connections_within

pytestmark = pytest.mark.slow

TOKEN = "a-long-token"
OWN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    reviews = fitted(tiny_model, tmp_path_factory.mktemp("reviews"), make_rows(60))
    answers = fitted(
        tiny_model,
        tmp_path_factory.mktemp("answers"),
        make_questions(40),
        task="question-answering",
        preprocessing={"doc_stride": 8},
    )
    with server(f"reviews={reviews}", f"answers={answers}", token=TOKEN) as found:
        yield found


@pytest.fixture(autouse=True)
def others_are_answered(served: tuple[Any, str]) -> Iterator[None]:
    """After each abuse, an honest client has its answer, and the process has the files it had before."""
    process = psutil.Process(served[0].pid)
    before = process.num_fds()
    yield
    assert ask(served[1], "good food").status_code == 200
    for _ in range(100):
        if process.num_fds() <= before + 8:
            break
        time.sleep(0.2)
    assert process.num_fds() <= before + 8


def ask(address: str, text: str) -> httpx.Response:
    return httpx.post(f"{address}/reviews/predict", json={"inputs": [text]}, headers=OWN, timeout=30)


def connected(address: str) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
    made.settimeout(HEADER_SECONDS + 8)
    return made


def status_of(address: str, request: bytes) -> int:
    """The status of the first answer to these bytes; 0 if the connection was closed without one."""
    with connected(address) as client:
        client.sendall(request)
        try:
            first = client.recv(1000)
        except ConnectionResetError:
            first = b""
    return int(first.split()[1]) if first else 0


HEAD = b"POST /reviews/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-long-token\r\n"
BODY = b'{"inputs": ["good"]}'
CHUNKED = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: -5\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 99999999999999999999\r\nContent-Type: application/json\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + BODY,
        HEAD + b"X-Folded: one\r\n two\r\nContent-Length : 5\r\n\r\nhello",
        CHUNKED + 2 * (b"100000\r\n" + b"x" * 2**20 + b"\r\n") + b"5\r\nxxxxx\r\n",
        HEAD + b"X-Long: " + b"a" * 1_000_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET \\..\\secret HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"OPTIONS /reviews/predict HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n"
        b"Access-Control-Request-Method: POST\r\n\r\n",
        b"POST /reviews/predict?token=a-long-token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 20\r\n\r\n" + BODY,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # a TLS handshake
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" * 10_000 + b"\x00" * 70_000,
    ],
    ids=[
        "negative-length", "two-lengths", "huge-length", "length-and-chunked", "gzip-chunked", "folded-header",
        "chunks-beyond-the-limit", "long-header", "many-headers", "traversal", "encoded-traversal", "backslash",
        "no-host", "other-host", "preflight", "token-in-query", "tls", "http2", "zeros",
    ],
)  # fmt: skip
def test_malformed_requests_are_refused_or_cut(served: tuple[Any, str], request_: bytes) -> None:
    status = status_of(served[1], request_)
    assert status == 0 or 400 <= status < 500, status


def test_the_body_and_every_request_have_a_deadline(served: tuple[Any, str]) -> None:
    """Also the second request of a connection, whose first was answered."""
    json_head = HEAD + b"Content-Type: application/json\r\n"
    whole = json_head + b"Content-Length: 20\r\n\r\n" + BODY
    with connected(served[1]) as slow_body, connected(served[1]) as second, connected(served[1]) as silent:
        slow_body.sendall(json_head + b"Content-Length: 20\r\n\r\n{")
        second.sendall(whole)
        answer = second.recv(10_000)
        while not answer.endswith(b"}]}"):
            answer += second.recv(10_000)
        assert b" 200 " in answer
        second.sendall(b"POST /reviews/pre")
        begin = time.monotonic()
        assert slow_body.recv(1000).split()[1] == b"408"
        assert second.recv(1000) == b""
        assert silent.recv(1000) == b""
        assert time.monotonic() - begin < HEADER_SECONDS + 5


def test_idle_connections_keep_nobody_out(served: tuple[Any, str]) -> None:
    most = 1_300
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(served[1])) for _ in range(most)]
        time.sleep(1)
        assert ask(served[1], "good food").status_code == 200
        assert psutil.Process(served[0].pid).num_fds() <= MOST_CONNECTIONS + OTHER_FILES
        idle[0].settimeout(5)
        assert idle[0].recv(100) == b"", "the oldest was closed"


def test_connections_leave_files_for_the_rest() -> None:
    assert connections_within(1024) == 1024 - OTHER_FILES
    assert connections_within(10) == 16
    assert connections_within(1_000_000) == connections_within(-1) == MOST_CONNECTIONS


def test_clients_that_leave(served: tuple[Any, str]) -> None:
    body = json.dumps({"inputs": ["good food " * 50] * 32}).encode()
    request = (
        HEAD + b"Content-Type: application/json\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    for _ in range(10):
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(connected(served[1])).sendall(request)
    begin = time.monotonic()
    while (answer := ask(served[1], "good food")).status_code == 429:
        time.sleep(int(answer.headers["Retry-After"]))
        assert time.monotonic() - begin < 20, "requests of clients that left hold the queue"
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "😀" * 20_000,
        "a" + "\u0301" * 50_000,
        "".join(map(chr, range(1, 32))) * 1000,
        "\u202e\u2066" * 20_000,
        "\uff1cscript\uff1e" * 5000,
    ],
    ids=["emoji", "marks", "controls", "direction", "wide"],
)
def test_strange_texts_take_bounded_time(served: tuple[Any, str], text: str) -> None:
    begin = time.monotonic()
    assert ask(served[1], text).status_code in (200, 422)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "content",
    [
        '{"inputs": ' + "[" * 100_000,
        "{" + ", ".join(f'"k{number}": 1' for number in range(100_000)) + "}",
        '{"inputs": [1e400]}',
        '{"inputs": [' + "9" * 10_000 + "]}",
        '{"inputs": ["good"], "n_best": -1}',
        '{"inputs": ' + json.dumps(["a"] * 400_000) + "}",
    ],
    ids=["depth", "keys", "1e400", "digits", "n_best", "items"],
)
def test_strange_json_takes_bounded_time(served: tuple[Any, str], content: str) -> None:
    begin = time.monotonic()
    headers = {**OWN, "Content-Type": "application/json"}
    answer = httpx.post(f"{served[1]}/reviews/predict", content=content, headers=headers)
    assert answer.status_code in (413, 422)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("item", "n_best", "statuses"),
    [
        ({"question": "Who?", "context": ""}, 0, (422,)),
        ({"question": "q " * 60_000, "context": "Ann came."}, 0, (413,)),
        ({"question": "q " * 5_000, "context": "Ann came."}, 0, (422,)),
        ({"question": "Who?", "context": "Ann came. " * 9_000}, 20, (200,)),
        ({"question": "Who?", "context": "Ann came."}, 10**9, (422,)),
        ({"question": "Who?", "context": "Ann came."}, 1.5, (422,)),
    ],
)
def test_questions_are_bounded(
    served: tuple[Any, str], item: dict[str, str], n_best: Any, statuses: tuple[int, ...]
) -> None:
    body = {"inputs": [item], "n_best": n_best}
    answer = httpx.post(f"{served[1]}/answers/predict", json=body, headers=OWN, timeout=30)
    assert answer.status_code in statuses, answer.text
    if answer.status_code == 200:
        assert len(answer.json()["predictions"][0]["n_best"]) <= 20


def test_ranges_are_ignored(served: tuple[Any, str]) -> None:
    ranges = ",".join(f"{number}-{number}" for number in range(5_000))
    answer = httpx.get(f"{served[1]}/page.js", headers={"Range": f"bytes={ranges}"})
    assert answer.status_code == 200 and "content-range" not in answer.headers


def test_wrong_tokens_are_refused(served: tuple[Any, str]) -> None:
    for guess in (
        b"",
        b"a",
        TOKEN[:-1].encode(),
        TOKEN.encode() + b"x",
        TOKEN.upper().encode(),
        b"x" * 60_000,
        b"\xe4",
    ):
        request = HEAD.replace(TOKEN.encode(), guess) + b"Content-Length: 20\r\n\r\n" + BODY
        assert status_of(served[1], request) == 401, guess[:20]


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis")
def test_openapi_describes_what_the_server_does(served: tuple[Any, str], tmp_path: Path) -> None:
    """Statuses, content types and shapes of answers to generated requests, right and wrong ones."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{served[1]}/openapi.json"]
    options = ["-H", f"Authorization: Bearer {TOKEN}", "--max-examples", "20", "--seed", "1", "--checks", checks]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout[-3000:]
