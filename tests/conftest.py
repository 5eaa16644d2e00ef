"""What the tests share: a tiny model with a tokenizer of its own, small data, and the folder of real data."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

# One thread for each process, before torch is loaded: tests run side by side (pytest -n), tiny products gain nothing
# from a second thread, and runs whose bytes are compared must add up in the same order.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch
from tiny import make_rows, save_tiny_model, write_csv

CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()
ROOT = Path(__file__).parents[1]
# How long a case takes is the machine's affair; a first call also loads libraries.
hypothesis.settings.register_profile("fasttune", deadline=None)
hypothesis.settings.load_profile("fasttune")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="replace the stored losses by those of this run")


def pytest_configure(config: pytest.Config) -> None:
    """No test reads or fills the user's cache folder."""
    config.stash[CACHE] = tempfile.TemporaryDirectory(prefix="fasttune-tests-")
    os.environ["XDG_CACHE_HOME"] = config.stash[CACHE].name


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[CACHE].cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    data = real_data_folder()
    has_device = torch.cuda.is_available() or torch.backends.mps.is_available() or "FASTTUNE_TEST_DEVICE" in os.environ
    for item in items:
        if item.get_closest_marker("gpu") and not has_device:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        if item.get_closest_marker("real_data") and not data.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no real data at {data} (set FASTTUNE_REAL_DATA)"))


def pytest_collection_finish() -> None:
    """A run ends with a collection of garbage; what the libraries hold takes most of its time, and is none."""
    gc.collect()
    gc.freeze()


def real_data_folder() -> Path:
    return Path(os.environ.get("FASTTUNE_REAL_DATA", ROOT / "../shared/data")).resolve()


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of tests train a model, and a report takes a second: only tests marked `report` get one."""
    if not request.node.get_closest_marker("report"):
        monkeypatch.setattr("fasttune.api._report_of", lambda *arguments: None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    return real_data_folder()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT of width 32 with random weights, and dropout as BERT has it."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model_without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model_without_dropout"
    return save_tiny_model(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture
def reviews_csv(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "reviews.csv", make_rows(80))


@pytest.fixture
def recipe(tiny_model: Path, reviews_csv: Path) -> dict:
    """A run of 30 steps that takes about a second."""
    return {
        "model": str(tiny_model),
        "data": {"train": str(reviews_csv), "validation_fraction": 0.25},
        "training": {
            "batch_size": 8,
            "num_train_epochs": 3,
            "learning_rate": 1e-3,
            "precision": "fp32",
            "device": "cpu",
        },
        "tracking": {"report_to": "none"},
    }
