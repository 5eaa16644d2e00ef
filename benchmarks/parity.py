"""Compare every family and head without padding and with it: logits, loss and gradients, in fp32.

    python benchmarks/parity.py

Random models of two or three layers with weights as large as trained ones, on one batch with a row of each length from
1 token to the longest (80): padded on the right, padded on the left for heads that read every position, and with two
texts per row if the family has token types. The last rows are the embedded model, with lengths from 1 to 512. Losses
count real positions only, on both sides. Reported: the largest absolute differences, and the largest gradient.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any

import torch
import transformers
from sides import ROOT, heading, machine

sys.path.insert(0, str(ROOT / "tests"))
from parity import FAMILIES, HEADS, LONGEST, Differences, as_pairs, differences, make_batch, make_pair

import fasttune
from fasttune.data.starter.model import embedded_model_path

EMBEDDED, FULL = "all-MiniLM-L6, pretrained", (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 512)
Pair = tuple[transformers.PreTrainedModel, transformers.PreTrainedModel]


def embedded_pair(head: str) -> Pair:
    models = []
    for _ in range(2):
        torch.manual_seed(0)  # for the new head
        models.append(HEADS[head].from_pretrained(embedded_model_path(), dtype=torch.float32).eval())
    return models[0], fasttune.padding_free(models[1])


def compared(pair: Pair, lengths: tuple[int, ...], head: str, vocabulary: int) -> Iterator[tuple[str, Differences]]:
    padded, free = pair
    pad = padded.config.pad_token_id
    right = make_batch(pad, lengths, vocabulary=vocabulary)
    yield "right", differences(padded, free, right, head)
    if head != "classification":
        yield "left", differences(padded, free, make_batch(pad, lengths, "left", vocabulary), head)
    if getattr(padded.config, "type_vocab_size", 0) > 1:
        yield "right, pairs", differences(padded, free, as_pairs(right), head)


def rows() -> Iterator[tuple[str, str, str, Differences]]:
    for family in (*FAMILIES, EMBEDDED):
        for head in HEADS:
            if family == EMBEDDED:
                found = compared(embedded_pair(head), FULL, head, 30_000)
            else:
                found = compared(make_pair(family, head), tuple(range(1, LONGEST + 1)), head, 200)
            yield from ((family, head, padding, one) for padding, one in found)


def page(found: list[tuple[str, str, str, Differences]], facts: dict[str, Any]) -> str:
    lines = ["# Models without padding compared with padded ones", "", heading(facts), ""]
    lines += ["| family | head | padding | logits | loss | gradients | largest gradient | on one side only |"]
    lines += ["|---" * 8 + "|"]
    for family, head, padding, one in found:
        numbers = " | ".join(f"{value:.1e}" for value in (one.logits, one.loss, one.gradients))
        lines.append(
            f"| {family} | {head} | {padding} | {numbers} | {one.largest:.2g} | {', '.join(one.one_sided) or 'none'} |"
        )
    worst = {name: max(getattr(one, name) for *_, one in found) for name in ("logits", "loss", "gradients")}
    lines += ["", "Worst of all: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    text = page(list(rows()), machine())
    (ROOT / "benchmarks" / "results" / f"{date.today().isoformat()}-parity.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
