"""The energy of a run, from counters as Linux has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fasttune.training.callbacks.energy import EnergyMeter
from fasttune.training.events import Evaluated, Started
from fasttune.training.loop import TrainState

STARTED = Started(step=0, epoch=0.0, num_steps=1, num_examples=8, batch_size=8, num_processes=1)
LATER = Evaluated(step=1, epoch=1.0, metrics={}, is_best=True)


def counters(folder: Path, **packages: int) -> None:
    for name, value in packages.items():
        path = folder / name.replace("_", ":").replace("rapl:", "intel-rapl:")
        path.mkdir(parents=True, exist_ok=True)
        (path / "energy_uj").write_text(f"{value}\n")
        (path / "max_energy_range_uj").write_text("10000000\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    state = TrainState()
    meter = EnergyMeter(state, tmp_path / "none")
    meter(STARTED)
    meter(LATER)
    assert state.joules == 0.0
    counters(tmp_path, rapl_0=1_000_000, rapl_0_1=0, rapl_1=9_000_000)
    meter = EnergyMeter(state, tmp_path)
    meter(STARTED)
    counters(tmp_path, rapl_0=3_500_000, rapl_0_1=900_000, rapl_1=1_000_000)  # the second one began again at 0
    meter(LATER)
    assert state.joules == pytest.approx(2.5 + 2.0)
    meter(STARTED)  # of a resumed run: what was used between the sessions is not its own
    counters(tmp_path, rapl_0=4_500_000)
    meter(LATER)
    assert state.joules == pytest.approx(5.5)


def test_counters_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters(tmp_path, rapl_0=1)

    def refuse(*arguments: Any, **options: Any) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    state = TrainState()
    meter = EnergyMeter(state, tmp_path)
    assert meter(STARTED) is None and meter(LATER) is None and state.joules == 0.0
