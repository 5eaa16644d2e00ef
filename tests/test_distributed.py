"""Waiting for other processes, and what of a launcher's environment is not accelerate's to act on."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch

from fasttune import distributed
from fasttune.distributed import Meeting, join, launcher_asks, make_accelerator
from fasttune.errors import EnvironmentProblem


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> Meeting:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "SIGN_OF_LIFE", 0.05)
    monkeypatch.setattr(distributed, "SILENCE", 0.3)
    return Meeting(torch.distributed.HashStore(), rank=0, num_processes=2)


def test_a_process_that_stops_giving_signs_of_life(first_of_two: Meeting) -> None:
    first_of_two.store.set("alive/1", "7")  # its last
    with pytest.raises(EnvironmentProblem, match=r"E540 .*no sign of life from process 1"):
        first_of_two.exchange("here", timedelta(seconds=60))


def test_a_process_that_is_slow_and_alive_is_waited_for(first_of_two: Meeting) -> None:
    Meeting(first_of_two.store, rank=1, num_processes=2).begin_to_live()
    with pytest.raises(EnvironmentProblem, match=r"E540 .*no word from process 1 within 1 s"):
        first_of_two.exchange("here", timedelta(seconds=1))


@pytest.mark.parametrize("variable", distributed.LAUNCHERS)
def test_one_process_keeps_what_a_launcher_says_from_accelerate(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "true")
    monkeypatch.setenv(f"FASTTUNE_{variable}", "false")  # so that it is put back
    join("cpu")
    assert variable not in os.environ and launcher_asks(variable)


def test_a_launcher_does_not_divide_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    weight = torch.nn.Parameter(torch.ones(1))
    make_accelerator("cpu", "fp32").backward((weight * 8).sum())
    assert weight.grad is not None and weight.grad.item() == 8
