"""Predictions of many rows: `fasttune`, transformers' pipeline and sentence-transformers' CrossEncoder.

    python benchmarks/predicting.py RUNS [--rows 2000] [--rounds 3]

RUNS: a folder as of benchmarks/serving.py; its runs of one short training are made if they are not there. All sides
predict the same rows with the same fp32 weights in one process, in turn: Yelp reviews in random order by a pipeline of
batch_size=32, pairs of MRPC by CrossEncoder.predict with its batches of 32. Probabilities must agree.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from serving import make_run
from sides import REAL_DATA, ROOT, YELP, heading, machine


def main() -> None:
    import transformers
    from sentence_transformers import CrossEncoder

    import fasttune

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    facts = machine()
    texts = [json.loads(line)["text"] for line in (YELP / "train.jsonl").open()][: arguments.rows]
    random.Random(0).shuffle(texts)
    table = (REAL_DATA / "mrpc" / "train.tsv").read_text("utf-8-sig").splitlines()[1:]
    pairs = [tuple(line.split("\t")[3:5]) for line in table[: arguments.rows]]

    run = make_run("text", arguments.runs, "fp32")
    model = fasttune.load(run)
    pipeline = transformers.pipeline("text-classification", model=str(run), top_k=None, truncation=True)
    of_pairs = make_run("pair", arguments.runs, "fp32")
    model_of_pairs, encoder = fasttune.load(of_pairs), CrossEncoder(str(of_pairs))
    sides: dict[str, tuple[str, Callable[[], Any]]] = {
        "reviews, pipeline": ("pipeline(batch_size=32)", lambda: pipeline(texts, batch_size=32)),
        "reviews, fasttune": ("fasttune.load(run).predict", lambda: model.predict(texts)),
        "pairs, CrossEncoder": ("CrossEncoder.predict", lambda: encoder.predict(pairs, apply_softmax=True)),
        "pairs, fasttune": ("fasttune.load(run).predict", lambda: model_of_pairs.predict(pairs)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, Any] = {}
    for _ in range(arguments.rounds):
        for name, (_call, predict) in sides.items():
            begin = time.perf_counter()
            answers[name] = predict()
            seconds[name].append(time.perf_counter() - begin)
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    lines = [
        f"# Predicting {arguments.rows:,} rows, fp32",
        "",
        heading(facts),
        "",
        f"Medians of {arguments.rounds} rounds in one process, in turn.",
        "",
        "| rows | call | seconds | rows/s | fasttune is faster by | largest difference of a probability |",
        "|---|---|---|---|---|---|",
    ]
    for name, (call, _) in sides.items():
        kind, _, side = name.partition(", ")
        ours = answers[f"{kind}, fasttune"]
        ratio = difference = ""
        if side != "fasttune":
            ratio = f"{middle[name] / middle[f'{kind}, fasttune']:.2f}"
            difference = f"{np.abs(_table(ours) - _table(answers[name])).max():.1e}"
        rate = arguments.rows / middle[name]
        lines.append(f"| {kind} | {call} | {middle[name]:.2f} | {rate:.0f} | {ratio} | {difference} |")
    print("\n".join(lines))
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-predicting.md"
    path.write_text("\n".join(lines) + "\n")


def _table(answers: Any) -> np.ndarray:
    """Probabilities, a row for each text, in the order of the labels' names."""
    if isinstance(answers, np.ndarray):
        return answers
    if isinstance(answers[0], list):
        answers = [{one["label"]: one["score"] for one in answer} for answer in answers]
    else:
        answers = [answer["probabilities"] for answer in answers]
    return np.array([[answer[name] for name in sorted(answer)] for answer in answers])


if __name__ == "__main__":
    main()
