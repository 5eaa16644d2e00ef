"""Waiting for other processes, and the launcher's variables that are hidden from accelerate."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from accelerate.utils import DistributedType

from fasttune.errors import EnvironmentProblem
from fasttune.parallel import launcher, rendezvous
from fasttune.parallel.launcher import launcher_requests, make_accelerator
from fasttune.parallel.rendezvous import RendezvousStore, init_process_group
from fasttune.training.model import load_model


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> RendezvousStore:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(rendezvous, "HEARTBEAT", 0.05)
    monkeypatch.setattr(rendezvous, "HEARTBEAT_TIMEOUT", 0.3)
    return RendezvousStore(torch.distributed.HashStore(), rank=0, num_processes=2)


def test_a_process_that_stops_giving_signs_of_life(first_of_two: RendezvousStore) -> None:
    first_of_two.store.set("alive/1", "7")  # its last heartbeat
    with pytest.raises(EnvironmentProblem, match=r"E540 .*no heartbeat from rank 1"):
        first_of_two.exchange("here", timedelta(seconds=60))


def test_a_process_that_is_slow_and_alive_is_waited_for(first_of_two: RendezvousStore) -> None:
    RendezvousStore(first_of_two.store, rank=1, num_processes=2).start_heartbeat()
    with pytest.raises(EnvironmentProblem, match=r"E540 .*rank 1 did not respond within 1 s"):
        first_of_two.exchange("here", timedelta(seconds=1))


@pytest.mark.parametrize("theirs", ["another key", ""])
def test_a_message_without_the_launch_s_key_is_refused(
    first_of_two: RendezvousStore, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent_with(key: str) -> None:
        monkeypatch.setenv("FASTTUNE_LAUNCH_KEY", key)
        first_of_two.store.set("1/1", rendezvous.signed("1/1", '"their recipe"'))
        monkeypatch.setenv("FASTTUNE_LAUNCH_KEY", "our key")

    sent_with("our key")
    assert first_of_two.exchange("ours") == ["ours", "their recipe"]
    first_of_two.num_rounds = 0
    sent_with(theirs)
    with pytest.raises(EnvironmentProblem, match=r"E540 .*a message from rank 1 is not signed with"):
        first_of_two.exchange("ours")


def test_a_signed_message_holds_at_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTTUNE_LAUNCH_KEY", "our key")
    message = rendezvous.signed("1/1", '"a recipe"').encode()
    assert rendezvous.verified("1/1", message) == '"a recipe"'
    assert rendezvous.verified("2/1", message) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert rendezvous.verified("1/1", message) is None


@pytest.mark.parametrize("variable", launcher.LAUNCHER_VARIABLES)
def test_accelerate_does_not_see_what_its_launcher_asks_and_other_libraries_do(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "true")
    init_process_group("cpu")
    accelerator = make_accelerator("cpu", "fp32")
    assert accelerator.distributed_type == DistributedType.NO
    assert os.environ[variable] == "true" and launcher_requests(variable)


def test_a_second_process_loads_its_weights_under_an_fsdp_launcher(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """transformers would load the weights in the first process only, and leave them on "meta" here."""
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda *_: 1)
    loaded = load_model(str(tiny_model), "AutoModelForSequenceClassification", {"num_labels": 2}, seed=0)
    assert not any(parameter.is_meta for parameter in loaded.model.parameters())
    assert loaded.model.base_model.embeddings.word_embeddings.weight.abs().sum() > 0
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"


def test_a_launcher_does_not_divide_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    weight = torch.nn.Parameter(torch.ones(1))
    make_accelerator("cpu", "fp32").backward((weight * 8).sum())
    assert weight.grad is not None and weight.grad.item() == 8
