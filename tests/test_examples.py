"""The examples run, and say the truth."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import forks
import numpy as np
import pytest
import transformers

from fasttune.data.starter.model import embedded_model_path

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


TRAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
import custom_head, custom_loop, plain_ddp
custom_loop.embedded_model_path = custom_head.embedded_model_path = lambda: sys.argv[3]
how = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
arguments = custom_loop.parse(["--rows", "64", "--epochs", "2", "--learning-rate", "3e-3"])
found = {}
if sys.argv[2] == "1":  # Accelerate makes no group of one
    torch.distributed.init_process_group("gloo")
for name, train in (("loop", custom_loop.train_with_accelerate), ("head", custom_head.train), ("ddp", plain_ddp.train)):
    losses, scores = train(arguments, **how)
    found[name] = [losses, scores]
if torch.distributed.get_rank() == 0:
    print(json.dumps(found))
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """The embedded model's tokenizer with random weights of width 32."""
    embedded, small = embedded_model_path(), tmp_path / "small"
    transformers.AutoTokenizer.from_pretrained(embedded).save_pretrained(small)
    config = transformers.AutoConfig.from_pretrained(embedded)
    config.update({"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64})
    transformers.set_seed(0)
    transformers.BertModel(config).save_pretrained(small)
    return small


def trained(folder: Path, num_processes: int, model: Path) -> dict[str, list]:
    """Losses and scores of the examples that train in several processes, Accelerate making their group."""
    script = folder / "train.py"
    script.write_text(TRAIN)
    done = forks.run_ranks(num_processes, [EXAMPLES, num_processes, model], script=script)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def test_own_loops_are_the_same_on_two_processes(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = load("custom_loop")
    monkeypatch.setattr(example, "embedded_model_path", lambda: small_model)
    arguments = example.parse(["--rows", "64", "--epochs", "2", "--learning-rate", "3e-3"])
    losses, scores = example.train_with_torch(arguments, **WITHOUT_DROPOUT)
    assert len(losses) == 8
    one, two = (trained(tmp_path, number, small_model) for number in (1, 2))
    np.testing.assert_allclose(one["loop"][0], losses, atol=1e-5)
    assert one["loop"][1] == scores
    for name in ("loop", "head", "ddp"):
        np.testing.assert_allclose(two[name][0], one[name][0], atol=1e-5, err_msg=name)
        assert two[name][1] == one[name][1], name


def test_gradcheck_finds_a_bias_whose_gradient_is_not_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = load("custom_head")
    assert example.check()
    monkeypatch.setattr(example.BiasAdd, "backward", staticmethod(lambda ctx, gradient: (gradient, gradient[0, 0])))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        example.check()
