"""Few rows per class, on generated news of four topics: fine-tuning beside logistic regression on the frozen encoder.

    python benchmarks/few_rows.py [--per-class 8 64] [--seeds 1 2 3 4 5]

Each seed draws its own training rows; all are scored on the same 400 others. The frozen encoder is the embedded model,
its features the mean of the tokens' vectors, as it was trained. No setting was chosen on these rows.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import warnings
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sides import ROOT, heading, machine

WORDS = {
    "place": ["Paris", "Cairo", "the capital", "the north", "Lima", "Oslo", "the border town", "Jakarta"],
    "day": ["on Monday", "late on Friday", "this week", "after months of delay", "for the third time", "in June"],
    "number": ["three", "a dozen", "forty", "two hundred", "nearly a thousand"],
    "who": ["officials", "a spokesman", "two witnesses", "the committee", "insiders", "local papers"],
}
TOPICS = {
    "world": [
        "{who} said {number} people fled the fighting near {place}",
        "the foreign ministers met in {place} {day} and signed no treaty",
        "voters in {place} chose a new parliament {day}",
        "a ceasefire held in {place}, {who} reported {day}",
        "the president of the country spoke to {number} diplomats in {place}",
        "flood water reached {place} and {number} villages were cut off",
        "{number} protesters were arrested outside the embassy {day}",
        "the peace talks in {place} opened without the rebels",
    ],
    "sports": [
        "the visitors scored {number} times in {place} {day}",
        "{who} confirmed that the striker will miss the cup final",
        "she broke the national record in {place} {day}",
        "the coach of {place} left after the defeat {day}",
        "a late goal in {place} decided the derby",
        "the champion lost in straight sets {day}",
        "{number} runners finished the marathon of {place} in the rain",
        "the captain signed for another season, {who} said",
    ],
    "business": [
        "shares in the maker of lifts fell {day} after the quarterly figures",
        "the bank of {place} raised interest rates {day}",
        "{who} said the merger would cost {number} jobs",
        "the retailer opened {number} branches in {place} and doubled its profit",
        "oil prices rose {day} as traders in {place} waited for the report",
        "the airline asked its creditors for more time {day}",
        "investors in {place} sold bonds {day}",
        "the carmaker closes its plant in {place}, {who} said",
    ],
    "science": [
        "researchers in {place} found {number} genes behind the disease",
        "the probe entered the orbit of the planet {day}",
        "a new version of the browser closes {number} holes, {who} said",
        "engineers in {place} built a chip that learns {day}",
        "the telescope near {place} saw a star explode {day}",
        "{number} computers in {place} were infected by the worm",
        "a vaccine from {place} protected {number} mice in the trial",
        "the search engine changes how it ranks pages, {who} said",
    ],
}
OPENINGS = ["", "", "update: ", "in short, ", "as expected, ", "report: "]
ENDINGS = [
    "",
    "",
    ", which surprised many",
    ", and nobody was ready for it",
    " while others looked on",
    " despite the weather",
]


def make_rows(num_rows: int, seed: int) -> list[dict[str, str]]:
    """Distinct rows, topics in turn."""
    rng, rows, seen = random.Random(seed), [], set()
    while len(rows) < num_rows:
        topic = list(TOPICS)[len(rows) % len(TOPICS)]
        words = {name: rng.choice(choices) for name, choices in WORDS.items()}
        text = rng.choice(OPENINGS) + rng.choice(TOPICS[topic]).format(**words) + rng.choice(ENDINGS)
        if text not in seen:
            seen.add(text)
            rows.append({"text": text, "label": topic})
    return rows


def write(path: Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def frozen_accuracy(train: list[dict[str, str]], test: list[dict[str, str]]) -> float:
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    from fasttune.data.starter.model import embedded_model_path

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path())
    model = AutoModel.from_pretrained(embedded_model_path()).eval()

    def features(rows: list[dict[str, str]]) -> Any:
        tokens = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        means = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(means, dim=1).numpy()

    labels = [[row["label"] for row in rows] for rows in (train, test)]
    regression = LogisticRegression(C=10, max_iter=1000).fit(features(train), labels[0])
    return float(regression.score(features(test), labels[1]))


def words_accuracy(train: list[dict[str, str]], test: list[dict[str, str]]) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = ([[row[name] for row in rows] for rows in (train, test)] for name in ("text", "label"))
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000))
    return float(model.fit(texts[0], labels[0]).score(texts[1], labels[1]))


def tuned_accuracy(folder: Path, train: str, test: str, seed: int, head: str) -> float:
    import fasttune

    recipe = {
        "model_head": head,
        "data": {"train": train, "validation": test},
        "training": {"seed": seed},
        "evaluation": {"eval_strategy": "no"},
        "output": {"save_strategy": "no"},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=folder / f"run-{head}-{seed}", progress=False)
    return float(run.metrics["eval_accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    facts = machine()
    test = make_rows(400, seed=0)
    known = {row["text"] for row in test}
    lines = [
        "# Few rows per class: generated news of four topics, accuracy on 400 others",
        "",
        heading(facts),
        "",
        "Embedded model, `training.preset: auto`, every setting its default. Frozen and TF-IDF: logistic regression",
        "(C = 10). Mean and standard deviation over the seeds, each with training rows of its own.",
        "",
        "| rows per class | TF-IDF | frozen, mean of tokens | fasttune | fasttune, model_head=mean |",
        "|---" * 5 + "|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test_path = write(folder / "test.csv", test)
        for per_class in arguments.per_class:
            scores: dict[str, list[float]] = {}
            for seed in arguments.seeds:
                candidates = make_rows(8 * len(TOPICS) * per_class, seed=seed)
                train = [row for row in candidates if row["text"] not in known][: 4 * per_class + 40]
                train = [row for topic in TOPICS for row in [r for r in train if r["label"] == topic][:per_class]]
                path = write(folder / f"train-{per_class}-{seed}.csv", train)
                run_folder = folder / str(per_class)
                found = {
                    "words": words_accuracy(train, test),
                    "frozen": frozen_accuracy(train, test),
                    "default": tuned_accuracy(run_folder, path, test_path, seed, "default"),
                    "mean": tuned_accuracy(run_folder, path, test_path, seed, "mean"),
                }
                print(per_class, seed, found, flush=True)
                for side, score in found.items():
                    scores.setdefault(side, []).append(score)
            cells = [f"{mean(values):.3f} ± {stdev(values):.3f}" for values in scores.values()]
            lines.append(f"| {per_class} | {' | '.join(cells)} |")
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-few-rows.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
