"""Are the words behind a prediction those that decide it? What leaving out words does to the predicted probability.

    python benchmarks/attributions.py RUN [RUN ...] [--rows 100]

Of each held-out text, three words are left out together: those with the largest measured effect (what a report
underlines), those with the largest gradient times input (what proposes them), and three at random.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sides import ROOT, heading, machine

TOGETHER = 3


def measured(run: Path, number: int) -> tuple[int, dict[str, float]]:
    import fasttune
    from fasttune.evaluation import attribution
    from fasttune.evaluation.own_split import read_own_split

    predictor = fasttune.load(run)
    rows = read_own_split(predictor, None).rows
    generator, drops = np.random.default_rng(0), {"effect": [], "gradient": [], "random": []}  # type: ignore[var-annotated]
    for row in generator.permutation(len(rows))[:number].tolist():
        texts = {role: rows.values[role][row] for role in ("text", "text_pair") if role in rows.values}
        (found,) = attribution.words_behind(predictor, [texts])
        output = list(predictor.predict([attribution._as_input(texts)])[0]["probabilities"]).index(found["label"])
        proposed = attribution._proposed(predictor, texts, output)
        every = [
            attribution.Word(role, *match.span())
            for role, text in texts.items()
            for match in attribution.WORD.finditer(text[:3000])
        ]
        best = sorted(found["words"], key=lambda word: -word["effect"])[:TOGETHER]
        if len(every) < 2 * TOGETHER or not best:
            continue
        chosen = {
            "effect": [attribution.Word(word["role"], word["start"], word["end"]) for word in best],
            "gradient": proposed[:TOGETHER],
            "random": [every[at] for at in generator.choice(len(every), TOGETHER, replace=False)],
        }
        for name, words in chosen.items():
            shorter = without(texts, words)
            after = predictor.predict([attribution._as_input(shorter)])[0]["probabilities"][found["label"]]
            drops[name].append(found["score"] - after)
    return len(drops["random"]), {name: float(np.mean(values)) for name, values in drops.items()}


def without(texts: dict[str, str], words: list[Any]) -> dict[str, str]:
    shorter = dict(texts)
    for word in sorted(words, key=lambda word: -word.start):
        text = shorter[word.role]
        shorter[word.role] = " ".join(f"{text[: word.start]} {text[word.end :]}".split()) or " "
    return shorter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=100)
    arguments = parser.parse_args()
    facts = machine()
    lines = ["# Words behind predictions, checked by leaving them out", "", heading(facts), ""]
    lines += [
        f"The mean fall of the predicted probability without {TOGETHER} words of a text.",
        "",
        "| run | texts | largest effect alone | largest gradient times input | at random |",
        "|---" * 5 + "|",
    ]
    for run in arguments.runs:
        number, drops = measured(run, arguments.rows)
        lines.append(f"| {run.name} | {number} | {' | '.join(f'{drop:.3f}' for drop in drops.values())} |")
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-attributions.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
