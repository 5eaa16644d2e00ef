"""Models in and out: fp32 weights, plain folders, and no surprise from what a folder holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import tiny_config, tiny_tokenizer

from fasttune.errors import EnvironmentProblem
from fasttune.training.model import (
    load_config,
    load_model,
    load_tokenizer,
    longest_input,
    own_attention_dropout,
    save_model,
)

AUTO_CLASS = "AutoModelForSequenceClassification"
STATE = {"id2label": {0: "no", 1: "maybe", 2: "yes"}, "label2id": {"no": 0, "maybe": 1, "yes": 2}}


def load(folder: Path, seed: int = 1, attention_dropout: float | None = None):
    return load_model(str(folder), AUTO_CLASS, STATE, seed, attention_dropout)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at the process as Linux shows it")
def test_a_loaded_model_does_not_depend_on_its_file_any_more(tmp_path: Path) -> None:
    transformers.BertModel(tiny_config()).save_pretrained(tmp_path)
    model = load(tmp_path).model
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert next(model.parameters()).isfinite().all()


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_are_loaded_in_fp32_however_they_are_stored(tmp_path: Path, stored: torch.dtype) -> None:
    saved = transformers.BertModel(tiny_config()).to(stored)
    saved.save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {stored}
    model = load(tmp_path).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name, value in saved.state_dict().items():
        assert torch.equal(model.bert.state_dict()[name], value.float() if value.is_floating_point() else value), name


def test_only_the_head_is_new_and_the_seed_draws_it(tiny_model: Path) -> None:
    first, same, other = load(tiny_model, 1), load(tiny_model, 1), load(tiny_model, 2)
    assert first.new_weights == ["classifier.bias", "classifier.weight"]
    assert first.model.classifier.out_features == 3 and first.model.config.id2label == STATE["id2label"]
    assert torch.equal(first.model.classifier.weight, same.model.classifier.weight)
    assert not torch.equal(first.model.classifier.weight, other.model.classifier.weight)


def test_a_head_of_another_size_is_drawn_anew(tmp_path: Path) -> None:
    saved = transformers.BertForSequenceClassification(tiny_config(num_labels=5))
    saved.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.new_weights == ["classifier.bias", "classifier.weight"]
    assert torch.equal(loaded.model.bert.pooler.dense.weight, saved.bert.pooler.dense.weight)


def named(*names: str) -> dict[str, object]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


HEADS = {
    "bert": (transformers.BertForSequenceClassification, tiny_config, "classifier"),
    "roberta": (
        transformers.RobertaForSequenceClassification,
        lambda **changes: transformers.RobertaConfig(**{**tiny_config().to_dict(), "model_type": "roberta", **changes}),
        "classifier.out_proj",
    ),
}


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize(
    ("now", "kept", "new_rows"),
    [
        (("yes", "no", "maybe", "never"), ["yes", "no", "maybe"], [3]),  # one more, and in another order
        (("maybe", "yes", "other"), ["maybe", "yes"], [2]),  # one exchanged: the shape fits, the row does not
        (("yes", "no"), None, []),  # one less
        (("yes", "no", "maybe"), None, []),  # reordered
        (("a", "b", "c"), [], [0, 1, 2]),
    ],
)
def test_the_rows_of_a_head_belong_to_its_labels(
    family: str, now: tuple[str, ...], kept: list[str] | None, new_rows: list[int], tmp_path: Path
) -> None:
    model_class, config_of, head = HEADS[family]
    saved = model_class(config_of(**named("no", "maybe", "yes")))
    torch.nn.init.normal_(saved.get_submodule(head).weight, std=5.0)  # unlike anything that is initialised
    torch.nn.init.normal_(saved.get_submodule(head).bias, std=5.0)
    saved.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), AUTO_CLASS, named(*now), seed=1)
    before, after = saved.get_submodule(head), loaded.model.get_submodule(head)
    for number, name in enumerate(now):
        if number in new_rows:
            assert after.weight[number].abs().max() < 1 and after.bias[number] == 0
        else:
            source = ["no", "maybe", "yes"].index(name)
            assert torch.equal(after.weight[number], before.weight[source])
            assert torch.equal(after.bias[number], before.bias[source])
    assert loaded.kept_labels == (kept or [])
    assert loaded.new_weights == ([f"{head}.bias", f"{head}.weight"] if new_rows else [])


def test_a_language_model_brings_all_but_head_and_pooler(tmp_path: Path) -> None:
    """What is published as a pretrained encoder is often a masked language model."""
    transformers.BertForMaskedLM(tiny_config()).save_pretrained(tmp_path)
    assert {name.rpartition(".")[0] for name in load(tmp_path).new_weights} == {"classifier", "bert.pooler.dense"}


def test_an_encoder_that_is_not_all_there_is_refused(tmp_path: Path) -> None:
    transformers.BertModel(tiny_config(num_hidden_layers=1)).save_pretrained(tmp_path)
    tiny_config(num_hidden_layers=2).save_pretrained(tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"E406 .*the weights lack 16 tensors .* bert\.encoder"):
        load(tmp_path)


def test_another_attention_dropout_is_used_and_not_saved(tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model, attention_dropout=0.0).model
    used = {
        module.p
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Dropout) and ".attention.self." in name
    }
    assert used == {0.0}
    assert own_attention_dropout(model.config) == 0.1
    save_model(tmp_path, model, tiny_tokenizer())
    assert json.loads((tmp_path / "config.json").read_text())["attention_probs_dropout_prob"] == 0.1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.BertConfig(max_position_embeddings=512), 512),
        (transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (transformers.XLMRobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (transformers.CamembertConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (transformers.ElectraConfig(max_position_embeddings=128), 128),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_the_longest_input(config: transformers.PreTrainedConfig, expected: int) -> None:
    assert longest_input(config) == expected


def test_roberta_takes_its_longest_input_and_no_token_more() -> None:
    config = transformers.RobertaConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    model = transformers.RobertaModel(config).eval()
    longest = longest_input(config)
    model(input_ids=torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))


def test_what_is_saved_is_loaded_again(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load(tiny_model)
    save_model(tmp_path / "saved", loaded.model, load_tokenizer(str(tiny_model)))
    again = load(tmp_path / "saved", seed=99)
    assert again.new_weights == []
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_padding_and_truncation_of_somebody_s_pipeline_are_dropped(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert len(load_tokenizer(str(folder))("good food was good")["input_ids"]) == 6


def test_loading_leaves_the_caller_s_random_numbers_alone(tiny_model: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(tiny_model)
    assert torch.equal(torch.rand(2), expected)


def test_a_path_is_never_taken_for_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`./name` without such a folder must not become the hub's model `name`."""
    monkeypatch.chdir(tmp_path)
    for name in ("./bert", "../bert", "~/none/bert", str(tmp_path / "bert")):
        with pytest.raises(EnvironmentProblem, match="found no such folder"):
            load_config(name)
