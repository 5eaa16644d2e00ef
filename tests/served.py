"""A run to serve, and its server as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from tiny import write_jsonl

import fasttune


def fitted(model: Path, folder: Path, rows: list[dict[str, Any]], **recipe: Any) -> Path:
    made = {
        "model": str(model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))},
        "training": {"preset": "tutorial", "max_steps": 4, "precision": "fp32"},
        "output": {"report": False},
        **recipe,
    }
    return fasttune.fit(made, output=folder / "run", progress=False).folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(*words: object, token: str | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "FASTTUNE_TOKEN"}
    environment |= {"FASTTUNE_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "fasttune", "serve", *map(str, words), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{address}/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                assert process.poll() is None
                time.sleep(0.1)
        yield process, address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def client_of(guard: Any, host: str = "localhost") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=guard, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


def post(guard: Any, path: str = "/predict", host: str = "localhost", **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with client_of(guard, host) as client:
            return await client.post(path, **request)

    return asyncio.run(ask())
