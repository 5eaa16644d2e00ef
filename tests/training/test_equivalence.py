"""One step is one step, however it is cut into micro-batches: the same losses, gradients and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fasttune import recipe as recipes
from fasttune.data.batching.collate import NO_MORE_THAN_NEEDED
from fasttune.data.batching.plan import Plan
from fasttune.data.batching.prefetch import StorePrefetcher
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks import Rows, TextClassification
from fasttune.training.events import StepDone
from fasttune.training.loop import Loop, TrainState
from fasttune.training.optimizer import make_optimizer
from fasttune.training.setup import set_up

LENGTH = 12
NUM_STEPS = 50


def make_store(ragged: bool) -> TokenStore:
    """160 examples whose first token decides the label."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 2 * LENGTH, size=160) if ragged else np.full(160, LENGTH)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, 79, size=starts[-1]).astype(np.int32)
    labels = (ids[starts[:-1]] % 2).astype(np.int64)
    return TokenStore({"input_ids": ids}, starts, np.arange(160), np.zeros(160, dtype=np.int64), {"labels": labels})


def train(model: Path, store: TokenStore, tokens_per_microbatch: int, **training: object) -> tuple[list, dict, list]:
    """Losses, final weights and numbers of micro-batches of 50 steps of 16 examples."""
    settings = {"batch_size": 16, "max_steps": NUM_STEPS, "learning_rate": 1e-3, "precision": "fp32", "device": "cpu"}
    recipe = recipes.load(
        {
            "model": str(model),
            "data": {"train": "starter"},
            "training": {**settings, "tokens_per_microbatch": tokens_per_microbatch, **training},
            "evaluation": {"eval_strategy": "no"},
            "output": {"save_strategy": "no"},
        }
    )
    rows = Rows(["0", "1"], {"text": ["a", "b"], "label": ["0", "1"]})
    task = TextClassification.from_rows(rows, recipe, "rows")
    setup = set_up(recipe, recipe.model, task)
    optimizer = setup.accelerator.prepare_optimizer(make_optimizer(setup.model, 1e-3, 0.0))
    loop = Loop(
        recipe=recipe,
        task=task,
        model=setup.model,
        optimizer=optimizer,
        prefetcher=StorePrefetcher(NO_MORE_THAN_NEEDED, store=store),
        plan=Plan(
            lengths=store.lengths,
            batch_size=16,
            tokens_per_microbatch=tokens_per_microbatch,
            seed=1,
            padded=setup.padded,
        ),
        accelerator=setup.accelerator,
        metric="eval_accuracy",
        state=TrainState(),
        evaluate=dict,
    )
    steps = [event for event in loop if isinstance(event, StepDone)]
    weights = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    return [step.loss for step in steps], weights, [step.num_microbatches for step in steps]


@pytest.fixture(scope="module")
def whole(tiny_model_without_dropout: Path) -> tuple[list, dict, list]:
    return train(tiny_model_without_dropout, make_store(ragged=False), 16 * LENGTH)


def assert_same(found: tuple[list, dict, list], expected: tuple[list, dict, list]) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-5)
    for name, weight in expected[1].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize(("sequences", "cuts"), [(8, 2), (1, 16), (5, 4)])
def test_sixteen_examples_cut_in_any_way(
    whole: tuple, tiny_model_without_dropout: Path, sequences: int, cuts: int
) -> None:
    found = train(tiny_model_without_dropout, make_store(ragged=False), sequences * LENGTH)
    assert set(whole[2]) == {1}
    assert set(found[2]) == {cuts}
    assert_same(found, whole)
    assert whole[0][-1] < whole[0][0] / 1.5, "it learned, so the comparison means something"


def test_ragged_lengths_and_a_ragged_cut(tiny_model_without_dropout: Path) -> None:
    store = make_store(ragged=True)
    expected = train(tiny_model_without_dropout, store, 10**6)
    found = train(tiny_model_without_dropout, store, 50)
    assert max(found[2]) > 3 > 1 == max(expected[2])
    assert_same(found, expected)


def test_dropout_masks_are_a_function_of_the_place_in_the_run(tiny_model: Path) -> None:
    store = make_store(ragged=True)
    first = train(tiny_model, store, 50, max_steps=10)
    torch.manual_seed(999)  # the caller's random state does not matter
    second = train(tiny_model, store, 50, max_steps=10)
    assert first[0] == second[0]
    assert all(torch.equal(weight, second[1][name]) for name, weight in first[1].items())
    assert train(tiny_model, store, 50, max_steps=10, seed=7)[0] != first[0]


def golden_path() -> Path:
    return Path(__file__).parents[1] / "golden" / "text-classification.cpu.txt"


def test_golden_losses(tiny_model_without_dropout: Path, request: pytest.FixtureRequest) -> None:
    """Twenty losses as they once were; a change of the numerics must be meant (then: pytest --write-golden).

    Other processors round differently: 1e-4 lets that pass, while a wrong mask or scale moves the second digit.
    """
    losses = train(tiny_model_without_dropout, make_store(ragged=True), 100, max_steps=20, warmup_steps=0.1)[0]
    if request.config.getoption("--write-golden"):
        golden_path().write_text("".join(f"{loss:.8f}\n" for loss in losses))
    golden = [float(line) for line in golden_path().read_text().split()]
    np.testing.assert_allclose(losses, golden, rtol=0, atol=1e-4)


def test_a_metric_that_is_no_number_is_never_the_best() -> None:
    from fasttune.training.loop import TrainState

    for nothing in (float("nan"), None):
        evaluations = [
            {"step": 1, "eval_accuracy": nothing, "eval_loss": nothing},
            {"step": 2, "eval_accuracy": 0.5, "eval_loss": 0.7},
            {"step": 3, "eval_accuracy": 0.4, "eval_loss": 0.9},
            {"step": 4, "eval_accuracy": nothing, "eval_loss": nothing},
        ]
        state = TrainState(evaluations=evaluations)
        for metric in ("eval_accuracy", "eval_loss"):
            assert [evaluation["step"] for evaluation in state.best_first(metric)] == [2, 3, 1, 4]
