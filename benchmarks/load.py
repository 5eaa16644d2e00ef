"""Clients that send one request after the other for some seconds; prints a line of JSON.

    python benchmarks/load.py BODIES --port 9000 --clients 16 --seconds 5

BODIES: a file with a JSON body per line; each client begins at another one. Requests of the first second are not
counted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from pathlib import Path

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "


async def client(port: int, bodies: list[bytes], first: int, begin: float, end: float, taken: list[float]) -> int:
    """The number of answers that were no 200; `taken` gets the seconds of the others that began after `begin`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    failed = 0
    for number in itertools.count(first):
        body = bodies[number % len(bodies)]
        start = time.perf_counter()
        if start >= end:
            break
        writer.write(HEAD + str(len(body)).encode() + b"\r\n\r\n" + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        await reader.readexactly(length)
        if " 200 " not in answer.partition("\r\n")[0]:
            failed += 1
        elif start >= begin:
            taken.append(time.perf_counter() - start)
    writer.close()
    return failed


async def measure(port: int, bodies: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    taken: list[float] = []
    begin = time.perf_counter() + 1
    cpu = time.process_time()
    each = [client(port, bodies, 37 * one, begin, begin + seconds, taken) for one in range(clients)]
    failed = sum(await asyncio.gather(*each))
    wall = time.perf_counter() - begin
    taken.sort()
    return {
        "per_second": len(taken) / wall,
        "p50": statistics.median(taken),
        "p99": taken[int(0.99 * (len(taken) - 1))],
        "requests": len(taken),
        "failed": failed,
        "cpu_of_load": (time.process_time() - cpu) / (wall + 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bodies", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    bodies = [line.encode() for line in arguments.bodies.read_text("utf-8").splitlines()]
    print(json.dumps(asyncio.run(measure(arguments.port, bodies, arguments.clients, arguments.seconds))))


if __name__ == "__main__":
    main()
