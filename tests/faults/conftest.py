"""A server and a recipe for all tests of faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faulty import CAN_RUN, Server, make_recipe, sha256, train


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's forks have one, and another number of threads rounds otherwise: bytes are compared here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def server(place: Path) -> Iterator[Server]:
    if not CAN_RUN:
        pytest.skip("needs Linux and gcc")
    with Server(place) as server:
        yield server


@pytest.fixture(scope="session")
def recipe(place: Path) -> Path:
    return make_recipe(place)


@pytest.fixture(scope="session")
def undisturbed(place: Path, server: Server, recipe: Path) -> Path:
    run = place / "undisturbed"
    ended = server.run(train(recipe, run))
    assert ended.code == 0, ended.output
    return run


@pytest.fixture(scope="session")
def expected(undisturbed: Path) -> str:
    """sha256 of the weights of a run that nothing disturbed."""
    return sha256(undisturbed)
