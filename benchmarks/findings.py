"""Weak slices and shortcuts: ten planted sets and ten clean ones, from generated texts and predictions.

    python benchmarks/findings.py

Each set has 1,000 training and 600 scored texts. Planted: three sets whose predictions fail on long texts, three on
texts with numbers, four with a word in most training texts of one label. A clean set has none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sides import ROOT, heading, machine

WORDS = [f"{first}{second}" for first in ("ba", "ke", "li", "mo", "nu", "pa", "ri", "so") for second in ("d", "l", "n")]
CLEAN, LONG, NUMBERS, WORD = "clean", "long texts", "numbers", "a word"
SETS = [LONG] * 3 + [NUMBERS] * 3 + [WORD] * 4 + [CLEAN] * 10


def texts_of(number: int, generator: np.random.Generator) -> list[str]:
    found = []
    for length in generator.integers(6, 70, number):
        words = list(generator.choice(WORDS, length))
        if generator.random() < 0.3:
            words[int(generator.integers(length))] = str(generator.integers(10, 9999))
        found.append(" ".join(words))
    return found


def analysed(kind: str, seed: int) -> dict[str, Any]:
    """The findings on a set, as a run would write them."""
    from fasttune.analysis.findings import analyse
    from fasttune.analysis.scored import Scored
    from fasttune.data.holdout import Split
    from fasttune.data.tokens.store import TokenStore
    from fasttune.recipe import load as load_recipe
    from fasttune.tasks.text_classification import TextClassification

    generator = np.random.default_rng(seed)
    splits, stores = {}, {}
    for name, number in (("train", 1000), ("validation", 600)):
        texts, labels = texts_of(number, generator), generator.integers(0, 2, number)
        if kind == WORD:
            is_hit = (labels == 1) & (generator.random(number) < 0.7)
            texts = [f"{text} zub" if hit else text for text, hit in zip(texts, is_hit, strict=True)]
        rows = rows_with(texts, labels)
        splits[name] = Split(name, f"{name}.csv", rows, "")
        lengths = np.array([len(text.split()) + 2 for text in texts])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        inputs = {"input_ids": generator.integers(5, 1000, starts[-1]).astype(np.int32)}
        stores[name] = TokenStore(inputs, starts, np.arange(number), np.zeros(number, np.int64), {"labels": labels})
    recipe = load_recipe({"data": {"train": "train.csv"}})
    task = TextClassification.from_rows(splits["train"].rows, recipe, "train.csv")
    scored, store = splits["validation"], stores["validation"]
    texts, labels = list(scored.rows.values["text"]), store.targets["labels"]
    weak: Callable[[str], bool] = {
        LONG: lambda text: len(text.split()) >= 50,
        NUMBERS: lambda text: any(map(str.isdigit, text)),
    }.get(kind, lambda text: False)
    chance = np.array([0.4 if weak(text) else 0.12 for text in texts])
    predicted = np.where(generator.random(len(texts)) < chance, 1 - labels, labels)
    logits = np.where(predicted[:, None] == np.arange(2), generator.uniform(0.5, 3, (len(texts), 1)), 0.0)
    sums = task.row_sums(logits, store, scored.rows)
    made = Scored(task, scored, store, logits, sums)
    return analyse(made, splits["train"], [*splits.values()], stores, None, "accuracy")


def rows_with(texts: list[str], labels: np.ndarray) -> Any:
    from fasttune.data.rows import Rows

    names = ["no", "yes"]
    return Rows(list(map(str, range(len(texts)))), {"text": texts, "label": [names[label] for label in labels]})


def main() -> None:
    facts = machine()
    lines = ["# Weak slices and shortcuts, planted and not", "", heading(facts), "", "| planted | found |", "|---|---|"]
    counts = {"planted": 0, "clean": 0}
    for seed, kind in enumerate(SETS):
        found = analysed(kind, seed)
        slices = [
            " and ".join(
                f"{'' if one['low'] is None else format(one['low'], '.3g') + ' <= '}{one['name']}"
                f"{'' if one['high'] is None else ' < ' + format(one['high'], '.3g')}"
                for one in part["conditions"]
            )
            for part in found["slices"]
        ]
        words = [f"word {one['word']!r} for {one['label']}" for one in found["shortcuts"]["words"]]
        alone = [f"{one['name']} alone" for one in found["shortcuts"]["properties"]]
        shifted = [f"drift of {shift['name']}" for one in found["drift"] for shift in one["shifts"]]
        everything = [*slices, *words, *alone, *shifted]
        hit = {LONG: any("words" in one for one in slices), NUMBERS: any("digits" in one for one in slices)}
        hit |= {WORD: any("'zub'" in one for one in words), CLEAN: bool(everything)}
        counts["clean" if kind == CLEAN else "planted"] += len(everything) if kind == CLEAN else hit[kind]
        lines.append(f"| {kind} | {'; '.join(everything) or 'nothing'} |")
    lines += ["", f"Planted and found: {counts['planted']} of 10. Findings in ten clean sets: {counts['clean']}."]
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-findings.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
