"""What accelerate's configuration asks for, and whole tensors of a model in shares."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fasttune.errors import EnvironmentProblem
from fasttune.training.wrapping import check_configuration, choose_parallel

SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def chosen(monkeypatch: pytest.MonkeyPatch, num_processes: int, environment: dict[str, str]) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    accelerator: Any = SimpleNamespace(num_processes=num_processes)
    return choose_parallel(accelerator).value


@pytest.mark.parametrize(
    ("num_processes", "environment", "expected"),
    [
        (1, SHARDED, "one process"),
        (2, {}, "DDP"),
        (2, SHARDED, "FSDP2"),
        (2, {"ACCELERATE_USE_FSDP": "false"}, "DDP"),
    ],
)
def test_the_launcher_decides(
    monkeypatch: pytest.MonkeyPatch, num_processes: int, environment: dict[str, str], expected: str
) -> None:
    assert chosen(monkeypatch, num_processes, environment) == expected


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
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
