"""A recipe for all tests of faults, and an undisturbed run of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty import Fault, make_recipe, run_cli, sha256, train


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def recipe(place: Path) -> Path:
    return make_recipe(place)


@pytest.fixture(scope="session")
def undisturbed(place: Path, recipe: Path) -> Path:
    folder = place / "undisturbed"
    ended = run_cli(train(recipe, folder))
    assert ended.code == 0, ended.output
    return folder


@pytest.fixture(scope="session")
def expected(undisturbed: Path) -> str:
    """sha256 of the weights of a run that nothing disturbed."""
    return sha256(undisturbed)


@pytest.fixture(scope="session")
def calls(place: Path, recipe: Path) -> list[str]:
    """Every change of a file in an undisturbed run: its kind and the file below the run."""
    log, run = place / "calls", place / "watched"
    ended = run_cli(train(recipe, run), Fault(str(run), log=str(log)))
    assert ended.code == 0, ended.output
    return [line.partition(" ")[2] for line in log.read_text().splitlines()]
