"""What every request passes before any work is done: host, origin, token, type, size and time of the body."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
OPEN = ("/health", "/ready")  # for probes, which know neither name nor token
NEED_TOKEN = ("/info", "/metrics")
MOST_BODY_BYTES = 2 * 1024 * 1024
BODY_SECONDS = 10.0
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is answered with an error. `kind` is for programs, `message` for people."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})

    @property
    def body(self) -> bytes:
        return json.dumps({"error": {"type": self.kind, "message": self.message}}).encode()


@dataclass(frozen=True)
class Guard:
    """An ASGI app around `app`. `hosts`: the names by which clients may call; `token`: None on loopback."""

    app: App
    hosts: frozenset[str]
    token: str | None = None
    refused: Callable[[str], None] = lambda kind: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                kept = [(name, value) for name, value in message["headers"] if name.lower() != b"server"]
                present = {name.lower() for name, _ in kept}
                message = {**message, "headers": [*kept, *(pair for pair in own if pair[0] not in present)]}
            await send(message)

        try:
            self._check(scope, headers)
            body = await _body(headers, receive) if scope["method"] == "POST" else b""
        except Refused as refused:
            self.refused(refused.kind)
            await answer(refused, send_safely)
            return
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if given:
                return await receive()  # the client leaves
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_body, send_safely)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        path = scope["path"]
        if path in OPEN:
            return
        host = _name(headers.get("host", ""))
        if host not in self.hosts:
            raise Refused(421, "host", "this server does not answer for this host; start it with --allow-host HOST")
        origin = headers.get("origin")
        if origin not in (None, "null") and _name(origin.partition("://")[2]) != host:
            raise Refused(403, "origin", "requests from other sites are refused")
        needs_token = scope["method"] == "POST" or path in NEED_TOKEN
        if self.token is not None and needs_token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.strip().encode(), self.token.encode())
            if scheme.lower() != "bearer" or not is_right:
                raise Refused(
                    401, "token", "send the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )


def _name(host: str) -> str:
    """A host without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The body of a POST, if it is JSON of acceptable size that arrives in time."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(422, "encoding", "compressed bodies are not accepted")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(422, "type", "send JSON with the header Content-Type: application/json")
    too_large = Refused(413, "body", f"a body may have {MOST_BODY_BYTES:,} bytes", {"Connection": "close"})
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MOST_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "disconnected", "the client left")
                body += message.get("body", b"")
                if len(body) > MOST_BODY_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        close = {"Connection": "close"}
        raise Refused(408, "time", f"the body did not arrive within {BODY_SECONDS:.0f} s", close) from None


async def answer(refused: Refused, send: Send) -> None:
    body = refused.body
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
