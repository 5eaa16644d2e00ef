"""Processes that do not match fail fast, with a clear message and a non-zero exit code everywhere."""

from __future__ import annotations

import socket
from pathlib import Path

import forks
from faulty import make_recipe
from launched import SHARDED

SCRIPT = """
import os, sys
from datetime import timedelta
from fasttune import api
from fasttune.parallel import rendezvous
from fasttune.cli.commands import run
rendezvous.JOIN_TIMEOUT = timedelta(seconds=3)
if "OTHER_VERSION" in os.environ:
    own = api.versions
    api.versions = lambda: {**own(), "torch": os.environ["OTHER_VERSION"]}
sys.exit(run(sys.argv[1:]))
"""


def by_hand(
    folder: Path, *ranks: dict[str, str], port: int | None = None, places: tuple[str, str] = (".", ".")
) -> list[tuple[int, str]]:
    """Exit code and stderr of each process. `ranks`: additional environment variables per process."""
    script, recipe = folder / "script.py", make_recipe(folder)
    script.write_text(SCRIPT)
    rows = folder / "reviews.csv"
    recipe.write_text(
        recipe.read_text().replace(str(rows), rows.name)
    )  # relative to the working directory of the process
    started = []
    for rank, environment in enumerate(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        place = folder / places[rank]
        place.mkdir(exist_ok=True)
        command = ["train", recipe, "--output", folder / "run"]
        started.append(forks.start(command, script=script, cwd=place, environment={**own, **environment}))
    done = forks.ended(started)
    return list(zip(done.codes, done.errors, strict=True))


def test_unequal_numbers_of_processes(tmp_path: Path) -> None:
    (code, text), (other, _) = by_hand(tmp_path, {}, {"WORLD_SIZE": "3"}, port=forks.free_port())
    assert (code, other) == (5, 5)
    assert "E541" in text and "processes 3" in text and "processes 2" in text


def test_other_versions(tmp_path: Path) -> None:
    (code, text), (other, _) = by_hand(tmp_path, {}, {"OTHER_VERSION": "1.0"}, port=forks.free_port())
    assert (code, other) == (5, 5)
    assert "E541 process 1 on" in text and "torch 1.0" in text


def test_one_that_shares_the_model_and_one_that_does_not(tmp_path: Path) -> None:
    (code, text), (other, _) = by_hand(tmp_path, {}, SHARDED, port=forks.free_port())
    assert (code, other) == (5, 5)
    assert "E541" in text and "parallel FSDP2" in text and "parallel DDP" in text


def test_a_process_that_never_comes(tmp_path: Path) -> None:
    ((code, text),) = by_hand(tmp_path, {}, port=forks.free_port())
    assert code == 5 and "E540" in text and "rank 1 did not respond within 3 s" in text


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (code, text), (other, _) = by_hand(tmp_path, {}, {}, port=port)
    assert (code, other) == (5, 5) and "E540" in text and f"127.0.0.1:{port}" in text


def test_a_rank_without_the_data(tmp_path: Path) -> None:
    """The first process reports the other one."""
    (code, text), (other, nothing) = by_hand(tmp_path, {}, {}, port=forks.free_port(), places=(".", "elsewhere"))
    assert (code, other) == (4, 4)
    assert "process 1 on" in text and "reviews.csv" in text
    assert "error" not in nothing
    assert not (tmp_path / "run").exists()
