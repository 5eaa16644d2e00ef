"""Padding-free equals padded, for each family and head: outputs at real positions, and all gradients."""

from __future__ import annotations

import pytest
import torch
import transformers as T

import fasttune
from fasttune.padding_free import is_padding_free, padded_again

LENGTHS = [24, 7, 22, 1, 15]
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
FAMILIES = {
    "bert": T.BertConfig(**SIZES),
    "roberta": T.RobertaConfig(**SIZES),
    "xlm-roberta": T.XLMRobertaConfig(**SIZES),
    "camembert": T.CamembertConfig(**SIZES),
    "electra": T.ElectraConfig(**SIZES),
    "ernie": T.ErnieConfig(**SIZES),
    "distilbert": T.DistilBertConfig(
        vocab_size=200, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=80
    ),
}
HEADS = {
    "classification": T.AutoModelForSequenceClassification,
    "question-answering": T.AutoModelForQuestionAnswering,
    "tokens": T.AutoModelForTokenClassification,
}


def make_pair(family: str, head: str) -> tuple[T.PreTrainedModel, T.PreTrainedModel]:
    """The padded model and its padding-free twin; configs are copies, since models share what they are given."""
    config = FAMILIES[family]
    torch.manual_seed(0)
    models = [HEADS[head].from_config(type(config).from_dict(config.to_dict())).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    return models[0], fasttune.padding_free(models[1])


def make_batch(pad: int, side: str = "right") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 200, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    return {"input_ids": ids.masked_fill(mask == 0, pad), "attention_mask": mask}


def real_logits(model: T.PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    output = model(**batch)
    is_span = "start_logits" in output
    logits = torch.stack([output.start_logits, output.end_logits], -1) if is_span else output.logits
    return logits * batch["attention_mask"][..., None] if logits.dim() == 3 else logits


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_equal_the_padded_model(family: str, head: str) -> None:
    padded, free = make_pair(family, head)
    batch = make_batch(padded.config.pad_token_id)
    logits = [real_logits(model, batch) for model in (padded, free)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)
    for value in logits:
        value.square().sum().backward()
    for (name, expected), found in zip(padded.named_parameters(), free.parameters(), strict=True):
        assert (expected.grad is None) == (found.grad is None), name
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_left_padding(family: str) -> None:
    padded, free = make_pair(family, "tokens")
    batch = make_batch(padded.config.pad_token_id, side="left")
    torch.testing.assert_close(real_logits(free, batch), real_logits(padded, batch), rtol=0, atol=1e-5)


def test_pairs_with_token_types() -> None:
    padded, free = make_pair("bert", "classification")
    batch = make_batch(0)
    batch["token_type_ids"] = (torch.arange(max(LENGTHS)) > 4).long() * batch["attention_mask"]
    found, expected = free(**batch).logits, padded(**batch).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    without_types = {name: tensor for name, tensor in batch.items() if name != "token_type_ids"}
    assert not torch.allclose(free(**without_types).logits, expected, atol=1e-5)


def test_a_batch_without_mask_is_all_real() -> None:
    padded, free = make_pair("bert", "tokens")
    ids = make_batch(0)["input_ids"].clamp(min=5)
    torch.testing.assert_close(free(input_ids=ids).logits, padded(input_ids=ids).logits, rtol=0, atol=1e-5)


def test_undone_and_done_again() -> None:
    padded, free = make_pair("bert", "classification")
    batch = make_batch(0)
    assert is_padding_free(free)
    padded_again(free)
    assert not is_padding_free(free)
    assert free.config._attn_implementation == padded.config._attn_implementation
    assert torch.equal(free(**batch).logits, padded(**batch).logits)
    assert is_padding_free(fasttune.padding_free(free))


def test_a_saved_model_carries_nothing_of_it(tmp_path) -> None:
    padded, free = make_pair("bert", "classification")
    free.save_pretrained(tmp_path)
    assert "fasttune" not in (tmp_path / "config.json").read_text()
    loaded = T.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**make_batch(0)).logits, padded(**make_batch(0)).logits)


def test_attention_dropout_is_honoured_where_it_is_set() -> None:
    config = T.BertConfig(**SIZES, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    free = fasttune.padding_free(T.AutoModelForSequenceClassification.from_config(config))
    batch = make_batch(0)
    free.train()
    assert not torch.allclose(free(**batch).logits, free(**batch).logits)
    free.eval()
    assert torch.equal(free(**batch).logits, free(**batch).logits)


def test_a_family_without_a_path_is_refused_with_the_reason() -> None:
    config = T.AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=16,
        num_hidden_layers=1,
    )
    model = T.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(fasttune.Error, match="no padding-free path for the albert family"):
        fasttune.padding_free(model)
