"""A run that was stopped at any step ends as one that was not: weights, moments, logs, predictions."""

from __future__ import annotations

from pathlib import Path

import forks
import pytest
from exact import NUM_STEPS, TASKS, make_recipes, try_all_stops

TWO_RANKS = """
import json, sys
from pathlib import Path
import torch
from exact import NUM_STEPS, make_recipes, try_all_stops
from fasttune.parallel import collectives, rendezvous
rendezvous.rendezvous({})
rendezvous.init_process_group("cpu")
folder = Path(sys.argv[1])
recipe = make_recipes(folder)["text-classification"]
found = try_all_stops(recipe, folder, "fp32", 2, range(2, NUM_STEPS, 3), here=not collectives.is_main())
if collectives.is_main():
    (folder / "found.json").write_text(json.dumps(found))
torch.distributed.destroy_process_group()
"""


# benchmarks/resumes.py stops at every step, with 1, 2 and 4 micro-batches, and with two processes
@pytest.mark.parametrize(
    ("task", "precision", "num_microbatches"), list(zip(TASKS, ("bf16", "fp32", "fp32"), (1, 2, 4), strict=True))
)
def test_every_task(task: str, precision: str, num_microbatches: int, tmp_path: Path) -> None:
    recipe = make_recipes(tmp_path)[task]
    found = try_all_stops(recipe, tmp_path, precision, num_microbatches, range(2, NUM_STEPS, 3))
    assert found == {2: [], 5: []}


def test_two_processes_of_which_one_is_told(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_RANKS)
    done = forks.run_ranks(2, [tmp_path / "place"], script=script)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "place" / "found.json").read_text() == '{"2": [], "5": []}'
