"""Runs with a report, for the tests of the page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hostile_texts import HOSTILE
from tiny import write_jsonl

import fasttune
from fasttune.report.page import write_report
from fasttune.runs.folder import RunFolder, read_json, write_json


def fit(model: Path, folder: Path, rows: list[dict[str, Any]], **recipe: Any) -> RunFolder:
    data = write_jsonl(folder / "rows.jsonl", rows)
    made = {
        "model": str(model),
        "data": {"train": str(data), "validation_fraction": 0.4},
        "training": {"preset": "tutorial", "num_train_epochs": 1, "precision": "fp32", "learning_rate": 3e-3},
        **recipe,
    }
    return RunFolder(fasttune.fit(made, output=folder / "run", progress=False).folder)


def with_hostile_texts(run: RunFolder, folder: Path) -> RunFolder:
    """A copy of a run whose texts, labels, notes, warnings and reasons are all hostile."""
    copy = RunFolder(folder / "<b>run</b> & 'more'")
    shutil.copytree(run.path, copy.path)
    analysis, data, environment = (read_json(path) for path in (copy.analysis, copy.data_report, copy.environment))
    mistake, label = analysis["mistakes"][0], analysis["by_label"][0]
    similar = {"place": "row 1", "similarity": 0.9}
    analysis["mistakes"] = [
        {
            **mistake,
            **dict.fromkeys(("id", "place", "label", "prediction"), text),
            "inputs": {"text": text},
            "similar": [{**similar, "text": text, "label": text}],
        }
        for text in HOSTILE
    ]
    analysis["suspects"] = [
        {"loss": 2.0, **dict.fromkeys(("id", "place", "text", "label", "suggestion"), text)} for text in HOSTILE
    ]
    analysis["by_label"] = [{**label, "name": text} for text in HOSTILE]
    analysis["confusions"] |= {"names": list(HOSTILE[:12]), "counts": [[3] * 12] * 12}
    data["notes"] = list(HOSTILE)
    data["warnings"] = [
        {"code": "W250", "where": text, "found": text, "expected": "", "hint": text} for text in HOSTILE
    ]
    environment |= {text: {"value": text, "reason": text} for text in HOSTILE}
    for path, content in ((copy.analysis, analysis), (copy.data_report, data), (copy.environment, environment)):
        write_json(path, content)
    write_report(copy)
    return copy
