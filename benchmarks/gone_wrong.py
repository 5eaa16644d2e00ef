"""Five runs made to go wrong: what their reports say, beside what is true.

    python benchmarks/gone_wrong.py --output FOLDER

Generated reviews and the embedded model. The reports stay in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

from sides import ROOT, heading, machine


def starter(number: int, seed: int) -> list[dict[str, Any]]:
    from fasttune.data.starter import reviews

    return reviews.generate(seed)["train"][:number]


def runs(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> what is true, and the recipe."""
    rng = random.Random(0)
    rows, held_out = starter(1000, 1), starter(400, 2)

    def data(name: str, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> dict[str, Any]:
        files = {}
        for split, written in (("train", train), ("validation", validation)):
            path = folder / f"{name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in written))
            files[split] = str(path)
        return files

    def flipped(row: dict[str, Any]) -> dict[str, Any]:
        names = sorted({one["label"] for one in rows})
        return {**row, "label": names[1 - names.index(row["label"])]}

    noisy = [flipped(row) if rng.random() < 0.08 else row for row in held_out]
    leaked = [*held_out[:200], *rng.sample(rows, 200)]
    long = [{**row, "text": f"{'We came on a Tuesday and stayed for a week. ' * 15}{row['text']}"} for row in rows]
    long_held_out = [
        {**row, "text": f"{'We came on a Tuesday and stayed for a week. ' * 15}{row['text']}"} for row in held_out
    ]
    fast = {"preset": "fast"}
    return {
        "overfitting": (
            "150 rows, 25 epochs: the validation loss rises after a few",
            {
                "data": data("overfitting", rows[:150], held_out),
                "training": {"num_train_epochs": 25, "learning_rate": 3e-4, "warmup_steps": 0.05},
            },
        ),
        "one class": (
            "a learning rate of 0.1: the model predicts one class",
            {"data": data("one", rows, held_out), "training": {"num_train_epochs": 1, "learning_rate": 0.1}},
        ),
        "leakage": (
            "half of the validation rows are training rows",
            {"data": data("leakage", rows, leaked), "training": fast},
        ),
        "wrong labels": (
            "8 % of the validation labels are wrong",
            {"data": data("wrong", starter(4000, 3), noisy), "training": fast},
        ),
        "truncation": (
            "what decides stands behind the 64 tokens that the model reads",
            {"data": data("truncation", long, long_held_out), "preprocessing": {"max_length": 64}, "training": fast},
        ),
    }


def said(page: Path) -> list[str]:
    """The summary of a report, and its list of what to know."""
    text = page.read_text("utf-8")
    part = text.partition('<section aria-labelledby="scores">')[2].partition('<h2 id="scores">')[0]
    found = re.findall(r"<li>(.*?)</li>|<p>(.*?)</p>", part, re.DOTALL)
    return [" ".join((item or paragraph).split()).replace("|", "\\|") for item, paragraph in found]


def suspected(run: Path, truth: dict[str, str]) -> str:
    """How many of the suspected labels of a run are wrong."""
    analysis = json.loads((run / "analysis.json").read_text())
    rows = map(json.loads, (run.parent / f"{run.name.split('-')[0]}-validation.jsonl").read_text().splitlines())
    texts = {row["id"]: row["text"] for row in rows}
    known = [one for one in analysis["suspects"] if texts.get(one["id"]) in truth]
    wrong = sum(truth[texts[one["id"]]] != one["label"] for one in known)
    return f"({len(known)} suspected labels, {wrong} of them wrong.)" if known else "(No suspected labels.)"


def main() -> None:
    import fasttune

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    facts = machine()
    lines = [
        "# Five runs made to go wrong",
        "",
        heading(facts),
        "",
        "| true | the report, and in brackets what is true of its suspected labels |",
        "|---|---|",
    ]
    for name, (truth, recipe) in runs(arguments.output).items():
        settings = {**recipe, "tracking": {"report_to": "none"}}
        run = fasttune.fit(settings, output=arguments.output / name.replace(" ", "-"), progress=False)
        found = suspected(run.folder, {row["text"]: row["label"] for row in starter(400, 2)})
        told = " ".join(said(run.folder / "report.html")).replace(f"{arguments.output}/", "")
        lines.append(f"| {name}: {truth} | {told} {found} |")
        print(lines[-1], flush=True)
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-gone-wrong.md"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
