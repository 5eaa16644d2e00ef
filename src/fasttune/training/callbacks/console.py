"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TextIO, cast

import psutil
from rich.progress import BarColumn, Progress, TextColumn

from fasttune.security.terminal import Terminal
from fasttune.training.events import (
    Evaluated,
    Event,
    Finished,
    LossSpike,
    NotMirrored,
    OutOfMemory,
    Replanned,
    RolledBack,
    RowSkipped,
    SaveDone,
    Skipped,
    Started,
    StepDone,
)
from fasttune.training.signals import silence

WINDOW = 50  # steps over which speed is averaged


def gigabytes_in_use() -> float:
    """Memory allocated on the GPU, or resident in this process if it trains on the CPU."""
    import torch

    on_gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return (on_gpu or psutil.Process().memory_info().rss) / 1e9  # 0 on a machine with a GPU that trains on its CPU


def clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class BrokenPipeSafe:
    """stderr, except that training survives when its reader goes away (a lost terminal, a closed pipe)."""

    def write(self, text: str) -> int:
        try:
            return sys.stderr.write(text)
        except OSError:
            silence(2)
            return len(text)

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except OSError:
            silence(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class ConsoleLog:
    """An observer that prints; `terminal=None` detects whether stderr is a terminal."""

    def __init__(self, logging_steps: int, terminal: bool | None = None):
        self.console = Terminal(file=cast(TextIO, BrokenPipeSafe()), soft_wrap=True)
        self.logging_steps = logging_steps
        self.num_steps = 0
        self.recent: deque[StepDone] = deque(maxlen=WINDOW)
        self.losses: list[float] = []
        self.progress: Progress | None = None
        if sys.stderr.isatty() if terminal is None else terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            self.progress = Progress(*columns, console=self.console, transient=True)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.start(event)
        elif isinstance(event, StepDone):
            self.step(event)
        elif isinstance(event, OutOfMemory):
            tokens = f"{event.tokens_per_microbatch:,} tokens per micro-batch"
            self.log(f"out of memory: continuing with {tokens} ({event.reason})")
        elif isinstance(event, Replanned):
            self.num_steps = event.num_steps
            if self.progress:
                self.progress.update(self.bar, total=event.num_steps)
        elif isinstance(event, RowSkipped):
            self.log(f"warning: skipped row: {event.row}")
        elif isinstance(event, LossSpike):
            self.log(f"warning: loss {event.loss:.4g} at step {event.step}, average before {event.average:.4g}")
        elif isinstance(event, RolledBack):
            self.log(f"training diverged at step {event.skipped}: resuming from step {event.step} without that batch")
        elif isinstance(event, Skipped):
            self.log(f"skipping step {event.step}, on which training diverged before")
        elif isinstance(event, NotMirrored):
            self.log(f"warning: the mirror is behind: {event.failure}")
        elif isinstance(event, SaveDone) and event.failure is not None:
            self.log(f"warning: could not write the checkpoint of step {event.step}, retrying: {event.failure}")
        elif isinstance(event, Evaluated):
            self.log(" | ".join(evaluation_words(event)))
        elif isinstance(event, Finished):
            self.close()
            self.log(f"training ended at step {event.step} of {self.num_steps}: {event.reason}")

    def log(self, line: str) -> None:
        self.console.print(line)

    def start(self, event: Started) -> None:
        self.num_steps = event.num_steps
        resumed = f", resuming after step {event.step}" if event.step else ""
        steps = f"{event.num_steps:,} steps of {event.batch_size}"
        self.log(f"training: {event.num_examples:,} examples, {steps}{resumed}")
        if self.progress:
            self.bar = self.progress.add_task("training", total=event.num_steps, completed=event.step, status="")
            self.progress.start()

    def step(self, event: StepDone) -> None:
        self.recent.append(event)
        self.losses.append(event.loss)
        if self.progress:
            # rich redraws the bar at most ten times a second, however fast the steps are.
            self.progress.update(self.bar, completed=event.step, status=self.status(event))
        if event.step % self.logging_steps == 0 or event.step == self.num_steps:
            if not self.progress:
                self.log(f"step {event.step}/{self.num_steps} | {self.status(event)}")
            self.losses.clear()

    def status(self, event: StepDone) -> str:
        """Mean loss since the last report, real tokens per second, time left, memory."""
        seconds = sum(step.seconds for step in self.recent)
        speed = sum(step.num_tokens for step in self.recent) / max(seconds, 1e-9)
        left = (self.num_steps - event.step) * seconds / len(self.recent)
        loss = sum(self.losses) / len(self.losses)
        return (
            f"epoch {event.epoch:.2f} | loss {loss:.4f} | lr {event.learning_rate:.1e} | {speed:,.0f} tokens/s"
            f" | {clock(left)} left | {gigabytes_in_use():.1f} GB"
        )

    def close(self) -> None:
        if self.progress:
            self.progress.stop()


def evaluation_words(event: Evaluated) -> Iterator[str]:
    yield f"evaluation at step {event.step}, epoch {event.epoch:.2f}"
    other = ("eval_samples", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    for name, value in event.metrics.items():
        if name not in other:
            yield f"{name.removeprefix('eval_')} {value:.4f}"
    if event.is_best:
        yield "best so far"
