"""Run the application in uvicorn: one process, or several with a queue each."""

from __future__ import annotations

import asyncio
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
MOST_HEADER_BYTES = 65_536
DRAIN_SECONDS = 30
WORKER_SECONDS = 120  # after which uvicorn replaces a silent process; its default of 5 is less than loading takes


class Protocol(H11Protocol):
    """HTTP that closes a connection whose first request has not sent all its headers after HEADER_SECONDS.

    Idle connections after a request are closed by uvicorn's keep-alive timeout.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._late)

    def _late(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)


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
        "limit_concurrency": MOST_CONNECTIONS,
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


def _app(settings: Mapping[str, Any]) -> App:
    console = ConsoleLog(1)
    services = [service(name, Path(path), settings["examples"], console.log) for name, path in settings["runs"].items()]
    guard = make_app(services, settings["hosts"], os.environ.get(TOKEN) or None, console.log)

    async def reload() -> None:
        for one in services:
            await asyncio.to_thread(one.reload)
            console.log(f"{one.name}: loaded again")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            loop = asyncio.get_running_loop()
            with suppress(NotImplementedError, RuntimeError, AttributeError):  # not on Windows
                loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(reload()))
        await guard(scope, receive, send)

    return app
