"""Learning rates, weight decay and the optimizer's memory are those of the stock Trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import make_rows, tiny_config, write_csv

import fasttune
from fasttune.training.optimizer import (
    Schedule,
    decays,
    load_optimizer_tensors,
    make_optimizer,
    num_warmup_steps,
    optimizer_tensors,
    set_learning_rate,
)

NUM_STEPS = 47
NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def rates_of_transformers(kind: str, rate: float, warmup_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = transformers.get_scheduler(NAMES[kind], optimizer, warmup_steps, NUM_STEPS)
    rates = []
    for _ in range(NUM_STEPS):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 0), (0.1, 5), (0.5, 24), (1, 1), (7, 7)])
def test_every_rate_is_the_one_of_transformers(kind: str, warmup: float, steps: int) -> None:
    schedule = Schedule(kind, 3e-4, warmup, NUM_STEPS)
    expected = rates_of_transformers(kind, 3e-4, steps)
    assert [schedule(step) for step in range(NUM_STEPS)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.1, 0.999, 1, 12])
def test_the_share_is_rounded_as_the_trainer_rounds_it(warmup: float, tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(str(tmp_path), warmup_steps=warmup)
    assert num_warmup_steps(warmup, NUM_STEPS) == arguments.get_warmup_steps(NUM_STEPS)


def test_the_formulas_by_hand() -> None:
    linear = Schedule("linear", 1.0, 2, 6)
    assert [linear(step) for step in range(6)] == [0, 0.5, 1, 0.75, 0.5, 0.25]
    cosine = Schedule("cosine", 1.0, 0, 4)
    assert [cosine(step) for step in range(4)] == pytest.approx((1 + np.cos(np.pi * np.arange(4) / 4)) / 2)
    constant = Schedule("constant", 2.0, 2, 4)
    assert [constant(step) for step in range(4)] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    "model",
    [
        transformers.BertForSequenceClassification(tiny_config()),
        transformers.ModernBertForSequenceClassification(
            transformers.ModernBertConfig(
                vocab_size=79, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
            )
        ),
    ],
    ids=["bert", "modernbert"],
)  # fmt: skip
def test_the_same_parameters_decay_as_in_the_trainer(model: transformers.PreTrainedModel) -> None:
    expected = set(transformers.Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    is_decayed = decays(model)
    assert {name for name, _ in model.named_parameters() if is_decayed(name)} == expected
    optimizer = make_optimizer(model, 1e-3, 0.01)
    by_decay = {
        group["weight_decay"]: {id(parameter) for parameter in group["params"]} for group in optimizer.param_groups
    }
    parameters = dict(model.named_parameters())
    assert by_decay[0.01] == {id(parameters[name]) for name in expected}
    assert by_decay[0.0] == {id(parameter) for parameter in model.parameters()} - by_decay[0.01]


def test_a_frozen_parameter_is_left_out() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    optimizer = make_optimizer(model, 1e-3, 0.01)
    assert [parameter for group in optimizer.param_groups for parameter in group["params"]] == [model.bias]


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
    model(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_one_update_is_adamw_s_by_hand() -> None:
    """The first update of Adam is the rate times the sign of the gradient; decay takes rate * decay of the weight."""
    model = torch.nn.Linear(1, 1)
    weight, bias = model.weight.item(), model.bias.item()
    optimizer = make_optimizer(model, 0.01, 0.5)
    model(torch.tensor([[2.0]])).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(weight * (1 - 0.01 * 0.5) - 0.01, abs=1e-6)
    assert model.bias.item() == pytest.approx(bias - 0.01, abs=1e-6)


def test_the_optimizer_goes_on_from_its_tensors_as_if_never_stopped() -> None:
    model = small_model()
    optimizer = make_optimizer(model, 1e-2, 0.1)
    for step in range(3):
        update(model, optimizer, step)
    tensors = {name: value.clone() for name, value in optimizer_tensors(model, optimizer).items()}
    assert {name.partition(".")[0] for name in tensors} == {"step", "exp_avg", "exp_avg_sq"}
    assert {name.partition(".")[2] for name in tensors} == {name for name, _ in model.named_parameters()}
    other = small_model()
    other.load_state_dict(model.state_dict())
    restored = make_optimizer(other, 1e-2, 0.1)
    load_optimizer_tensors(other, restored, tensors)
    for step in range(3, 6):
        update(model, optimizer, step)
        update(other, restored, step)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_tensor_of_no_parameter_is_refused() -> None:
    model = small_model()
    with pytest.raises(KeyError, match=r"3\.weight"):
        load_optimizer_tensors(model, make_optimizer(model, 1e-2, 0.1), {"exp_avg.3.weight": torch.zeros(1)})


def test_the_rate_is_set_for_all_groups() -> None:
    optimizer = make_optimizer(small_model(), 1e-2, 0.1)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_the_first_update_has_the_rate_of_each_layer(tiny_model: Path, tmp_path: Path) -> None:
    """Adam's first update of a weight is the rate times the sign of its gradient."""
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "rows.csv", make_rows(40)))},
        "training": {
            "preset": "tutorial",
            "max_steps": 1,
            "learning_rate": 1e-3,
            "head_learning_rate": 5e-3,
            "layer_decay": 0.5,
            "lr_scheduler_type": "constant",
            "precision": "fp32",
            "device": "cpu",
        },
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    before, after = load_file(tiny_model / "model.safetensors"), load_file(run.folder / "model.safetensors")
    updates = {name: (after[f"bert.{name}"] - value).abs().max().item() for name, value in before.items()}
    for prefix, rate in {
        "pooler": 5e-3,
        "encoder.layer.1.": 1e-3,
        "encoder.layer.0.": 5e-4,
        "embeddings.": 2.5e-4,
    }.items():
        largest = max(update for name, update in updates.items() if name.startswith(prefix))
        assert largest == pytest.approx(rate, rel=0.01), prefix
