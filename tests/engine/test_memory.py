"""The token budget of a CPU: what is fast, less where memory is short, and what was asked for in any case."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
from tiny import tiny_config

from fasttune.engine.memory import choose_tokens_per_microbatch

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
