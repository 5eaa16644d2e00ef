"""Draw the loss curves of runs that accuracy.py kept: fasttune and the Trainer, over seeds.

    python benchmarks/curves.py benchmarks/results/2026-11-21-accuracy-mrpc.json

Writes FILE-curves.md (mean loss of each tenth of training by side, with its deviation over seeds) and FILE-curves.svg.
Needs matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

PARTS = 10


def parts_of(losses: list[float]) -> list[float]:
    """The mean of each tenth of the steps."""
    return [float(part.mean()) for part in np.array_split(np.array(losses), PARTS)]


def by_side(runs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Side -> [seeds, PARTS], of the sides that have several seeds."""
    sides: dict[str, list[list[float]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        sides.setdefault(run["side"], []).append(parts_of(run["losses"]))
    return {side: np.array(curves) for side, curves in sides.items() if len(curves) > 1}


def page(name: str, sides: dict[str, np.ndarray]) -> str:
    head = ["tenth of the steps", *(f"{side}, {len(curves)} seeds" for side, curves in sides.items())]
    lines = [f"# Loss curves: {name}", "", "Mean loss of each tenth of training, ± its deviation over seeds.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for part in range(PARTS):
        cells = [f"{curves[:, part].mean():.4f} ± {statistics.stdev(curves[:, part]):.4f}" for curves in sides.values()]
        lines.append(f"| {part + 1} | {' | '.join(cells)} |")
    for first, other in itertools.combinations(sides, 2):
        gap = sides[first].mean(0) - sides[other].mean(0)
        # The standard error of the difference of two means over seeds.
        noise = np.sqrt(sum(sides[side].var(0, ddof=1) / len(sides[side]) for side in (first, other)))
        worst = int(np.abs(gap / noise).argmax())
        lines += [
            "",
            f"{first} and {other} differ by {gap.mean():+.4f} on average; largest in standard errors: tenth "
            f"{worst + 1}: {gap[worst]:+.4f}, {abs(gap[worst] / noise[worst]):.1f} of them.",
        ]
    return "\n".join(lines) + "\n"


def draw(name: str, sides: dict[str, np.ndarray], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fasttune"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    places = np.arange(1, PARTS + 1)
    for side, curves in sides.items():
        mean, deviation = curves.mean(0), curves.std(0, ddof=1)
        (line,) = axes.plot(places, mean, label=f"{side} ({len(curves)} seeds)")
        axes.fill_between(places, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.2)
    axes.set(title=name, xlabel="tenth of the steps", ylabel="training loss", ylim=(0, None))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    for path in parser.parse_args().results:
        sides = by_side(json.loads(path.read_text())["runs"])
        target = path.with_name(f"{path.stem}-curves")
        target.with_suffix(".md").write_text(page(path.stem, sides))
        draw(path.stem, sides, target.with_suffix(".svg"))
        print(target.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
