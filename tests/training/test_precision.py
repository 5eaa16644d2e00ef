"""The choice of device and precision, with its reason."""

from __future__ import annotations

import pytest
import torch

from fasttune.errors import EnvironmentProblem
from fasttune.training.precision import Choice, choose_device, choose_precision


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def has_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_is_taken() -> None:
    assert choose_device("auto") == Choice("cpu", "no GPU found")
    assert choose_device("cpu") == Choice("cpu", "asked for")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(EnvironmentProblem) as raised:
        choose_device(device)
    assert str(raised.value) == (
        f"E505 training.device: found {device}, which torch {torch.__version__} cannot use on this machine, "
        "expected one of cpu\n"
        "  hint: training.device=auto"
    )


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    has_cuda(monkeypatch, (9, 0), "H100")
    assert choose_device("auto") == Choice("cuda", "the fastest device available")
    assert choose_device("cpu") == Choice("cpu", "asked for")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, Choice("bf16", "this CPU has AMX")),
        ({"avx512_bf16": True, "amx_bf16": False}, Choice("bf16", "this CPU has AVX512_BF16")),
        ({"bf16": True}, Choice("bf16", "this CPU has Arm BF16")),
        ({"avx2": True}, Choice("fp32", "this CPU has no bf16 instructions")),
    ],
)
def test_a_cpu_takes_bf16_only_where_it_has_instructions_for_it(
    capabilities: dict, expected: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", "cpu") == expected
    assert choose_precision("fp32", "cpu") == Choice("fp32", "asked for")


@pytest.mark.parametrize(
    ("capability", "name", "expected"),
    [
        ((8, 0), "A100", Choice("bf16", "A100 supports bf16")),
        ((7, 5), "T4", Choice("fp16", "T4 has no bf16; fp16 with loss scaling")),
    ],
)
def test_a_gpu_takes_what_it_was_made_for(
    capability: tuple[int, int], name: str, expected: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_cuda(monkeypatch, capability, name)
    assert choose_precision("auto", "cuda") == expected
    assert choose_precision("fp16", "cuda") == Choice("fp16", "asked for")


def test_slow_bf16_is_done_and_said_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    reason = "asked for, but slow on this device (this CPU has no bf16 instructions)"
    assert choose_precision("bf16", "cpu") == Choice("bf16", reason)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_fp16_without_cuda_is_refused(device: str) -> None:
    with pytest.raises(EnvironmentProblem) as raised:
        choose_precision("fp16", device)
    assert str(raised.value) == (
        f"E310 training.precision: found fp16 on {device}, expected bf16 or fp32 on this device\n"
        "  hint: training.precision=auto"
    )
