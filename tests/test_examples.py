"""The examples run, and say the truth."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses_of(folder: Path, *words: str, stock_loss: bool = False) -> list[float]:
    """What the Trainer logs at each of two steps."""
    example = load("hf_trainer")
    trainer = example.make_trainer(example.parse(["--rows", "24", *words]), str(folder), **WITHOUT_DROPOUT)
    if stock_loss:
        trainer.compute_loss_func = None
    trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses_of(tmp_path_factory.mktemp("padded"), "--padded")


@pytest.mark.parametrize("accumulation", ["1", "4"])
def test_the_trainer_without_padding_has_the_same_losses(
    padded: list[float], tmp_path: Path, accumulation: str
) -> None:
    found = losses_of(tmp_path, "--accumulation", accumulation)
    assert len(padded) == 2
    np.testing.assert_allclose(found, padded, atol=2e-4)  # the Trainer logs four digits


def test_the_stock_loss_of_accumulated_batches_is_too_large(padded: list[float], tmp_path: Path) -> None:
    """If this fails, transformers has mended it, and the example should say so."""
    found = losses_of(tmp_path, "--padded", "--accumulation", "4", stock_loss=True)
    assert found[0] == pytest.approx(4 * padded[0], rel=0.01)
