"""Ten minutes of fuzzing and ten of overload against `fasttune serve`: no 5xx from input, flat memory, right answers.

    python benchmarks/serving_abuse.py RUNS [--minutes 10]

RUNS: a folder as of benchmarks/serving.py. Fuzzing: bodies that mutate valid ones, and random bytes as whole requests.
Overload: 128 clients that never wait, with texts of all lengths; one request in a hundred is malformed, one in fifty
is abandoned. The answer to each text is compared with that of the same model alone, to four digits. Prints a line per
minute with the server's memory, open files and answers by status.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from serving import YELP, make_run, started
from sides import ROOT, heading, machine

CLIENTS = 128
HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
STRANGE = ("", "\x00", "\ud83d\ude00", "\u202e", "a" * 5000, "1e400", "null", '"', "{", "]", "\\u0000", "\\ud800")


async def exchange(port: int, request: bytes, abandon: bool = False) -> tuple[int, bytes]:
    """Status and body of the answer; 0 if the connection was closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        if abandon:
            return -1, b""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        return int(head.split()[1]), await reader.readexactly(length)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0, b""
    finally:
        writer.close()


def wrapped(body: bytes) -> bytes:
    return f"{HEAD}{len(body)}\r\n\r\n".encode() + body


def mutated(rng: random.Random, texts: list[str]) -> bytes:
    """A request that is not quite right, or not at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 2000)) + b"\r\n\r\n"
    body = bytearray(json.dumps({"inputs": rng.choices(texts, k=rng.randrange(1, 5))}).encode())
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(body) + 1)
        body[place:place] = rng.choice(STRANGE).encode("utf-8", "surrogatepass")
        if rng.random() < 0.5:
            del body[place : place + rng.randrange(1, 9)]
    if kind == 1:
        request = bytearray(wrapped(bytes(body)))
        request[rng.randrange(len(HEAD))] = rng.randrange(256)
        return bytes(request) + b"\r\n\r\n"
    if kind == 2:
        values = (rng.choice(texts), None, 7, -1.5, [], {}, {"text": 1}, True, {"text": "a", "extra": "b"}, [["a"]])
        content: Any = {rng.choice(("inputs", "input", "n_best")): rng.choices(values, k=rng.randrange(40))}
        return wrapped(json.dumps(content).encode())
    return wrapped(bytes(body))


class Watch:
    """Counts by status, and a line per minute."""

    def __init__(self, name: str, pid: int, lines: list[str]):
        self.name, self.lines, self.process = name, lines, psutil.Process(pid)
        self.statuses: collections.Counter[int] = collections.Counter()
        self.seconds: list[float] = []
        self.wrong = 0

    async def report(self, minutes: int) -> None:
        for minute in range(1, minutes + 1):
            await asyncio.sleep(60)
            taken, self.seconds = sorted(self.seconds), []
            p99 = f"{taken[int(0.99 * (len(taken) - 1))]:.2f}" if taken else ""
            memory, files = self.process.memory_info().rss / 2**20, self.process.num_fds()
            statuses = ", ".join(f"{status}: {number:,}" for status, number in sorted(self.statuses.items()))
            line = f"| {self.name} | {minute} | {memory:.0f} | {files} | {statuses} | {self.wrong} | {p99} |"
            self.lines.append(line)
            print(line, flush=True)


async def fuzz(port: int, texts: list[str], watch: Watch, minutes: int) -> None:
    rng, end = random.Random(0), time.monotonic() + 60 * minutes

    async def client() -> None:
        while time.monotonic() < end:
            request = mutated(rng, texts)
            status, body = await exchange(port, request)
            watch.statuses[status] += 1
            if status >= 500:
                print("5xx:", request[:300], body[:300], flush=True)

    await asyncio.gather(watch.report(minutes), *(client() for _ in range(8)))


async def overload(port: int, texts: list[str], alone: dict[str, float], watch: Watch, minutes: int) -> None:
    rng, end = random.Random(1), time.monotonic() + 60 * minutes

    async def client() -> None:
        while time.monotonic() < end:
            draw, chosen = rng.random(), rng.choices(texts, k=rng.choice((1, 1, 1, 4)))
            request = mutated(rng, texts) if draw < 0.01 else wrapped(json.dumps({"inputs": chosen}).encode())
            begin = time.monotonic()
            status, body = await exchange(port, request, abandon=0.01 <= draw < 0.03)
            watch.statuses[status] += 1
            if status == 200 and draw >= 0.03:
                watch.seconds.append(time.monotonic() - begin)
                scores = [one["score"] for one in json.loads(body)["predictions"]]
                watch.wrong += any(abs(score - alone[text]) > 1e-4 for score, text in zip(scores, chosen, strict=True))
            elif status == 429:
                await asyncio.sleep(0.1)  # sooner than Retry-After asks for

    await asyncio.gather(watch.report(minutes), *(client() for _ in range(CLIENTS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--minutes", type=int, default=10)
    arguments = parser.parse_args()
    facts = machine()
    run = make_run("text", arguments.runs, "fp32")
    reviews = [json.loads(line)["text"] for line in (YELP / "validation.jsonl").open()]
    rng = random.Random(2)
    texts = [" ".join(review.split()[: rng.choice((5, 15, 60, 400))]) for review in reviews[:200]]
    lines = [
        "# Fuzzing and overload of `fasttune serve`",
        "",
        heading(facts),
        "",
        f"Clients on the same two cores. 0: the connection was closed without an answer; -1: abandoned by the client; "
        f"wrong: answers that differ from the model alone; p99 in seconds, of {CLIENTS} clients.",
        "",
        "| phase | minute | server's memory, MiB | its files | answers by status, so far | wrong | p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    with started("fasttune", run, "text") as (process, port):
        address = f"http://127.0.0.1:{port}"
        alone = {}
        for text in texts:
            answer = httpx.post(f"{address}/predict", json={"inputs": [text]}).json()
            alone[text] = answer["predictions"][0]["score"]
        asyncio.run(fuzz(port, texts, Watch("fuzz", process.pid, lines), arguments.minutes))
        asyncio.run(overload(port, texts, alone, Watch("overload", process.pid, lines), arguments.minutes))
        assert httpx.get(f"{address}/health").status_code == 200
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-serving-abuse.md"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
