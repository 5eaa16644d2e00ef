"""Measure how time and memory grow with rows, lengths and processes.

    python benchmarks/growth.py [--parts rows stream lengths processes]

Rows: 1,000 to 1,000,000 generated reviews with the embedded model; reading, checking and tokenising them, the same with
cached tokens, the first step and the later ones; the same rows as a stream. Lengths: 32 to 8,192 tokens, in steps of
16,384 tokens, with a random BERT of 4 layers of 256. Processes: 1, 2 and 4 with one thread each, full copies (DDP) and
shards (FSDP2). Every measurement runs in a separate process. Nothing else may run at the same time. Draws growth.svg
beside the results if matplotlib is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from memory import status, write_rows
from sides import ROOT, heading, machine

ROWS = (1_000, 10_000, 100_000, 1_000_000)
LENGTHS = (32, 128, 512, 1024, 2048, 4096, 8192)
PROCESSES = (1, 2, 4)
TOKENS_PER_STEP = 16_384
STEPS, ROUNDS, VALIDATION_ROWS = 20, 3, 500


def recipe_of_rows(folder: Path, number: int) -> dict[str, Any]:
    rows = {"train": folder / f"{number}.jsonl", "validation": folder / "validation.jsonl"}
    for path, count in ((rows["train"], number), (rows["validation"], VALIDATION_ROWS)):
        if not path.exists():
            write_rows(path, "reviews", count)
    return {
        "data": {name: str(path) for name, path in rows.items()},
        "training": {"max_steps": STEPS, "batch_size": 16, "device": "cpu"},
        "evaluation": {"eval_strategy": "no"},
        "output": {"save_strategy": "no"},
        "tracking": {"report_to": "none"},
    }


def save_long_model(folder: Path) -> str:
    """A random BERT for 8,192 tokens, and the embedded model's tokenizer."""
    import torch
    import transformers

    from fasttune.data.starter.model import embedded_model_path

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=max(LENGTHS),
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(embedded_model_path(), model_max_length=max(LENGTHS)).save_pretrained(
        folder
    )
    return str(folder)


def recipe_of_length(folder: Path, length: int) -> dict[str, Any]:
    """Write rows of one length that begin with 'good' or 'bad', and their recipe."""
    size = TOKENS_PER_STEP // length
    rows = folder / f"length-{length}.jsonl"
    with rows.open("w") as file:
        for index in range(max(size * 4, 8)):
            words = [("good", "bad")[index % 2], *("word" for _ in range(length - 4)), str(index % 10)]
            file.write(json.dumps({"text": " ".join(words), "label": words[0]}) + "\n")
    model = folder / "long"
    return {
        "model": str(model) if model.exists() else save_long_model(model),
        "data": {"train": str(rows), "validation": str(rows), "max_eval_samples": 2},
        "preprocessing": {"max_length": max(LENGTHS)},
        "training": {"max_steps": 4, "batch_size": size, "tokens_per_microbatch": TOKENS_PER_STEP, "device": "cpu"},
        "evaluation": {"eval_strategy": "no"},
        "output": {"save_strategy": "no"},
        "tracking": {"report_to": "none"},
    }


def train(recipe: str) -> dict[str, float]:
    """One run: seconds until the first step is done and of later steps, memory at the peak and before training."""
    import fasttune
    from fasttune.training.events import Started, StepDone

    marks: dict[str, float] = {}
    seconds: list[tuple[float, int]] = []

    def observer(event: object) -> None:
        if isinstance(event, Started):
            marks["ready"], marks["before"] = time.perf_counter() - begin, status("VmRSS")
        if isinstance(event, StepDone):
            seconds.append((event.seconds, event.num_tokens))
            marks.setdefault("first_step", time.perf_counter() - begin)

    with tempfile.TemporaryDirectory() as folder, own_memory() as own:
        begin = time.perf_counter()
        fasttune.fit(json.loads(recipe), output=Path(folder) / "run", progress=False, observers=[observer])
    later = seconds[2:]
    return {
        **marks,
        "step": statistics.median(one for one, _ in later),
        "tokens_per_second": sum(tokens for _, tokens in later) / sum(one for one, _ in later),
        "peak": status("VmHWM"),
        "own": max(own),
    }


@contextmanager
def own_memory() -> Iterator[list[int]]:
    """Bytes in memory except for pages of files, every 20 ms: the kernel can reclaim pages of files at any time."""
    found, is_over = [status("RssAnon")], threading.Event()

    def look() -> None:
        while not is_over.wait(0.02):
            found.append(status("RssAnon"))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield found
    finally:
        is_over.set()
        watch.join()


def in_process(recipe: dict[str, Any], num_processes: int = 1, **environment: str) -> dict[str, Any]:
    """Run `train` in one process or several; the figures are rank 0's."""
    words = [__file__, "--train", json.dumps(recipe)]
    if num_processes > 1:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), *words]
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"ready"')))
    return found


def measure_rows(folder: Path) -> list[dict[str, Any]]:
    found = []
    for number in ROWS:
        recipe = recipe_of_rows(folder, number)
        with tempfile.TemporaryDirectory() as cache:
            first, second = (in_process(recipe, XDG_CACHE_HOME=cache) for _ in range(2))
        found.append({"rows": number, **first, "again": second["ready"], "again_peak": second["peak"]})
        print(found[-1], flush=True)
    return found


def measure_stream(folder: Path) -> list[dict[str, Any]]:
    found = []
    for number in ROWS:
        recipe = recipe_of_rows(folder, number)
        recipe["data"]["streaming"] = True
        found.append({"rows": number, **in_process(recipe)})
        print(found[-1], flush=True)
    return found


def measure_lengths(folder: Path) -> list[dict[str, Any]]:
    found = []
    for length in LENGTHS:
        recipe = recipe_of_length(folder, length)
        found.append({"length": length, **in_process(recipe)})
        print(found[-1], flush=True)
    return found


def measure_processes(folder: Path) -> list[dict[str, Any]]:
    recipe = recipe_of_rows(folder, 1_000)
    recipe["training"] |= {"batch_size": 64}
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    ways = [("one process", 1, {})]
    ways += [(name, number, how) for number in PROCESSES[1:] for name, how in (("DDP", {}), ("FSDP2", sharded))]
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(ROUNDS):
        for name, number, how in ways:
            done = in_process(recipe, number, OMP_NUM_THREADS="1", **how)
            rounds.setdefault(f"{number} {name}", []).append(done)
            print(name, number, done, flush=True)
    return [
        {"way": way, **{name: statistics.median(one[name] for one in found) for name in found[0]}}
        for way, found in rounds.items()
    ]


def page(results: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["# Growth of time and memory", ""]
    if "rows" in results:
        lines += [
            "| rows | until the first step begins | again, tokens in the cache | a step "
            "| peak memory | without file pages |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {one['rows']:,} | {one['ready']:.1f} s | {one['again']:.1f} s "
            f"| {one['step'] * 1e3:,.0f} ms | {one['peak'] / 1e6:,.0f} MB | {one['own'] / 1e6:,.0f} MB |"
            for one in results["rows"]
        ]
    if "stream" in results:
        lines += [
            "",
            "| rows, data.streaming | until the first step begins | a step | peak memory | without file pages |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {one['rows']:,} | {one['ready']:.1f} s | {one['step'] * 1e3:,.0f} ms "
            f"| {one['peak'] / 1e6:,.0f} MB | {one['own'] / 1e6:,.0f} MB |"
            for one in results["stream"]
        ]
    if "lengths" in results:
        lines += [
            "",
            "| tokens in a row | a step of 16,384 tokens | real tokens/s | peak memory |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {one['length']:,} | {one['step']:.2f} s | {one['tokens_per_second']:,.0f} "
            f"| {one['peak'] / 1e6:,.0f} MB |"
            for one in results["lengths"]
        ]
    if "processes" in results:
        lines += ["", "| processes | real tokens/s | of one | peak memory of the main one |", "|---|---|---|---|"]
        alone = results["processes"][0]["tokens_per_second"]
        lines += [
            f"| {one['way']} | {one['tokens_per_second']:,.0f} | {one['tokens_per_second'] / alone:.2f} "
            f"| {one['peak'] / 1e6:,.0f} MB |"
            for one in results["processes"]
        ]
    return "\n".join(lines) + "\n"


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fasttune"
    from matplotlib import pyplot

    figure, (rows, lengths, processes) = pyplot.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    by_rows, by_length, by_process = (results[name] for name in ("rows", "lengths", "processes"))
    numbers = [one["rows"] for one in by_rows]
    rows.loglog(numbers, [one["ready"] for one in by_rows], "o-", label="first time")
    rows.loglog(numbers, [one["again"] for one in by_rows], "s-", label="tokens in the cache")
    rows.loglog(numbers, [one["ready"] for one in results["stream"]], "^-", label="data.streaming")
    rows.loglog(numbers, [by_rows[-1]["ready"] * n / numbers[-1] for n in numbers], ":", color="grey", label="linear")
    rows.set(title="before the first step", xlabel="rows", ylabel="seconds")
    rows.legend()
    places = [one["length"] for one in by_length]
    lengths.semilogx(places, [one["step"] for one in by_length], "o-", base=2)
    lengths.set(title="a step of 16,384 tokens", xlabel="tokens in a row", ylabel="seconds", ylim=(0, None))
    processes.bar([one["way"] for one in by_process], [one["tokens_per_second"] for one in by_process])
    processes.set(title="processes on two cores", ylabel="real tokens/s")
    processes.tick_params(axis="x", labelrotation=30)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {
        "rows": measure_rows,
        "stream": measure_stream,
        "lengths": measure_lengths,
        "processes": measure_processes,
    }
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(arguments.train)), flush=True)
        return
    facts = machine()
    target = ROOT / "benchmarks" / "results" / f"{date.today().isoformat()}-growth"
    known = target.with_suffix(".json")
    results = json.loads(known.read_text())["results"] if known.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts:
            results[part] = parts[part](Path(folder))
            known.write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    title, rest = page(results).split("\n", 1)
    target.with_suffix(".md").write_text(f"{title}\n\n{heading(facts)}\n{rest}")
    if results.keys() == parts.keys():
        draw(results, target.with_suffix(".svg"))
    print(page(results))


if __name__ == "__main__":
    main()
