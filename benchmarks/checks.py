"""Measure `fasttune check`: its cost on many rows, which planted duplicates it finds, and how good its forecasts are.

    python benchmarks/checks.py rows [--rows 1000000]
    python benchmarks/checks.py forecast [--recipes quickstart pairs-starter squad-starter] [--steps N]

`rows`: generated sentences of about 20 words with a natural distribution (few words are frequent, most are rare). One
in a thousand is repeated word for word, another one in a thousand with one or two words changed. `forecast`: check and
run each recipe, one after the other, in separate processes. Nothing else may run at the same time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sides import ROOT, heading, machine

LETTERS = "etaoinshrdlu"


def vocabulary(number: int) -> list[str]:
    """Distinct words of letters only."""
    words = []
    for index in range(number):
        word, rest = "", index + len(LETTERS)
        while rest:
            rest, letter = divmod(rest, len(LETTERS))
            word += LETTERS[letter]
        words.append(word)
    return words


def write_rows(path: Path, number: int) -> list[tuple[int, int, bool]]:
    """Write a CSV file of `number` rows; return (original, copy, whether it is exact) for each planted duplicate."""
    generator, numbers = random.Random(0), np.random.default_rng(0)
    words = vocabulary(200_000)
    planted: list[tuple[int, int, bool]] = []
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        kept: list[tuple[int, list[str]]] = []
        for row in range(number):
            chosen = (numbers.pareto(0.9, int(numbers.integers(15, 26))) * 20).astype(np.int64) % len(words)
            text = [words[index] for index in chosen]
            if row % 500 == 0:
                kept.append((row, text))
            elif row % 500 == 250:
                original, source = generator.choice(kept)
                is_exact = row % 1000 == 250
                text = list(source)
                for place in [] if is_exact else generator.sample(range(len(text)), generator.choice([1, 2])):
                    text[place] = words[generator.randrange(len(words))]
                planted.append((original, row, is_exact))
            file.write(f"{' '.join(text)},{'pos' if row % 2 else 'neg'}\n")
    return planted


def found_in(path: Path, planted: list[tuple[int, int, bool]]) -> dict[str, Any]:
    """Recall of the planted duplicates, precision of all reported ones, and the time it took."""
    from fasttune.data.duplicates import SIMILAR, find

    texts = [line.rpartition(",")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    begin = time.perf_counter()
    found = find(texts)
    seconds = time.perf_counter() - begin
    exact = [found.exact[one] == found.exact[other] for one, other, is_exact in planted if is_exact]
    near = [found.near[one] == found.near[other] for one, other, is_exact in planted if not is_exact]
    groups, counts = np.unique(found.near, return_counts=True)
    members: dict[int, list[int]] = {int(group): [] for group in groups[counts > 1]}
    for row in np.flatnonzero(np.isin(found.near, groups[counts > 1])):
        members[int(found.near[row])].append(int(row))
    reported = [(rows, row) for rows in members.values() for row in rows]
    right = sum(
        any(similarity(texts[row], texts[other]) >= SIMILAR for other in rows if other != row) for rows, row in reported
    )
    return {
        "seconds": seconds,
        "recall_exact": float(np.mean(exact)),
        "recall_near": float(np.mean(near)),
        "precision": right / len(reported),
        "num_reported": len(reported),
    }


def similarity(one: str, other: str) -> float:
    """The similarity that fasttune.data.duplicates defines, in plain Python."""
    sets = []
    for text in (one, other):
        words = ["<", *text.split(), ">"]
        sets.append(set(pairwise(words)))
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def timed(*arguments: str) -> tuple[dict[str, Any], float, int]:
    """Run a fasttune command with --json in a separate process: its output, seconds, peak memory in bytes."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "fasttune", *arguments, "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return json.loads(done.stdout), time.perf_counter() - begin, peak


def rows_page(number: int) -> tuple[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        planted = write_rows(path, number)
        checked, seconds, peak = timed("check", str(path))
        duplicates = found_in(path, planted)
    result = {"num_rows": number, "seconds": seconds, "peak_bytes": peak, "duplicates": duplicates}
    result["warnings"] = [{key: entry[key] for key in ("code", "found")} for entry in checked["warnings"]]
    lines = [
        f"# Checking {number:,} rows",
        "",
        "| | |",
        "|---|---|",
        f"| the whole check, forecast included | {seconds:.1f} s, {peak / 1e9:.2f} GB |",
        f"| of which the search for duplicates | {duplicates['seconds']:.1f} s |",
        f"| exact duplicates planted, found | {duplicates['recall_exact']:.4f} |",
        f"| near-duplicates planted (one or two words changed), found | {duplicates['recall_near']:.4f} |",
        f"| of {duplicates['num_reported']:,} reported rows, correct | {duplicates['precision']:.4f} |",
    ]
    return "\n".join(lines), result


def forecast_page(recipes: list[str], steps: int | None) -> tuple[str, dict[str, Any]]:
    lines = ["# Forecast and measurement", "", "| recipe | seconds, forecast | measured | ratio | memory, forecast |"]
    lines[-1] += " measured | ratio |"
    lines.append("|---" * 7 + "|")
    results: dict[str, Any] = {}
    for name in recipes:
        limit = [] if steps is None else [f"training.max_steps={steps}"]
        checked, _, _ = timed("check", name, *limit)
        with tempfile.TemporaryDirectory() as folder:
            run, _, _ = timed("train", name, *limit, "--output", f"{folder}/run")
        foretold = checked["forecast"]
        seconds, memory = foretold["train_runtime"], foretold["peak_memory_bytes"]
        results[name] = {"foretold": foretold, "train_runtime": run["train_runtime"]}
        results[name]["peak_memory_bytes"] = run["peak_memory_bytes"]
        lines.append(
            f"| {name} | {seconds:.1f} | {run['train_runtime']:.1f} | {seconds / run['train_runtime']:.2f} | "
            f"{memory / 1e6:,.0f} MB | {run['peak_memory_bytes'] / 1e6:,.0f} MB | "
            f"{memory / run['peak_memory_bytes']:.2f} |"
        )
    return "\n".join(lines), results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rows", "forecast"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--recipes", nargs="+", default=["quickstart", "pairs-starter", "squad-starter"])
    parser.add_argument("--steps", type=int, help="of each recipe; default: all")
    arguments = parser.parse_args()
    facts = machine()
    page, results = (
        rows_page(arguments.rows) if arguments.what == "rows" else forecast_page(arguments.recipes, arguments.steps)
    )
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-check-{arguments.what}"
    path.with_suffix(".json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    title, rest = page.split("\n", 1)
    path.with_suffix(".md").write_text(f"{title}\n\n{heading(facts)}\n{rest}\n")
    print(page)


if __name__ == "__main__":
    main()
