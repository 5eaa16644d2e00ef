"""Memory of a CPU: the token budget is what is fast, less where it is short, or what was asked for; few programs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tiny import make_rows, tiny_config, tiny_tokenizer, write_csv

from fasttune.data.labels import Vocabulary
from fasttune.data.pipeline import read_splits
from fasttune.recipe import load
from fasttune.tasks import TASKS, TextClassification
from fasttune.tasks.targets import make_target
from fasttune.training import prepare
from fasttune.training.memory import FEW_PROGRAMS, choose_tokens_per_microbatch
from fasttune.training.setup import set_up

LARGE = tiny_config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16)
GIGABYTE = 10**9


@pytest.mark.parametrize(
    ("asked", "free", "precision", "expected"),
    [
        (700, GIGABYTE, "bf16", 700),
        ("auto", 64 * GIGABYTE, "bf16", 4096),
        ("auto", 8 * GIGABYTE, "bf16", 2906),  # 4e9 / (56 * 1024 * 24)
        ("auto", 8 * GIGABYTE, "fp32", 1849),  # 4e9 / (88 * 1024 * 24)
        ("auto", GIGABYTE // 10, "bf16", 512),
    ],
)
def test_half_of_the_free_memory_bounds_the_budget(
    monkeypatch: pytest.MonkeyPatch, asked: int | str, free: int, precision: str, expected: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    choice = choose_tokens_per_microbatch(asked, "cpu", precision, LARGE)
    assert choice.value == str(expected) and choice.reason


@pytest.mark.parametrize(("tokens_per_step", "kept"), [(2000, "24"), (100, None)])
def test_a_cpu_keeps_few_programs_unless_steps_are_short(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tokens_per_step: int, kept: str | None
) -> None:
    for name in FEW_PROGRAMS:
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "77")
    recipe = load({"data": {"train": "-"}, "training": {"device": "cpu", "precision": "fp32"}})
    task = TextClassification(make_target("single-label", Vocabulary(("a", "b"), {"a": 0, "b": 1}), recipe))
    set_up(recipe, str(tiny_model), task, tokens_per_step)
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == kept
    assert os.environ["LRU_CACHE_CAPACITY"] == "77", "what the user set stays"


def test_tokens_of_a_step_are_told_by_bytes(tiny_model: Path, tmp_path: Path) -> None:
    rows = make_rows(200, longest=60)
    path = write_csv(tmp_path / "rows.csv", [{**row, "text": row["text"].replace("w", "word")} for row in rows])
    recipe = load({"model": "embedded", "data": {"train": str(path)}})
    splits = read_splits(recipe, TASKS)
    tokens = tiny_tokenizer()([text.replace("word", "w") for text in splits.train.rows.values["text"]]).input_ids
    expected = recipe.training.batch_size * sum(map(len, tokens)) / len(tokens)
    assert expected / 2 < prepare.tokens_per_step(recipe, splits) < expected * 2
