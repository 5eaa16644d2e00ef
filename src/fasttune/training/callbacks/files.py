"""Events on disk: events.jsonl, and curves for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.runs.folder import write_text
from fasttune.security.text import json_text
from fasttune.training.events import Diverged, Evaluated, Event, RolledBack, StepDone

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class EventLog:
    """Appends one JSON object per event to events.jsonl; each line is complete before the next event.

    If the disk is full or broken, training continues, and the lines are written once the disk accepts them again.
    """

    def __init__(self, path: Path | None, resumed_step: int | None, log: Callable[[str], None] = lambda line: None):
        """`path` None writes nothing. `resumed_step`: where a resumed run starts; later lines are dropped."""
        self.path, self.log = path, log
        self.file: FileIO | None = None
        self.waiting, self.is_failing = b"", False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open(resumed_step)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RolledBack) and self.file is not None:
            self._drop_lines_after(event.step)
        line = event.to_dict()
        if isinstance(event, Diverged):  # JSON has no nan and inf, and here the difference matters
            line = {key: str(value) if isinstance(value, float) else value for key, value in line.items()}
        self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        if self.file is None:
            return
        line = {**line, "time": round(time.time(), 3)}
        text = json_text({key: as_json(value) for key, value in line.items()}) + "\n"
        self.waiting += text.encode()
        self._flush()

    def _flush(self) -> None:
        assert self.file is not None
        try:
            while self.waiting:
                self.waiting = self.waiting[self.file.write(self.waiting) :]
        except OSError as error:
            if not self.is_failing:
                self.log(f"warning: could not write {self.path} ({error.strerror}); retrying with each event")
            self.is_failing = True
        else:
            self.is_failing = False

    def close(self) -> None:
        if self.file is not None:
            self._flush()
            self.file.close()

    def _drop_lines_after(self, step: int) -> None:
        """If the disk refuses, the lines stay; the `rolled_back` event after them marks them as undone."""
        assert self.file is not None
        self.waiting = b""
        with suppress(OSError):
            self.file.close()
            self._open(step)
        if self.file.closed:
            assert self.path is not None
            self.file = FileIO(self.path, "a")

    def _open(self, resumed_step: int | None) -> None:
        assert self.path is not None
        if self.path.exists():
            kept = [] if resumed_step is None else kept_lines(self.path.read_text(encoding="utf-8"), resumed_step)
            write_text(self.path, "".join(line + "\n" for line in kept))
        self.file = FileIO(self.path, "a")


def as_json(value: Any) -> Any:
    """The value, or None for a number that is not finite: JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def kept_lines(text: str, step: int) -> list[str]:
    """Lines up to `step`, and all `diverged` events; drops a last line that a kill cut short."""
    kept = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == Diverged.name or (event.get("step", 0) <= step and event.get("event") != "end"):
            kept.append(line)
    return kept


def has_tensorboard() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


class TensorBoard:
    """Writes training curves every `logging_steps` steps, and each evaluation."""

    def __init__(
        self,
        folder: Path,
        logging_steps: int,
        resumed_step: int | None,
        log: Callable[[str], None] = lambda line: None,
    ):
        self.folder, self.logging_steps, self.log, self.is_failing = str(folder), logging_steps, log, False
        self.writer = self._opened(resumed_step)

    def _opened(self, resumed_step: int | None) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        # Points after the step resumed from are purged, as lines are in events.jsonl; that step itself stays.
        return SummaryWriter(self.folder, purge_step=None if resumed_step is None else resumed_step + 1)

    def __call__(self, event: Event) -> None:
        if self.is_failing:
            return
        try:
            self._write(event)
        except OSError as error:  # its writer thread has ended
            self.is_failing = True
            self.log(f"warning: could not write TensorBoard's file ({error.strerror}); no more curves")

    def _write(self, event: Event) -> None:
        if isinstance(event, RolledBack):
            self.writer.close()
            self.writer = self._opened(event.step)
        elif isinstance(event, StepDone) and event.step % self.logging_steps == 0:
            for name in ("loss", "learning_rate", "grad_norm"):
                self.writer.add_scalar(f"train/{name}", getattr(event, name), event.step)
            self.writer.add_scalar("train/tokens_per_second", event.num_tokens / event.seconds, event.step)
        elif isinstance(event, Evaluated):
            for name, value in event.metrics.items():
                self.writer.add_scalar(f"eval/{name.removeprefix('eval_')}", value, event.step)

    def close(self) -> None:
        with suppress(OSError):  # reported before, or only the last points are lost
            self.writer.close()
