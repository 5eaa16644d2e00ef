"""Planted wrong labels: are they found by out-of-fold loss, and by confident learning on the same probabilities?

    python benchmarks/wrong_labels.py [--shares 0.03 0.1] [--rows 1000]

Sets: the 4,000 generated reviews of the starter, and 1,000 rows each of Yelp reviews (5 stars) and MRPC pairs. In each,
a share of the training labels becomes another one, drawn at random; the published labels count as right. Three folds,
two epochs. Precision: of the rows ranked first, as many as were planted, the share that was planted. AUPRC: the area
under the curve of precision and recall.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sides import ROOT, heading, machine

SETS = ("starter", "yelp_review_full", "mrpc")


def rows_of(name: str, number: int) -> list[dict[str, Any]]:
    """The first training rows of a set, as the tool reads them."""
    from fasttune.data.pipeline import read_splits
    from fasttune.recipe import load as load_recipe
    from fasttune.tasks import TASKS

    data = Path(os.environ.get("FASTTUNE_REAL_DATA", ROOT / "../shared/data"))
    files = {"starter": "starter", "yelp_review_full": data / "yelp_review_full" / "train.jsonl"}
    source = files.get(name, data / name / "train.tsv")
    limit = None if name == "starter" else number  # fewer generated reviews are not learned in two epochs
    recipe = load_recipe({"data": {"train": str(source), "max_train_samples": limit}})
    rows = read_splits(recipe, TASKS).train.rows
    roles = [role for role in ("text", "text_pair") if role in rows.values]
    return [
        {**{role: rows.values[role][row] for role in roles}, "label": str(rows.values["label"][row])}
        for row in range(len(rows))
    ]


def measured(name: str, share: float, number: int) -> dict[str, float]:
    from cleanlab.rank import get_label_quality_scores
    from sklearn.metrics import average_precision_score

    import fasttune

    rows, generator = rows_of(name, number), np.random.default_rng(0)
    names = sorted({row["label"] for row in rows})
    planted = np.zeros(len(rows), dtype=bool)
    planted[generator.choice(len(rows), round(share * len(rows)), replace=False)] = True
    for row in np.flatnonzero(planted):
        rows[row]["label"] = str(generator.choice([one for one in names if one != rows[row]["label"]]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
        recipe = {
            "problem": "single-label",
            "data": {"train": str(path), "validation_fraction": 0.02, "label_names": names},
            "training": {"num_train_epochs": 2},
            "evaluation": {"baselines": False},
            "output": {"report": False},
            "tracking": {"report_to": "none"},
        }
        run = fasttune.fit(recipe, output=Path(folder) / "run", progress=False)
        ranked, _ = fasttune.rank_labels(run.folder, progress=False)
        losses = {int(one.row): one.loss for one in ranked}
        given = {}
        for fold in (run.folder / "labels").glob("fold-*.json"):
            given |= json.loads(fold.read_text())
        train = json.loads((run.folder / "data_report.json").read_text())["splits"]["train"]["num_rows"]
        assert train == len(ranked) == len(given)
        order = [int(one.row) for one in sorted(ranked, key=lambda one: int(one.row))]
    # Row numbers of the folds count training rows, which are in the order of the file.
    probabilities = np.array([[given[str(at)][one] for one in names] for at in range(len(order))])
    labels = np.array([names.index(rows[row]["label"]) for row in order])
    is_planted = planted[order]
    number_planted = int(is_planted.sum())
    scores = {
        "loss": np.array([losses[row] for row in order]),
        "confident learning": -confident_learning(labels, probabilities),
        "cleanlab, self-confidence": -get_label_quality_scores(labels, probabilities, method="self_confidence"),
        "cleanlab, margin": -get_label_quality_scores(labels, probabilities, method="normalized_margin"),
    }
    found: dict[str, float] = {"planted": number_planted}
    for method, score in scores.items():
        first = np.argsort(-score, kind="stable")[:number_planted]
        found[f"{method}: precision"] = float(is_planted[first].mean())
        found[f"{method}: AUPRC"] = float(average_precision_score(is_planted, score))
    return found


def confident_learning(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """A score of each row, low for those that confident learning (Northcutt et al., 2021) takes for wrong.

    cleanlab's own order: rows off the diagonal of the confident joint come first, by self-confidence.
    """
    from cleanlab.filter import find_label_issues

    is_issue = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    own = probabilities[np.arange(len(labels)), labels]
    return np.where(is_issue, own - 1, own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03, 0.1])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    arguments = parser.parse_args()
    facts = machine()
    lines = ["# Planted wrong labels, found out of fold", "", heading(facts), ""]
    lines += [
        f"{arguments.rows:,} training rows (the starter whole), three folds, two epochs, settings of auto otherwise, "
        "one draw of labels.",
        "",
        "| set | planted | method | precision at that rank | AUPRC |",
        "|---" * 5 + "|",
    ]
    name = "-".join(["wrong-labels", *(arguments.sets if arguments.sets != list(SETS) else ())])
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-{name}.md"
    for data in arguments.sets:
        for share in arguments.shares:
            found = measured(data, share, arguments.rows)
            for method in dict.fromkeys(key.partition(":")[0] for key in found if ":" in key):
                values = f"{found[f'{method}: precision']:.3f} | {found[f'{method}: AUPRC']:.3f}"
                lines.append(f"| {data} | {share:.0%}, {found['planted']:.0f} | {method} | {values} |")
                print(lines[-1], flush=True)
            path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
