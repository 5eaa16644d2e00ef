"""Traces reach a collector that speaks OpenTelemetry's protocol over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from served import fitted, post
from tiny import make_rows

from fasttune.errors import EnvironmentProblem
from fasttune.serving import tracing
from fasttune.serving.app import make_app, service
from fasttune.serving.guard import LOOPBACK

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The bodies that a collector received; the environment names it."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "stars")
        yield bodies
        collector.shutdown()


def test_a_request_is_a_span_below_its_caller(tiny_model: Path, tmp_path: Path, collected: list[bytes]) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    one = service("reviews", fitted(tiny_model, tmp_path, make_rows(40)), False, lambda line: None)
    guard = make_app([one], LOOPBACK, None, lambda line: None)
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    assert post(guard, json={"inputs": ["good", "bad"]}, headers=headers).status_code == 200
    guard.app.state.fasttune.tracing.close()
    one.batcher.close()

    (resource,) = ExportTraceServiceRequest.FromString(b"".join(collected)).resource_spans
    assert "stars" in [attribute.value.string_value for attribute in resource.resource.attributes]
    spans = {span.name: span for span in resource.scope_spans[0].spans}
    assert set(spans) == {"predict", "queue", "tokenization", "inference"}
    whole = spans["predict"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, SPAN)
    values = {attribute.key: attribute.value for attribute in whole.attributes}
    assert values["fasttune.inputs"].int_value == 2 and values["fasttune.run"].string_value == "reviews"
    order = [spans[name] for name in ("queue", "tokenization", "inference")]
    times = [time for span in order for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    assert whole.start_time_unix_nano <= times[0] and times[-1] <= whole.end_time_unix_nano
    assert all(span.parent_span_id == whole.span_id for span in order)


def test_without_the_packages_the_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    assert tracing.are_traces_asked_for()
    with pytest.raises(EnvironmentProblem, match="opentelemetry-exporter-otlp-proto-http"):
        tracing.Tracing()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not tracing.are_traces_asked_for()
