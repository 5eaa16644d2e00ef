"""The web application of `fasttune serve`: /predict of each run, /health, /ready, /info, /metrics and the page."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

import fasttune
from fasttune.errors import Error
from fasttune.evaluation.attribution import explains, words_behind
from fasttune.evaluation.own_split import read_own_split
from fasttune.evaluation.predictor import Predictor
from fasttune.runs import hub
from fasttune.runs.folder import plain
from fasttune.serving.batcher import Batcher, NotFinite, QueueFull
from fasttune.serving.guard import Guard, Refused
from fasttune.serving.metrics import Metrics
from fasttune.serving.requests import MOST_ITEMS, ROLES, kind_of, parsed
from fasttune.serving.tracing import Tracing, are_traces_asked_for
from fasttune.tasks import Prediction
from fasttune.training.run import Log

ANSWER_SECONDS = 30.0
NUM_EXAMPLES = 6
LONGEST_EXAMPLE = 1_000  # characters
EXAMPLES = {
    "text": ["The room was spotless.", "I would not come back."],
    "pair": [{"text": "It rains.", "text_pair": "Rain falls."}],
    "question": [{"question": "Who came?", "context": "Ann came at noon."}],
    "sentence": ["Ann moved to Paris in May."],
}
ERRORS = {
    400: "The client left, or the request is no HTTP.",
    401: "No token, or a wrong one.",
    403: "A request from another site.",
    408: "The body is too slow.",
    413: "The body, its items or their characters are too many.",
    421: "A host that this server does not answer for.",
    422: "The body is not JSON of this shape.",
    429: "Too many requests wait; Retry-After says when to come again.",
    500: "The model failed; the server's log has the cause under the id.",
    503: "The server is about to end, or had no answer in time.",
}
ERROR_CONTENT = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {
                "error": {
                    "type": "object",
                    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                    "required": ["type", "message"],
                }
            },
            "required": ["error"],
        }
    }
}
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass
class Service:
    """A run under a name. `open` loads it again; `examples` are held-out inputs for the page, if they may be shown.

    `example`: a request and its answer, for the description of the interface.
    """

    name: str
    open: Callable[[], Predictor]
    predictor: Predictor
    batcher: Batcher
    examples: list[Any] = field(default_factory=list)
    example: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    @property
    def kind(self) -> str:
        return kind_of(self.predictor.task)

    def reload(self) -> None:
        """Load the run again; requests that wait are answered by the model they came for."""
        hub.downloaded.cache_clear()  # a run on the hub may have changed
        predictor = self.open()
        before, self.predictor, self.batcher = self.batcher, predictor, Batcher(predictor)
        before.close()


def service(name: str, path: Path, shows_examples: bool, log: Log) -> Service:
    """Load a run for the server."""

    def opened() -> Predictor:
        predictor = Predictor.open(path, log=log, fastest=True)
        predictor.warm_up()
        return predictor

    predictor = opened()
    made = Service(name, opened, predictor, Batcher(predictor))
    if shows_examples:
        try:
            made.examples = _examples(predictor, made.kind)
        except Error as error:
            log(f"{name}: no examples on the page: {error.problems[0].found}")
    inputs = made.examples[:2] or EXAMPLES[made.kind]
    items, _ = parsed(json.dumps({"inputs": inputs}).encode(), made.kind)
    answers, _ = made.batcher.submit(predictor.task.rows_of(items)).result()  # also makes the first request fast
    made.example = {"inputs": inputs}, {"predictions": [plain(_with_candidates(answer, 0)) for answer in answers]}
    return made


def _examples(predictor: Predictor, kind: str) -> list[Any]:
    """A few short validation rows, as items of a request."""
    values = read_own_split(predictor, "validation").rows.values
    roles = ("tokens",) if kind == "sentence" else ROLES[kind]
    found: list[Any] = []
    for cells in zip(*(values[role] for role in roles), strict=True):
        texts = [str(getattr(cell, "text", cell)) for cell in cells]
        if sum(map(len, texts)) <= LONGEST_EXAMPLE:
            found.append(texts[0] if len(roles) == 1 else dict(zip(roles, texts, strict=True)))
        if len(found) == NUM_EXAMPLES:
            break
    return found


@dataclass
class State:
    """What all requests share. `is_ready` turns False when the server begins to end."""

    services: dict[str, Service]
    metrics: Metrics
    log: Log
    tracing: Tracing | None = None
    is_ready: bool = True


def make_app(services: Sequence[Service], hosts: Sequence[str], token: str | None, log: Log) -> Guard:
    """The application. Its paths are /predict and /words, or with several services /NAME/predict and /NAME/words."""
    state = State({one.name: one for one in services}, Metrics(), log, Tracing() if are_traces_asked_for() else None)
    for one in services:
        state.metrics.watch(one.name, one.batcher)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.is_ready = False
        for one in state.services.values():
            await asyncio.to_thread(one.batcher.close)
        if state.tracing is not None:
            await asyncio.to_thread(state.tracing.close)

    app = FastAPI(title="fasttune", version=fasttune.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_routes(app, state)
    for one in services:
        prefix = "" if len(services) == 1 else f"/{one.name}"
        _add_predict(app, state, one.name, prefix)
    guard = Guard(app, frozenset(hosts), token, state.metrics.failed)
    app.state.fasttune = state
    return guard


def _add_routes(app: FastAPI, state: State) -> None:
    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> Response:
        state.metrics.failed(refused.kind)
        return Response(refused.body, refused.status, refused.headers, "application/json")

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Any) -> Response:
        refused = Refused(error.status_code, "path", "no such path, or not with this method")
        return Response(refused.body, refused.status, getattr(error, "headers", None), "application/json")

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return _failure(state, error)

    @app.get("/health", summary="Whether the process answers.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether models are loaded and requests are accepted.")
    async def ready() -> Response:
        return JSONResponse({"ready": state.is_ready}, 200 if state.is_ready else 503)

    @app.get("/info", summary="The runs that are served.")
    async def info() -> dict[str, Any]:
        return {"version": fasttune.__version__, "runs": [_about(one) for one in state.services.values()]}

    @app.get("/metrics", summary="Metrics in Prometheus' format.", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(state.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_file("page.html"), headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/page.js", include_in_schema=False)
    async def script() -> Response:
        return Response(_file("page.js"), media_type="text/javascript")

    @app.get("/page.css", include_in_schema=False)
    async def style() -> Response:
        return Response(_file("page.css"), media_type="text/css")

    @app.get("/page.json", include_in_schema=False)
    async def about_page() -> dict[str, Any]:
        """What the page needs before it has a token: no names of files."""
        prefix = len(state.services) > 1
        return {
            "runs": [
                {
                    "name": one.name,
                    "path": f"/{one.name}" if prefix else "",
                    "kind": one.kind,
                    "explains": explains(one.predictor),
                    "examples": one.examples,
                }
                for one in state.services.values()
            ]
        }


def _about(one: Service) -> dict[str, Any]:
    predictor = one.predictor
    return {
        "name": one.name,
        "task": predictor.task.name,
        "inputs": one.kind,
        "labels": list(predictor.task.state().get("label2id", ())),
        "max_length": predictor.setup.max_length,
        "precision": predictor.precision,
        "device": str(predictor.setup.accelerator.device),
    }


def _add_predict(app: FastAPI, state: State, name: str, prefix: str) -> None:
    one = state.services[name]
    given, answered = one.example
    body = _body(_schema(one.kind), given)
    single = _body(_schema(one.kind, 1), {"inputs": given["inputs"][:1]})
    answer = {"application/json": {"schema": _schema_of(answered), "example": answered}}
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": ERROR_CONTENT} for status, text in ERRORS.items()
    }

    @app.post(
        f"{prefix}/predict",
        summary=f"Predict with {name}.",
        openapi_extra=body,
        responses={200: {"description": "A prediction per item, in order.", "content": answer}, **errors},
    )
    async def predict(request: Request) -> Response:
        begin = time.perf_counter()
        served = state.services[name]
        inputs, n_best = parsed(await request.body(), served.kind)
        state.metrics.requests.labels(name).inc()
        rows = served.predictor.task.rows_of(inputs)
        if not state.is_ready:
            raise Refused(503, "ending", "the server is about to end")
        try:
            answer = served.batcher.submit(rows)
        except QueueFull:
            raise Refused(429, "queue", "too many requests wait; try again", {"Retry-After": "1"}) from None
        found, timing = await _answered(request, asyncio.wrap_future(answer))
        found = [_with_candidates(prediction, n_best) for prediction in found]
        state.metrics.answered(name, len(inputs), time.perf_counter() - begin, timing)
        if state.tracing is not None:
            state.tracing.answered(name, request.headers, len(inputs), begin, timing)
        return JSONResponse({"predictions": [plain(prediction) for prediction in found]})

    @app.post(
        f"{prefix}/words", summary="The words that drove one prediction.", openapi_extra=single, responses={**errors}
    )
    async def words(request: Request) -> Response:
        served = state.services[name]
        inputs, _ = parsed(await request.body(), served.kind)
        if not explains(served.predictor):
            raise Refused(422, "words", "words are measured for classes only")
        if len(inputs) > 1:
            raise Refused(413, "items", "one item at a time: each takes about thirteen predictions")
        roles = ROLES[served.kind]
        texts = inputs[0] if isinstance(inputs[0], tuple) else (inputs[0],)
        given = dict(zip(roles, texts, strict=True))
        found = await asyncio.to_thread(lambda: next(words_behind(served.predictor, [given])))
        return JSONResponse(plain(found))


def _with_candidates(prediction: Prediction, n_best: int) -> Prediction:
    """The prediction with at most `n_best` candidates of a question; for 0, without the field."""
    kept = {name: value for name, value in prediction.items() if name != "n_best"}
    return kept | {"n_best": prediction["n_best"][:n_best]} if n_best and "n_best" in prediction else kept


async def _answered(request: Request, answer: asyncio.Future[Any]) -> Any:
    """The answer; a client that leaves cancels what has not begun."""
    leaving = asyncio.ensure_future(_left(request))
    try:
        done, _ = await asyncio.wait({answer, leaving}, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        answer.cancel()
        if leaving in done:
            raise Refused(400, "disconnected", "the client left")
        raise Refused(503, "time", f"no answer within {ANSWER_SECONDS:.0f} s", {"Retry-After": "5"})
    except NotFinite:
        raise Refused(500, "model", "the model gave no finite numbers for this request") from None
    except Error as error:  # of the request: such as a question that leaves no room for its context
        raise Refused(422, "inputs", error.problems[0].found) from None
    finally:
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _failure(state: State, error: Exception) -> Response:
    """An answer without paths or traces; the log has them, under the same id."""
    number = uuid.uuid4().hex[:12]
    state.log(f"error {number}: {type(error).__name__}: {str(error)[:200]}")
    refused = Refused(500, "internal", f"internal error {number}; the server's log has its cause")
    state.metrics.failed(refused.kind)
    return Response(refused.body, 500, media_type="application/json")


def _body(schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _schema(kind: str, most_items: int = MOST_ITEMS) -> Mapping[str, Any]:
    text = {"type": "string", "minLength": 1}
    items: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if kind == "sentence":
        items = {"oneOf": [text, {"type": "array", "items": text, "minItems": 1}]}
    else:
        items |= {"properties": dict.fromkeys(ROLES[kind], text), "required": list(ROLES[kind])}
        items = {"oneOf": [text, items]} if kind == "text" else items
    fields: dict[str, Any] = {"inputs": {"type": "array", "items": items, "minItems": 1, "maxItems": most_items}}
    if kind == "question" and most_items > 1:
        fields["n_best"] = {"type": "integer", "minimum": 0, "maximum": 20}
    return {"type": "object", "properties": fields, "required": ["inputs"], "additionalProperties": False}


def _schema_of(value: Any) -> dict[str, Any]:
    """The shape of an answer, from one; any value in it may be missing or null, as for a question without an answer."""
    if isinstance(value, dict):
        return {"type": ["object", "null"], "properties": {name: _schema_of(part) for name, part in value.items()}}
    if isinstance(value, list):
        return {"type": ["array", "null"], "items": _schema_of(value[0]) if value else {}}
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return {"type": [names[type(value)], "null"]} if type(value) in names else {}


def _file(name: str) -> str:
    return importlib.resources.files("fasttune.serving").joinpath(name).read_text("utf-8")
