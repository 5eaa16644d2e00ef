"""Run the application in uvicorn: one process, or several with a queue each."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fasttune.errors import Problem, UsageError
from fasttune.serving.app import make_app, service
from fasttune.serving.guard import LOOPBACK, App
from fasttune.training.callbacks.console import ConsoleLog

TOKEN = "FASTTUNE_TOKEN"
SETTINGS = "FASTTUNE_SERVE"  # of the worker processes, as JSON
HEADER_SECONDS = 10.0
MOST_CONNECTIONS = 1_000
OTHER_FILES = 64  # descriptors for all that is not a connection
MOST_HEADER_BYTES = 65_536
DRAIN_SECONDS = 30
WORKER_SECONDS = 120  # after which uvicorn replaces a silent process; its default of 5 is less than loading takes


class Protocol(H11Protocol):
    """HTTP/1.1 that neither slow nor idle clients can hurt.

    A connection is closed if the headers of its next request are not there HEADER_SECONDS after it was made, or after
    their first byte (uvicorn closes it if no byte comes). If there are more than `most_connections`, the one that has
    been idle for longest is closed, so those who only hold connections cannot keep others out.
    """

    most_connections = MOST_CONNECTIONS

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(HEADER_SECONDS, self._close_if_idle)
        if len(self.connections) > self.most_connections:
            others = [one for one in self.connections if isinstance(one, Protocol) and one is not self and one._is_idle]
            others = [one for one in others if not one.transport.is_closing()]  # closed a moment ago
            min(others, key=lambda one: one._idle_since, default=self).transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_idle and self._deadline is None:
            self._idle_since = self.loop.time()
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_if_idle)
        super().data_received(data)
        if not self._is_idle:
            self._forget_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered, so that its headers are what comes next."""
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        self._deadline = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def serve(
    runs: Mapping[str, Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    allowed_hosts: Sequence[str] = (),
    examples: bool = False,
) -> None:
    """Serve runs until a signal ends the process; requests that were accepted are answered first.

    Beyond loopback, UsageError without a token in the environment variable FASTTUNE_TOKEN.
    """
    is_loopback = host in LOOPBACK
    token = os.environ.get(TOKEN) or None
    if not is_loopback and token is None:
        found = f"other machines can reach {host}, and there is no token"
        raise UsageError(Problem(where="--host", found=found, hint=f"export {TOKEN}=$(openssl rand -hex 32)"))
    own = [] if host in ("0.0.0.0", "::") else [host]
    settings = {
        "runs": {name: str(path) for name, path in runs.items()},
        "hosts": [*LOOPBACK, *own, *allowed_hosts],
        "examples": examples or is_loopback,
        "workers": workers,
    }
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": Protocol,
        "ws": "none",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": MOST_HEADER_BYTES,
        "timeout_keep_alive": 5,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
        "timeout_worker_healthcheck": WORKER_SECONDS,
    }
    if workers == 1:
        uvicorn.run(_app(settings), **options)
        return
    os.environ[SETTINGS] = json.dumps(settings)
    uvicorn.run("fasttune.serving.server:worker", factory=True, workers=workers, **options)


def worker() -> App:
    """The application of a worker process, which shares the cores with the others."""
    import torch

    settings = json.loads(os.environ[SETTINGS])
    torch.set_num_threads(max(1, torch.get_num_threads() // settings["workers"]))
    return _app(settings)


def set_aside_what_stays() -> None:
    """Free what is garbage now, and leave all else out of later collections.

    The libraries hold a million objects. A full collection looks at each of them, which takes a third of a second in
    which no request is answered.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def connections_within(limit: int) -> int:
    """How many connections a process may hold that may have `limit` open files (-1: any number)."""
    return MOST_CONNECTIONS if limit < 0 else max(16, min(MOST_CONNECTIONS, limit - OTHER_FILES))


def _app(settings: Mapping[str, Any]) -> App:
    with suppress(ImportError):  # not on Windows
        import resource

        Protocol.most_connections = connections_within(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    console = ConsoleLog(1)
    services = [service(name, Path(path), settings["examples"], console.log) for name, path in settings["runs"].items()]
    guard = make_app(services, settings["hosts"], os.environ.get(TOKEN) or None, console.log)
    set_aside_what_stays()

    async def reload() -> None:
        for one in services:
            await asyncio.to_thread(one.reload)
            console.log(f"{one.name}: loaded again")
        set_aside_what_stays()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            loop = asyncio.get_running_loop()
            with suppress(NotImplementedError, RuntimeError, AttributeError):  # not on Windows
                loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(reload()))
        await guard(scope, receive, send)

    return app
