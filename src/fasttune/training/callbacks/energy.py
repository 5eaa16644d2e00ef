"""The energy that the machine's processors take while a run trains, where Linux tells it."""

from __future__ import annotations

from pathlib import Path

from fasttune.training.events import Event, Started
from fasttune.training.loop import TrainState

# Linux' power capping framework: one folder per processor package, with a counter in microjoules that returns to 0
# after max_energy_range_uj (Documentation/power/powercap/powercap.rst). Most systems let root alone read it.
POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds to `state.joules` what the packages take between two events, other programs of the machine included."""

    def __init__(self, state: TrainState, folder: Path = POWERCAP):
        self.state = state
        # intel-rapl:0 is a package (of AMD too), intel-rapl:0:1 a part of it.
        self.packages = [path for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self.before: dict[Path, int] = {}

    def __call__(self, event: Event) -> None:
        try:
            now = {package: int((package / "energy_uj").read_text()) for package in self.packages}
            if not isinstance(event, Started):
                for package, counter in now.items():
                    used = counter - self.before.get(package, counter)
                    if used < 0:
                        used += int((package / "max_energy_range_uj").read_text())
                    self.state.joules += used / 1e6
        except (OSError, ValueError):  # not allowed to read them, or no such counter: nothing is known
            self.packages = []
            return
        self.before = now
