"""What accelerate's configuration asks for, and whole tensors of a model in shares."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest

from fasttune.errors import EnvironmentProblem
from fasttune.training import zero
from fasttune.training.wrapping import check_configuration, choose_parallel

SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}


def chosen(
    monkeypatch: pytest.MonkeyPatch, num_processes: int, environment: dict[str, str], scaler: object = None
) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    accelerator: Any = SimpleNamespace(num_processes=num_processes, scaler=scaler)
    return choose_parallel(accelerator).value


@pytest.mark.parametrize(
    ("num_processes", "environment", "expected"),
    [
        (1, SHARDED, "one process"),
        (1, ZERO, "one process"),
        (2, {}, "DDP"),
        (2, SHARDED, "FSDP2"),
        (2, {"ACCELERATE_USE_FSDP": "false"}, "DDP"),
        (2, ZERO, "ZeRO-2"),
        (2, {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "ZeRO-1"),
    ],
)
def test_the_launcher_decides(
    monkeypatch: pytest.MonkeyPatch, num_processes: int, environment: dict[str, str], expected: str
) -> None:
    assert chosen(monkeypatch, num_processes, environment) == expected


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "ZeRO-3 of DeepSpeed"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device: cpu"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "a deepspeed_config_file"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP1"),
        ({**SHARDED, "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({**SHARDED, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing"),
    ],
)
def test_what_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"E543 accelerate's configuration: found {words}"):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        check_configuration()


@pytest.mark.parametrize(("installed", "words"), [(None, "is not installed"), ("0.14.5", "is 0.14.5")])
def test_a_deepspeed_that_is_missing_or_old(monkeypatch: pytest.MonkeyPatch, installed: str | None, words: str) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(zero, "version", version)
    with pytest.raises(EnvironmentProblem, match=rf"(?s)found DeepSpeed, which {words}.*deepspeed"):
        for name, value in ZERO.items():
            monkeypatch.setenv(name, value)
        check_configuration()


def test_zero_does_not_scale_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentProblem, match="found fp16 with DeepSpeed"):
        chosen(monkeypatch, 2, ZERO, scaler=object())
