"""Requests per second and waiting times of `fasttune serve`, beside two servers written by hand.

    python benchmarks/serving.py RUNS [--seconds 5] [--rounds 3] [--clients 1 16 64] [--precision int8] [--tasks text]

RUNS: a folder in which one short training per task is kept; scores do not matter here. Per task and length of text,
the servers of benchmarks/plain_server.py and `fasttune serve` take turns, each alone on the machine, under the load of
benchmarks/load.py in a process of its own. A server is started anew for each round. Numbers are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sides import REAL_DATA, ROOT, YELP, heading, machine

HERE = Path(__file__).parent
KINDS = ("text", "pair", "question", "sentence")
LENGTHS = ("Yelp", "20 tokens")
SHORT_WORDS = 15  # of a text; with [CLS], [SEP] and words in pieces about 20 tokens
SERVERS = ("def", "async", "fasttune")


def make_run(kind: str, folder: Path, precision: str) -> Path:
    """A run of a few steps on real data of this task; entities are the capitalised words of reviews."""
    import fasttune

    run = folder / f"{kind}-{precision}"
    if (run / "all_results.json").exists():
        return run
    data: dict[str, Any] = {
        "text": {"train": str(YELP / "train.jsonl")},
        "pair": {"train": str(REAL_DATA / "mrpc" / "train.tsv")},
        "question": {"train": str(REAL_DATA / "squad_v1" / "dev.json")},
        "sentence": {"train": str(folder / "sentences.jsonl")},
    }
    sentences = (json.loads(line)["text"].split()[:60] for line in (YELP / "validation.jsonl").open())
    tagged = [{"tokens": words, "tags": ["B-X" if word.istitle() else "O" for word in words]} for words in sentences]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tagged))
    tasks = {"question": "question-answering", "sentence": "token-classification"}
    recipe = {
        "task": tasks.get(kind, "text-classification"),
        "data": {**data[kind], "max_train_samples": 400, "max_eval_samples": 100},
        "training": {"preset": "tutorial", "max_steps": 10, "precision": precision},
        "evaluation": {} if kind in tasks else {"baselines": False, "calibrate": False},
        "output": {"report": False},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=run, progress=False).folder


def exported(run: Path) -> Path:
    """The run in int8; after a few steps its scores do not matter, so any loss is accepted."""
    import fasttune

    export = run.with_name(f"{run.name}-openvino-int8")
    if not export.exists():
        fasttune.export_run(run, "openvino-int8", output=export, most_lost=1000, progress=False)
    return export


def bodies(kind: str, length: str, path: Path) -> Path:
    """One request per line: reviews as they are, or their first words."""
    reviews = [json.loads(line)["text"].replace("\\n", " ") for line in (YELP / "validation.jsonl").open()]
    if length != "Yelp":
        reviews = [" ".join(review.split()[:SHORT_WORDS]) for review in reviews]
    items: list[Any] = []
    for review in reviews:
        words = review.split()
        half = len(words) // 2
        question = "What did they like?" if length != "Yelp" else "What did the guests like about the food here?"
        items.append(
            {
                "text": review,
                "sentence": review,
                "pair": {"text": " ".join(words[:half]) or "-", "text_pair": " ".join(words[half:]) or "-"},
                "question": {"question": question, "context": review},
            }[kind]
        )
    path.write_text("".join(json.dumps({"inputs": [item]}) + "\n" for item in items))
    return path


@contextmanager
def started(
    server: str, run: Path, kind: str, export: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that has answered, and its port; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if server == "fasttune":
        command = [sys.executable, "-m", "fasttune", "serve", str(export or run)]
    else:
        command = [sys.executable, str(HERE / "plain_server.py"), str(run), "--style", server, "--kind", kind]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready")
                break
            except OSError:
                time.sleep(0.1)
            if process.poll() is not None:
                raise RuntimeError(f"{server} ended with {process.returncode}")
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def loaded(requests: Path, port: int, clients: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, str(HERE / "load.py"), str(requests), "--port", str(port), "--clients", str(clients)]
    output = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, check=True).stdout
    return dict(json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--tasks", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--precision", default="fp32", help="of fasttune: fp32, bf16, or int8 by OpenVINO; the others compute in fp32"
    )
    arguments = parser.parse_args()
    facts = machine()
    lines = [
        f"# Serving with {arguments.precision}, beside two servers by hand with fp32",
        "",
        heading(facts),
        "",
        f"{arguments.seconds:g} seconds per measurement after one second of warm-up, {arguments.rounds} rounds in "
        "turn, medians. The load comes from another process on the same cores; load: its share of one core.",
        "",
        "| inputs | length | clients | server | requests/s | p50, ms | p99, ms | load | fasttune / this |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for kind in arguments.tasks:
        is_int8 = arguments.precision == "int8"
        run = make_run(kind, arguments.runs, "fp32" if is_int8 else arguments.precision)
        export = exported(run) if is_int8 else None
        for length in LENGTHS:
            requests = bodies(kind, length, arguments.runs / "requests.jsonl")
            found: dict[tuple[str, int], list[dict[str, float]]] = {}
            for _ in range(arguments.rounds):
                for server in SERVERS:
                    with started(server, run, kind, export) as (_, port):
                        for clients in arguments.clients:
                            taken = loaded(requests, port, clients, arguments.seconds)
                            assert not taken["failed"], (server, kind, taken)
                            found.setdefault((server, clients), []).append(taken)
            for clients in arguments.clients:
                for server in SERVERS:
                    line = row(kind, length, clients, server, found)
                    lines.append(line)
                    print(line, flush=True)
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-serving-{arguments.precision}.md"
    path.write_text("\n".join(lines) + "\n")


def row(kind: str, length: str, clients: int, server: str, found: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    def middle(name: str, of: str = server) -> float:
        return statistics.median(one[name] for one in found[of, clients])

    ratio = "" if server == "fasttune" else f"{middle('per_second', 'fasttune') / middle('per_second'):.2f}"
    return (
        f"| {kind} | {length} | {clients} | {server} | {middle('per_second'):.1f} | {1000 * middle('p50'):.1f} "
        f"| {1000 * middle('p99'):.1f} | {middle('cpu_of_load'):.0%} | {ratio} |"
    )


if __name__ == "__main__":
    main()
