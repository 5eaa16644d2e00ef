"""Kill runs at random instants and at every file change, then resume them: is anything lost or broken?

    python benchmarks/kills.py [--random 500] [--core 0] [--stop-after 3000]

Each trial starts `fasttune train ... --resume`, kills it, inspects the folder, and repeats the command until it ends.
The weights must then be byte-identical to those of a run that was never killed. The random instants are uniform over
the duration of a run. Each trial's result is kept, so an interrupted campaign resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from sides import ROOT, heading, machine

sys.path.insert(0, str(ROOT / "tests"))
from faulty import Fault, make_recipe, run_cli, sha256, train, trouble

RESTARTS = 5
SIGKILL = 9


class Campaign:
    def __init__(self, path: Path, folder: Path):
        self.path, self.folder = path, folder
        self.trials: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        self.recipe = make_recipe(folder)
        calls = folder / "calls"
        ended = run_cli(train(self.recipe, folder / "undisturbed"), Fault(str(folder / "undisturbed"), log=str(calls)))
        assert ended.code == 0, ended.output
        self.expected = sha256(folder / "undisturbed")
        # Time a second run, because the first fork waits for the server to load its libraries.
        self.seconds = run_cli(train(self.recipe, folder / "undisturbed-2")).seconds
        self.calls = [line.split()[1] for line in calls.read_text().splitlines()]

    def try_one(self, kind: str, place: float, **how: Any) -> None:
        if any((trial["kind"], trial["place"]) == (kind, place) for trial in self.trials):
            return
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        arguments = train(self.recipe, run)
        killed = run_cli(arguments, **how)
        found = trouble(run)
        codes = [killed.code]
        while codes[-1] != 0 and len(codes) <= RESTARTS:
            codes.append(run_cli(arguments).code)
        is_equal = codes[-1] == 0 and sha256(run) == self.expected
        leftovers = [path.name for path in (run / "checkpoints").glob(".*")] if codes[-1] == 0 else []
        self.trials.append(
            {"kind": kind, "place": place, "codes": codes, "trouble": found, "equal": is_equal, "leftovers": leftovers}
        )
        self.path.write_text(json.dumps(self.trials))


def summary(trials: list[dict[str, Any]], facts: dict[str, Any], calls: list[str]) -> str:
    lines = ["# Kills", "", heading(facts), ""]
    lines += [
        "| kind | trials | killed before the end | visible, but corrupt | acknowledged, but lost "
        "| resumed by the same command | byte-identical result | leftovers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(trial["kind"] for trial in trials):
        own = [trial for trial in trials if trial["kind"] == kind]
        corrupt, lost = (
            sum(any(line.startswith(word) for line in t["trouble"]) for t in own) for word in ("visible", "ack")
        )
        lines.append(
            f"| {kind} | {len(own)} | {sum(t['codes'][0] == -SIGKILL for t in own)} | {corrupt} | {lost} "
            f"| {sum(t['codes'][1:] in ([], [0]) for t in own)} | {sum(t['equal'] for t in own)} "
            f"| {sum(bool(t['leftovers']) for t in own)} |"
        )
    counts = {name: calls.count(name) for name in dict.fromkeys(calls)}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    lines += ["", f"File changes in an uninterrupted run (12 steps, 6 checkpoints): {len(calls)}: {said}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=500)
    parser.add_argument("--core", type=int)
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), help="part NUMBER of COUNT, each with its own core"
    )
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="seconds")
    arguments = parser.parse_args()
    number, of = arguments.part
    name = f"{date.today()}-kills"
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    own = path.with_suffix(f".{number}.json") if of > 1 else path
    begin = time.monotonic()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})  # inherited by all child processes
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(own, Path(folder))
        run = str(Path(folder) / "run")
        places = random.Random(0)
        trials = [("random instant", round(places.uniform(0, campaign.seconds), 4)) for _ in range(arguments.random)]
        trials += [("before each file change", at) for at in range(1, len(campaign.calls) + 1)]
        for kind, place in trials[number::of]:
            if time.monotonic() - begin > arguments.stop_after:
                break
            if kind == "random instant":
                campaign.try_one(kind, place, signal=SIGKILL, after=place)
            else:
                campaign.try_one(kind, place, fault=Fault(run, at=int(place)))
        calls = campaign.calls
    known = [one for part in sorted(path.parent.glob(f"{name}*.json")) for one in json.loads(part.read_text())]
    path.with_suffix(".md").write_text(summary(known, machine(), calls))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
