"""Measure the cost of checkpoints: a run of twenty minutes at default settings, and a save of a BERT-base-sized model.

    python benchmarks/saves.py [--minutes 20]

The run trains the embedded model on Yelp rows for as many epochs as fit into the minutes. Training stands still while a
save blocks, and steps are slower while a checkpoint is being written. The latter is measured by the seconds per token
of steps that overlap a write, compared with all other steps. The BERT-base-sized model has random weights and moments;
its saves are timed alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from sides import ROOT, YELP, heading, machine, recipe_of

from fasttune.runs.checkpoint import Saved, Writer, newest_good
from fasttune.training.events import Event, SaveDone, SaveDue, StepDone

TOKENS_PER_SECOND = 3_600  # roughly, for the embedded model on two cores, to choose the number of epochs
NUM_ROWS, TOKENS_PER_ROW = 4_000, 170
WARM_UP = 10  # steps


class Watch:
    """An observer that records steps and saves with the time of their events."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, int]] = []  # end, seconds, tokens
        self.saves: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, StepDone):
            self.steps.append((now, event.seconds, event.num_tokens))
        elif isinstance(event, SaveDue):
            self.saves.append({"begin": now})
        elif isinstance(event, SaveDone):
            self.saves[-1] |= {"seconds": event.seconds, "blocking_seconds": event.blocking_seconds}


def a_long_run(folder: Path, minutes: float) -> dict[str, Any]:
    import fasttune

    epochs = max(round(minutes * 60 * TOKENS_PER_SECOND / TOKENS_PER_ROW / NUM_ROWS), 1)
    watch = Watch()
    recipe = recipe_of(YELP, 1, NUM_ROWS, 200, epochs)
    run = fasttune.fit(recipe, output=folder / "run", progress=False, observers=[watch])
    steps = watch.steps[WARM_UP:]
    # The write that the event reports lies between the copy and the last file.
    spans = [(save["begin"], save["begin"] + save["seconds"]) for save in watch.saves]

    def speed(of: list[tuple[float, float, int]]) -> float:
        return sum(seconds for _, seconds, _ in of) / max(sum(tokens for *_, tokens in of), 1)

    beside = [step for step in steps if any(step[0] - step[1] < end and step[0] > begin for begin, end in spans)]
    others = [step for step in steps if step not in beside]
    slowed = sum(tokens for *_, tokens in beside) * max(speed(beside) - speed(others), 0.0) if beside else 0.0
    blocking = sum(save["blocking_seconds"] for save in watch.saves)
    runtime = run.metrics["train_runtime"]
    return {
        "epochs": epochs,
        "train_runtime": runtime,
        "saves": watch.saves,
        "blocking_seconds": blocking,
        "steps_beside": len(beside),
        "slowed_seconds": slowed,
        "share": (blocking + slowed) / runtime,
    }


def a_large_model(folder: Path, saves: int = 5) -> list[dict[str, float]]:
    """Blocking and total seconds of each save."""
    model = transformers.BertModel(transformers.BertConfig())
    weights = model.state_dict()
    moments = {f"{key}.{name}": torch.randn_like(value) for name, value in weights.items() for key in ("a", "b")}
    reports: list[Saved] = []
    writer, found = Writer(folder, "a run", 2, reports.append), []
    writer.reserve({"model": weights, "optimizer": moments})  # as after the first step of a run
    writer.wait()
    for step in range(1, saves + 1):
        blocking = writer.save(step, {"model": weights, "optimizer": moments}, {"step": step}, {}, set())
        writer.wait()
        found.append({"blocking_seconds": blocking, "seconds": reports[-1].seconds})
    return found


def fall_back(folder: Path) -> float:
    """Seconds to find that the newer of two checkpoints is damaged in its last bytes, and verify the older one."""
    file = sorted(folder.glob("checkpoint-*/optimizer.safetensors"))[-1]
    with file.open("r+b") as opened:
        place = opened.seek(-1, 2)
        last = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([last ^ 1]))
    begin = time.perf_counter()
    chosen, passed_over = newest_good(folder, "a run")
    assert chosen is not None and len(passed_over) == 1
    return time.perf_counter() - begin


def summary(run: dict[str, Any], large: list[dict[str, float]], fall_back: float, facts: dict[str, Any]) -> str:
    blocking = [save["blocking_seconds"] for save in run["saves"]]
    seconds = [save["seconds"] for save in run["saves"]]
    later = [save["blocking_seconds"] for save in large[1:]]
    lines = [
        "# The cost of checkpoints",
        "",
        heading(facts),
        "",
        f"Embedded model, {NUM_ROWS:,} rows of yelp_review_full, {run['epochs']} epochs, default settings: "
        f"{run['train_runtime'] / 60:.1f} minutes, {len(blocking)} saves.",
        "",
        "| | seconds |",
        "|---|---|",
        f"| one save, training blocked | {statistics.median(blocking):.2f} ({max(blocking):.2f} at most) |",
        f"| one save, total | {statistics.median(seconds):.2f} ({max(seconds):.2f} at most) |",
        f"| all saves, training blocked | {run['blocking_seconds']:.2f} |",
        f"| {run['steps_beside']} steps during a write, slower than the others by | {run['slowed_seconds']:.2f} |",
        f"| share of training | {run['share']:.2%} |",
        "",
        "A model of BERT-base's size with its moments (1.3 GB):",
        "",
        "| | seconds |",
        "|---|---|",
        f"| first save, training blocked | {large[0]['blocking_seconds']:.2f} |",
        f"| later saves, training blocked | {statistics.median(later):.2f} ({max(later):.2f} at most) |",
        f"| total | {statistics.median(save['seconds'] for save in large):.2f} |",
        f"| newer checkpoint found damaged in its last byte, older one verified | {fall_back:.2f} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=21.0, help="0: the large model alone, the run as it is kept")
    arguments = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        large = a_large_model(Path(folder) / "large")
        seconds_to_fall_back = fall_back(Path(folder) / "large")
        path = ROOT / "benchmarks" / "results" / f"{date.today()}-saves"
        kept = json.loads(path.with_suffix(".json").read_text())["run"] if not arguments.minutes else None
        run = kept or a_long_run(Path(folder), arguments.minutes)
    path.with_suffix(".json").write_text(
        json.dumps({"facts": facts, "run": run, "large": large, "fall_back": seconds_to_fall_back}, indent=1)
    )
    path.with_suffix(".md").write_text(summary(run, large, seconds_to_fall_back, facts))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
