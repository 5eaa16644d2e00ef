"""The Python of all documents runs: page by page, on a tiny model in place of the embedded one and the hub's."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_docs import blocks
from tiny import make_questions, make_rows, make_sentences, write_csv, write_jsonl

import fasttune

PAGES = sorted({page for page, _ in blocks("python")})
HUB_MODELS = re.compile(r'"google-bert/[\w-]+"')
# It starts two cold processes, which tests/processes/test_launch.py does.
ELSEWHERE = {"docs/guides/many-devices.md"}


@pytest.fixture
def place(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the pages name, and a run in runs/reviews."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fasttune.training.model.embedded_model_path", lambda: tiny_model)
    for number, name in enumerate(("reviews.csv", "more_reviews.csv")):
        write_csv(tmp_path / name, make_rows(60, seed=number))
    write_csv(tmp_path / "new_reviews.csv", [{"text": row["text"]} for row in make_rows(10, seed=3)])
    recipe = {"data": {"train": "reviews.csv", "test": "more_reviews.csv"}, "training": {"max_steps": 3}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(recipe))
    fasttune.fit("my.yaml", output="runs/reviews", progress=False)
    questions = {"data": {"train": str(write_jsonl(tmp_path / "train-v1.1.jsonl", make_questions(30, longest=20)))}}
    words = {"data": {"train": str(write_jsonl(tmp_path / "train.jsonl", make_sentences(30)))}}
    for task, data in (("question-answering", questions), ("token-classification", words)):
        how = {"training": {"max_steps": 2}, "preprocessing": {"doc_stride": 8} if data is questions else {}}
        run = "runs/train-v1.1" if data is questions else "runs/train"
        fasttune.fit({"task": task, **data, **how}, output=run, progress=False)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_the_python_of_a_page_runs(page: str, place: Path, tiny_model: Path) -> None:
    frame, other, new = (pd.DataFrame(make_rows(40, seed=seed)) for seed in (5, 6, 7))
    names = {"fasttune": fasttune, "frame": frame, "other_frame": other, "new_frame": new.drop(columns="label")}
    for number, (_, text) in enumerate((own, text) for own, text in blocks("python") if own == page):
        text = HUB_MODELS.sub(repr(str(tiny_model)), text).replace('"quickstart"', '"my.yaml"')
        exec(compile(text, f"{page}, block {number + 1}", "exec"), names)
    assert "__builtins__" in names, "a block of the page has run"


def test_no_page_is_left_out() -> None:
    assert set(PAGES) >= {"README.md", "README.zh-CN.md", "docs/guides/python.md", "docs/guides/add-a-task.md"}
    assert set(PAGES) >= ELSEWHERE
