"""The model card says what a reader of the folder needs to know of its data."""

from __future__ import annotations

from pathlib import Path

import yaml
from tiny import make_rows, write_csv

import fasttune


def test_the_card_tells_rows_lengths_decisions_and_doubts(tmp_path: Path, tiny_model: Path) -> None:
    rows = make_rows(60)
    rows[7] = rows[3]
    rows[9] = {**rows[4], "label": "negative" if rows[4]["label"] == "positive" else "positive"}
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "rows.csv", rows)), "validation_fraction": 0.2},
        "training": {"max_steps": 2, "device": "cpu", "precision": "fp32"},
    }
    fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    card = (tmp_path / "run" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "text-classification"
    section = card.partition("## Data\n")[2].partition("\n## ")[0]
    assert "| train | 48 |" in section and "| validation | 12 |" in section
    assert "- validation: 12 rows (20%) held out of the training rows" in section
    assert "W258" in section and "W251" in section and "(`data.drop_duplicates=true`)" in section
    assert rows[3]["text"] not in section, "rows are named, not shown"
