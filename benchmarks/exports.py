"""Exports of finished runs: how close each format is to the weights, its size, and its speed beside them.

    python benchmarks/exports.py RUN [RUN ...] [--most-lost 3]

Each run is exported to every format, compared on its own held-out rows (1,000 at most) and timed alone on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from sides import ROOT, heading, machine

FORMATS = ("onnx", "onnx-int8", "openvino", "openvino-int8")


def main() -> None:
    import fasttune

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--most-lost", type=float, default=1000.0, help="points; more are refused and not shown")
    arguments = parser.parse_args()
    facts = machine()
    lines = [
        "# Exports beside the weights",
        "",
        heading(facts),
        "",
        "Agreement: rows with the same prediction as the weights in fp32. Largest difference: of probabilities, for "
        "answers and entities of scores. Rows per second: sorted by length; ms: one row of median length alone.",
        "",
        "| run | rows | model | size, MB | agreement | largest diff | score | points lost | rows/s | ms, one row |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in arguments.runs:
        folder = Path(tempfile.mkdtemp())
        found = fasttune.export_run(
            run, FORMATS, output=folder / "export", most_lost=arguments.most_lost, progress=False
        )
        name = f"{run.name} | {found.num_rows:,} {found.split}"
        for precision, speed in found.weights.items():
            score = f"{found.metric} {found.score:.4f}" if precision == "fp32" else ""
            lines.append(
                f"| {name} | weights, {precision} | {found.weights_size / 1e6:.0f} | | | {score} | "
                f"| {speed.rows_per_second:,.0f} | {speed.milliseconds_per_row:.1f} |"
            )
        for one in found.formats:
            apart, speed = one.difference, one.speed
            agreement = "" if apart.agreement is None else f"{apart.agreement:.1%}"
            lines.append(
                f"| {name} | {one.format} | {one.size / 1e6:.0f} | {agreement} | {apart.largest:.2g} "
                f"| {one.score:.4f} | {apart.points:.2f} | {speed.rows_per_second:,.0f} "
                f"| {speed.milliseconds_per_row:.1f} |"
            )
        shutil.rmtree(folder)
        print("\n".join(lines), flush=True)
    (ROOT / "benchmarks" / "results" / f"{facts['date']}-exports.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
