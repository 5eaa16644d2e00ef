"""`fasttune doctor`: what is wrong with a machine, before a run finds out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import make_rows, save_tiny_model, write_csv

from fasttune.cli import commands as cli
from fasttune.cli import doctor
from fasttune.cli.doctor import FAILURE, OK, WARNING, Finding
from fasttune.security import floors


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


@pytest.mark.slow
def test_a_sound_machine(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["doctor", "--json"]) == 0
    found = [Finding(**json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert {finding.name for finding in found} >= {
        "python", "packages", "runs", "fasttune cache", "hub cache", "temporary files", "memory", "device",
        "shared memory", "compiled kernels", "self-test",
    }  # fmt: skip
    assert not [finding for finding in found if finding.state == FAILURE]
    assert "4 steps, a checkpoint, an evaluation and 1 prediction in" in named(found, "self-test").found
    assert list(tmp_path.iterdir()) == []


def installed_with(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    real = floors.version_of
    for module in (doctor, floors):
        monkeypatch.setattr(module, "version_of", lambda name: versions[name] if name in versions else real(name))
    monkeypatch.setattr(floors, "is_too_old", floors.is_too_old.__wrapped__)
    monkeypatch.setattr(doctor, "is_too_old", floors.is_too_old)


def test_an_unsafe_or_unfit_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_with(monkeypatch, {"torch": "2.5.1", "rich": None})
    found = [finding for finding in doctor.packages() if finding.state == FAILURE]
    assert sorted((finding.name, finding.found) for finding in found) == [
        ("rich", "not installed; >=14 is required"),
        ("torch", "2.5.1; <2.15,>=2.11 is required"),
        ("torch", "2.5.1; versions below 2.10 are unsafe"),
    ]
    assert found[-1].hint == "pip install 'torch>=2.10'"


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("PyYAML", ["check", "recipe.yaml"]),
        ("fsspec", ["check", "memory://rows.csv"]),
        ("fsspec", ["check", "org/rows:train"]),
        ("transformers", ["check", "recipe.yaml"]),
        ("safetensors", ["check", "recipe.yaml"]),
    ],
)
def test_nothing_is_read_with_an_unsafe_package(
    package: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_tiny_model(tmp_path / "model")
    write_csv(tmp_path / "rows.csv", make_rows(40))
    Path("recipe.yaml").write_text(f"model: {model}\ndata: {{train: rows.csv}}\n")
    installed_with(monkeypatch, {package: "0.1"})
    assert cli.run(command) == 5
    assert f"E504 package {package}: found version 0.1" in capsys.readouterr().err


def test_a_failure_is_exit_code_5(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    broken = Finding("runs", FAILURE, "/runs cannot be written (Read-only file system)", "chmod u+w /runs")
    monkeypatch.setattr(doctor, "examine", lambda: iter([Finding("python", OK, "3.13"), broken]))
    assert cli.run(["doctor"]) == 5
    assert capsys.readouterr().out == (
        "ok       python            3.13\n"
        "FAILURE  runs              /runs cannot be written (Read-only file system)\n"
        "                           hint: chmod u+w /runs\n"
    )


def test_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9, total=6.4e7))
    found = list(doctor.places())
    assert {finding.state for finding in found} == {WARNING} and "1.0 GB free" in found[0].found
    if Path("/dev/shm").is_dir():
        assert doctor.shared_memory().found == "64 MB in /dev/shm"


def test_a_place_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert {finding.state for finding in doctor.places()} == {FAILURE}


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [(None, "torch was built without CUDA"), ("13.0", "its driver is missing or too old for CUDA 13.0")],
)
def test_a_card_that_torch_cannot_use_is_said(cuda: str | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if doctor.torch.cuda.is_available():
        pytest.skip("torch can use it")
    monkeypatch.setattr(doctor.torch.version, "cuda", cuda)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    found = doctor.device()
    assert found.state == WARNING and f"an NVIDIA GPU is present, but {reason}" in found.found
