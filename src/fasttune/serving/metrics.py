"""Metrics in Prometheus' format, with the names of text-embeddings-inference where it has them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fasttune.serving.batcher import Batcher, Timing

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TOKENS = tuple(2**power for power in range(4, 16))


class Metrics:
    """One registry per app, so that two servers in a process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        run = ["run"]

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(name, text, run, buckets=SECONDS, registry=self.registry)

        self.requests = Counter("te_request_count", "Requests to predict.", run, registry=self.registry)
        self.succeeded = Counter("te_request_success", "Requests that were answered.", run, registry=self.registry)
        self.failures = Counter("te_request_failure", "Refused and failed requests.", ["err"], registry=self.registry)
        self.inputs = Counter("te_request_inputs", "Items of the requests.", run, registry=self.registry)
        self.total = seconds("te_request_duration", "Seconds from the request to its answer.")
        self.queue = seconds("te_request_queue_duration", "Seconds that a request waited.")
        self.tokenization = seconds("te_request_tokenization_duration", "Seconds to tokenise a request.")
        self.inference = seconds("te_request_inference_duration", "Seconds to compute the batch of a request.")
        self.batch_size = Histogram(
            "te_batch_next_size", "Requests of a batch.", run, buckets=TOKENS[:7], registry=self.registry
        )
        self.batch_tokens = Histogram(
            "te_batch_next_tokens", "Tokens of a batch.", run, buckets=TOKENS, registry=self.registry
        )
        self.waiting = Gauge("te_queue_size", "Requests that wait.", run, registry=self.registry)

    def watch(self, name: str, batcher: Batcher) -> None:
        self.waiting.labels(name).set_function(lambda: batcher.num_waiting)

    def answered(self, name: str, num_inputs: int, seconds: float, timing: Timing) -> None:
        self.succeeded.labels(name).inc()
        self.inputs.labels(name).inc(num_inputs)
        self.total.labels(name).observe(seconds)
        self.queue.labels(name).observe(timing.queue)
        self.tokenization.labels(name).observe(timing.tokenization)
        self.inference.labels(name).observe(timing.inference)
        self.batch_size.labels(name).observe(timing.batch_requests)
        self.batch_tokens.labels(name).observe(timing.batch_tokens)

    def failed(self, kind: str) -> None:
        self.failures.labels(kind).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
