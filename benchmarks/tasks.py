"""Score each task on published data with the embedded model: one line per measurement, scores only.

    python benchmarks/tasks.py [--only squad_v2 weibo_ner ...]

Data are located as in sides.py. The project includes no Chinese weights, so for Chinese a model is made here: the
embedded encoder with a vocabulary of the characters of the training texts, whose embeddings are drawn at random. It
shows that the code path works, not what a Chinese model reaches. Measurements in the day's result file are not
repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sides import REAL_DATA, ROOT, YELP, heading, machine

Recipe = dict[str, Any]
LONG_SHARE = 0.1


def trained(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Scores of the best epoch on the validation rows."""
    import fasttune

    run = fasttune.fit({"tracking": {"report_to": "none"}, **recipe}, output=folder / "run")
    skipped = ("runtime", "per_second", "loss")
    return {
        name.removeprefix("eval_"): value
        for name, value in run.metrics.items()
        if name.startswith("eval_") and not any(part in name for part in skipped)
    }


def files(name: str, train: str, validation: str) -> dict[str, str]:
    return {"train": str(REAL_DATA / name / train), "validation": str(REAL_DATA / name / validation)}


def save_chinese_model(folder: Path, texts: Iterable[str]) -> str:
    import torch
    import transformers

    from fasttune.data.starter.model import embedded_model_path

    counts = Counter(character for text in texts for character in text if not character.isspace())
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(one for one, count in counts.most_common() if count > 1)]
    tokenizer = transformers.BertTokenizer(
        vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, model_max_length=512
    )
    torch.manual_seed(0)
    model = transformers.AutoModel.from_pretrained(embedded_model_path(), dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def squad_v2(folder: Path) -> dict[str, float]:
    """Train on twelve articles, evaluate on four; then raise the saved model's threshold by 1000."""
    import fasttune

    document = json.loads((REAL_DATA / "squad_v2" / "sixteen_articles.json").read_text())
    articles = sorted(document["data"], key=lambda article: article["title"])
    for name, part in (("train", articles[:12]), ("validation", articles[12:])):
        (folder / f"{name}.json").write_text(json.dumps({"version": "v2.0", "data": part}))
    recipe = {
        "task": "question-answering",
        "data": {name: str(folder / f"{name}.json") for name in ("train", "validation")},
        "training": {"batch_size": 16, "learning_rate": 1e-4, "num_train_epochs": 2, "warmup_steps": 0.1},
    }
    scores = trained(recipe, folder)
    threshold = json.loads((folder / "run" / "config.json").read_text())["null_score_diff_threshold"]
    changed = fasttune.evaluate(
        folder / "run", overrides=[f"evaluation.null_score_diff_threshold={threshold + 1000}"], split="validation"
    )
    return {**scores, "threshold": threshold, "NoAns_exact with threshold + 1000": changed["eval_NoAns_exact"]}


def weibo_ner(folder: Path) -> dict[str, float]:
    data = files("weibo_ner", "train.json", "dev.json")
    rows = [json.loads(line) for line in Path(data["train"]).read_text().splitlines()]
    recipe = {
        "task": "token-classification",
        "model": save_chinese_model(folder / "model", ("".join(row["text"]) for row in rows)),
        "data": {**data, "label_names": (REAL_DATA / "weibo_ner" / "labels.txt").read_text().split()},
        "training": {"batch_size": 16, "learning_rate": 5e-4, "num_train_epochs": 12, "warmup_steps": 0.1},
    }
    return trained(recipe, folder)


def chnsenticorp(folder: Path) -> dict[str, float]:
    """Use 3,000 of the 9,600 training rows; the published files have no header."""
    data = {}
    for name, file in (("train", "train.tsv"), ("validation", "dev.tsv")):
        lines = (REAL_DATA / "chnsenticorp" / file).read_text(encoding="utf-8-sig").splitlines()
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([["text", "label"], *(line.rsplit("\t", 1) for line in lines)])
        data[name] = str(folder / f"{name}.csv")
    recipe = {
        "model": save_chinese_model(folder / "model", Path(data["train"]).read_text(encoding="utf-8").splitlines()),
        "data": {**data, "max_train_samples": 3000},
        "preprocessing": {"max_length": 256},
        "training": {"batch_size": 16, "learning_rate": 3e-4, "num_train_epochs": 3, "warmup_steps": 0.1},
    }
    return trained(recipe, folder)


def goemotions(folder: Path) -> dict[str, float]:
    from fasttune import recipe as recipes

    own = recipes.load("goemotions", {"data": files("goemotions", "train.tsv", "dev.tsv")}).model_dump()
    own["evaluation"]["metrics"] = ["f1_micro", "f1_macro"]
    return trained(own, folder)


def stsb(folder: Path) -> dict[str, float]:
    from fasttune import recipe as recipes

    return trained(recipes.load("stsb", {"data": files("stsb", "train.tsv", "dev.tsv")}).model_dump(), folder)


def long_texts(how: str) -> Callable[[Path], dict[str, float]]:
    def run(folder: Path) -> dict[str, float]:
        """At most 128 tokens per sequence; train on 1,000 reviews, evaluate on the longest tenth of all reviews."""
        paths = [YELP / "train.jsonl", YELP / "validation.jsonl"]
        rows = sorted((line for path in paths for line in path.read_text().splitlines()), key=len)
        cut = len(rows) - int(len(rows) * LONG_SHARE)
        for name, part in (("train", rows[:cut]), ("validation", rows[cut:])):
            (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")
        recipe = {
            "data": {
                "train": str(folder / "train.jsonl"),
                "validation": str(folder / "validation.jsonl"),
                "max_train_samples": 1000,
            },
            "preprocessing": {"max_length": 128, "long_text": how},
            "training": {"batch_size": 16, "learning_rate": 1e-4, "num_train_epochs": 2},
        }
        return trained(recipe, folder)

    return run


MEASURES: dict[str, Callable[[Path], dict[str, float]]] = {
    "squad_v2": squad_v2,
    "weibo_ner": weibo_ner,
    "chnsenticorp": chnsenticorp,
    "long_text=truncate": long_texts("truncate"),
    "long_text=head_tail": long_texts("head_tail"),
    "long_text=windows": long_texts("windows"),
    "goemotions": goemotions,
    "stsb": stsb,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    arguments = parser.parse_args()
    facts = machine()
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-tasks"
    known = path.with_suffix(".json")
    found: dict[str, dict[str, float]] = json.loads(known.read_text()) if known.exists() else {}
    for name in arguments.only:
        if name in found:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name] = MEASURES[name](Path(folder))
        known.write_text(json.dumps(found, indent=1) + "\n")
        lines = [f"| {one} | {', '.join(f'{key} {value:.4g}' for key, value in found[one].items())} |" for one in found]
        head = [
            "# Scores of each task",
            "",
            heading(facts),
            "",
            "| measurement | best epoch, validation rows |",
            "|---|---|",
        ]
        path.with_suffix(".md").write_text("\n".join([*head, *lines]) + "\n")
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
