"""Traces for OpenTelemetry, if the environment asks for them by the variables that OpenTelemetry defines."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.serving.batcher import Timing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
NANOSECONDS = 1e9


class Tracing:
    """A span for each answered request, below that of its `traceparent`; in it queue, tokenization and inference."""

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise EnvironmentProblem(
                Problem(
                    where=next(name for name in ENDPOINTS if os.environ.get(name)),
                    found="traces are asked for, but the packages of OpenTelemetry are not installed",
                    hint="pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http, or unset the variable",
                    code="E545",
                )
            ) from None
        own_name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "fasttune"}
        self.provider = TracerProvider(resource=Resource.create(own_name))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("fasttune")

    def answered(self, run: str, headers: Mapping[str, str], num_inputs: int, came: float, timing: Timing) -> None:
        """Record a request that was answered just now; `came`: when, by `time.perf_counter`."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        now, moment = time.time_ns(), time.perf_counter()

        def clock(seconds: float) -> int:
            return now - int(NANOSECONDS * (moment - seconds))

        attributes: dict[str, str | int] = {
            "fasttune.run": run,
            "fasttune.inputs": num_inputs,
            "fasttune.batch.requests": timing.batch_requests,
            "fasttune.batch.tokens": timing.batch_tokens,
        }
        above = TraceContextTextMapPropagator().extract(headers)
        whole = self.tracer.start_span(
            "predict", context=above, kind=SpanKind.SERVER, attributes=attributes, start_time=clock(came)
        )
        for name, begin, end in (
            ("queue", timing.came, timing.taken),
            ("tokenization", timing.taken, timing.tokenized),
            ("inference", timing.begin, timing.end),
        ):
            self.tracer.start_span(name, context=set_span_in_context(whole), start_time=clock(begin)).end(clock(end))
        whole.end(now)

    def close(self) -> None:
        """Send what has not been sent."""
        self.provider.shutdown()


def are_traces_asked_for() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true" and any(map(os.environ.get, ENDPOINTS))
