"""The count of arithmetic against one by hand, and the machine's peak: measured once, in bounded time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny import tiny_config

import fasttune
from fasttune.training import finalize, flops
from fasttune.training.flops import frozen_flops, measured_peak, peak_flops, training_flops

WIDTH, INNER, LAYERS, CLASSES = 32, 64, 2, 2


def test_a_tiny_bert_by_hand() -> None:
    model = transformers.BertForSequenceClassification(tiny_config(num_labels=CLASSES))
    attention = 4 * (WIDTH * WIDTH + WIDTH)  # query, key, value, output
    feed_forward = WIDTH * INNER + INNER + INNER * WIDTH + WIDTH
    norms = 2 * 2 * WIDTH
    pooler_and_head = WIDTH * WIDTH + WIDTH + WIDTH * CLASSES + CLASSES
    parameters = LAYERS * (attention + feed_forward + norms) + pooler_and_head
    lengths = np.array([3, 5, 20])
    attended = 9 + 25 + 400
    expected = 6 * parameters * 28 + 12 * LAYERS * WIDTH * attended
    assert training_flops(model, lengths) == expected


def test_frozen_layers_take_the_parameters_and_attention_of_their_share() -> None:
    model = transformers.BertForSequenceClassification(tiny_config(num_labels=CLASSES))
    layer = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH * INNER + INNER + WIDTH + 2 * 2 * WIDTH
    lengths = np.array([3, 5, 20])
    assert frozen_flops(model, lengths, 0) == 0
    assert frozen_flops(model, lengths, 1) == 6 * layer * 28 + 12 * WIDTH * (9 + 25 + 400)
    assert frozen_flops(model, lengths, 2) == 2 * frozen_flops(model, lengths, 1)


def test_it_adds_up_over_sequences_and_knows_no_padding() -> None:
    model = transformers.BertForSequenceClassification(tiny_config())
    whole = training_flops(model, np.array([3, 5, 20]))
    assert whole == sum(training_flops(model, np.array([length])) for length in (3, 5, 20))
    assert whole < training_flops(model, np.array([20, 20, 20]))


def test_a_device_that_emulates_the_precision_is_measured_by_one_small_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(100))  # each product takes a second
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(clock))
    assert measured_peak(torch.device("cpu"), "bf16") == 2 * flops.SMALLEST_PRODUCT**3
    assert next(clock) == 2 * flops.PROBE_REPEATS


def test_a_fast_device_is_measured_by_the_largest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flops.LARGEST_PRODUCT, "cpu", 2 * flops.SMALLEST_PRODUCT)
    clock = iter(range(100))
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(clock) * 1e-4)
    largest = 2 * (2 * flops.SMALLEST_PRODUCT) ** 3
    assert measured_peak(torch.device("cpu"), "fp32") == pytest.approx(largest / 1e-4)


def test_the_peak_is_measured_once_for_each_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(device: torch.device, precision: str) -> float:
        measured.append(precision)
        return 7e9 + len(measured)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(flops, "measured_peak", measure)
    device = torch.device("cpu")
    found = [peak_flops(device, precision) for precision in ("fp32", "bf16", "fp32", "bf16")]
    assert (found, measured) == ([7e9 + 1, 7e9 + 2] * 2, ["fp32", "bf16"])
    for path in (tmp_path / "fasttune" / "peak").iterdir():
        path.write_text("{")
    assert peak_flops(device, "fp32") == 7e9 + 3, "a damaged file is measured again"


def test_mfu_is_left_out_of_a_run_too_short_to_tell(
    recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["training"]["max_steps"] = 2
    assert "train_mfu" not in fasttune.fit(recipe, output=tmp_path / "short", progress=False).metrics
    monkeypatch.setattr(finalize, "MEASURABLE_FLOPS", 0)
    monkeypatch.setattr(finalize, "peak_flops", lambda device, precision: 1e9)
    metrics = fasttune.fit(recipe, output=tmp_path / "long", progress=False).metrics
    assert metrics["train_mfu"] == pytest.approx(metrics["total_flos"] / metrics["train_runtime"] / 1e9)
