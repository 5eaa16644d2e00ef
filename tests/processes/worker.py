"""One of several processes: trains each recipe of a folder.

    python worker.py RECIPES RUNS [--only NAME] [--stop-at STEP]

Existing runs are resumed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faulty import stop_at

import fasttune


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--stop-at", type=int)
    arguments = parser.parse_args()
    observers = [] if arguments.stop_at is None else [stop_at(arguments.stop_at)]
    for recipe in sorted(arguments.recipes.glob(f"{arguments.only}.yaml")):
        run = arguments.runs / recipe.stem
        fasttune.fit(recipe, output=run, resume=True, progress=False, observers=observers)


if __name__ == "__main__":
    main()
