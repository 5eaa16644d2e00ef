"""Measure the search for the best answer spans: windows per second, and whether brute force finds the same.

    python benchmarks/spans.py

Random logits for windows of 384 tokens, the 20 best spans of at most 30 tokens each; median of five rounds. Brute force
tries all pairs of start and end with numpy. Nothing else may run at the same time.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from sides import ROOT, heading, machine

from fasttune.tasks.spans import best_spans

LENGTH, LONGEST, N_BEST = 384, 30, 20
BATCHES = (5, 16, 64)  # an evaluation on a CPU computes 5 at once
SECONDS, ROUNDS, COMPARED = 2.0, 5, 2000


def made(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    start, end = torch.randn(2, number, LENGTH).unbind()
    allowed = torch.zeros(number, LENGTH, dtype=torch.bool)
    allowed[:, 14:-1] = True  # a question of 12 tokens before the context
    return start, end, allowed


def rate(number: int) -> float:
    logits = made(number)
    best_spans(*logits, LONGEST, N_BEST)
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        best_spans(*logits, LONGEST, N_BEST)
        done += number
    return done / (time.perf_counter() - begin)


def agrees(number: int) -> bool:
    """Whether the spans equal those found over all pairs, in order."""
    start, end, allowed = made(number)
    found = best_spans(start, end, allowed, LONGEST, N_BEST)
    places = np.arange(LENGTH)
    is_span = (places >= places[:, None]) & (places < places[:, None] + LONGEST)
    for window in range(number):
        scores = start[window].numpy()[:, None] + end[window].numpy()
        inside = allowed[window].numpy()
        scores[~(is_span & inside & inside[:, None])] = -np.inf
        order = np.argsort(-scores, axis=None, kind="stable")[:N_BEST]
        expected = np.stack(np.unravel_index(order, scores.shape))
        if not np.array_equal(expected, np.stack([found.starts[window], found.ends[window]])):
            return False
    return True


def main() -> None:
    torch.manual_seed(0)
    facts = machine()
    rates = {number: statistics.median(rate(number) for _ in range(ROUNDS)) for number in BATCHES}
    lines = [
        "# The search for answer spans",
        "",
        heading(facts),
        "",
        f"Windows of {LENGTH} tokens, {N_BEST} spans of at most {LONGEST} tokens, {torch.get_num_threads()} threads.",
        "",
        "| windows at once | windows per second, median |",
        "|---|---|",
        *(f"| {number} | {value:,.0f} |" for number, value in rates.items()),
        "",
        f"The same spans as brute force in {COMPARED:,} random windows: {'yes' if agrees(COMPARED) else 'NO'}",
    ]
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / f"{facts['date']}-spans.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
