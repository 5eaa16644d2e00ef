"""Events on disk: one JSON object a line, and TensorBoard's curves."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

from fasttune.engine.events import Evaluated, Event, StepDone
from fasttune.run_folder import write_text


class EventLog:
    """Appends to events.jsonl; a line is complete before the next event happens."""

    def __init__(self, path: Path, resumed_step: int | None):
        """`resumed_step`: the run goes on from there, and later lines of the lost part are dropped; None: a new run."""
        if path.exists():
            kept = [] if resumed_step is None else kept_lines(path.read_text(encoding="utf-8"), resumed_step)
            write_text(path, "".join(line + "\n" for line in kept))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        self.write(event.to_dict())

    def write(self, line: dict[str, Any]) -> None:
        line = {**line, "time": round(time.time(), 3)}
        self.file.write(json.dumps({key: as_json(value) for key, value in line.items()}, ensure_ascii=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def as_json(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite is written as its name."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def kept_lines(text: str, step: int) -> list[str]:
    """Lines up to `step`; a last line that a kill cut short is dropped."""
    kept = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("step", 0) <= step and event.get("event") != "end":
            kept.append(line)
    return kept


def has_tensorboard() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


class TensorBoard:
    """Training curves every `logging_steps`, evaluations when they come."""

    def __init__(self, folder: Path, logging_steps: int, resumed_step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        # Points after the step resumed from are purged, as lines are in events.jsonl; that step itself stays.
        self.writer = SummaryWriter(str(folder), purge_step=None if resumed_step is None else resumed_step + 1)
        self.logging_steps = logging_steps

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step % self.logging_steps == 0:
            for name in ("loss", "learning_rate", "grad_norm"):
                self.writer.add_scalar(f"train/{name}", getattr(event, name), event.step)
            self.writer.add_scalar("train/tokens_per_second", event.num_tokens / event.seconds, event.step)
        elif isinstance(event, Evaluated):
            for name, value in event.metrics.items():
                self.writer.add_scalar(f"eval/{name.removeprefix('eval_')}", value, event.step)

    def close(self) -> None:
        self.writer.close()
