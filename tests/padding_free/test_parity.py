"""Padding-free equals padded, for each family and head: outputs at real positions, and all gradients."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import transformers as T

import fasttune
from fasttune.engine.dropout import use_cpu_dropout
from fasttune.padding_free import is_padding_free, padded_again
from fasttune.padding_free.boundaries import Boundaries

LENGTHS = [24, 7, 22, 1, 15]
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
DISTANCES = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pad_token_id": 0, "type_vocab_size": 0}
MODERN = {  # windows of 4 tokens to each side in two of three layers
    "num_hidden_layers": 3,
    "local_attention": 8,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
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
    "albert": T.AlbertConfig(**SIZES, embedding_size=16, num_hidden_groups=2),
    "mpnet": T.MPNetConfig(**SIZES),
    "deberta": T.DebertaConfig(**SIZES, **DISTANCES, max_relative_positions=12),
    "deberta-v2": T.DebertaV2Config(**SIZES, **DISTANCES, position_buckets=8, norm_rel_ebd="layer_norm"),
    "deberta-v3": T.DebertaV2Config(
        **SIZES, **DISTANCES, position_buckets=8, share_att_key=True, position_biased_input=False
    ),
    "modernbert": T.ModernBertConfig(**{**SIZES, **MODERN}, classifier_pooling="cls"),
    "modernbert-mean": T.ModernBertConfig(**{**SIZES, **MODERN}, classifier_pooling="mean"),
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
            largest = max(1.0, expected.grad.abs().max().item())  # ModernBERT's reach 139
            torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet", "deberta", "deberta-v3"])
def test_left_padding(family: str) -> None:
    padded, free = make_pair(family, "tokens")
    batch = make_batch(padded.config.pad_token_id, side="left")
    torch.testing.assert_close(real_logits(free, batch), real_logits(padded, batch), rtol=0, atol=1e-5)


def test_left_padding_is_refused_where_the_head_reads_the_first_position() -> None:
    _, free = make_pair("bert", "classification")
    with pytest.raises(fasttune.Error, match="padding on the left") as caught:
        free(**make_batch(0, side="left"))
    assert caught.value.problems[0].hint == 'tokenizer.padding_side = "right"'
    padded, free = make_pair("modernbert-mean", "classification")
    batch = make_batch(0, side="left")  # the mean is over real positions; rotary angles know distances alone
    torch.testing.assert_close(free(**batch).logits, padded(**batch).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "ernie", "electra", "albert"])
def test_pairs_with_token_types(family: str) -> None:
    padded, free = make_pair(family, "classification")
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


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta", "modernbert"])
def test_undone_and_done_again(family: str) -> None:
    padded, free = make_pair(family, "classification")
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


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta", "modernbert"])
def test_a_deep_copy_is_a_model_of_its_own(family: str) -> None:
    padded, free = make_pair(family, "classification")
    copy = deepcopy(free)
    with torch.no_grad():
        for parameter in free.parameters():
            parameter.mul_(1.5)
    batch = make_batch(0)
    torch.testing.assert_close(copy(**batch).logits, padded(**batch).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_that_was_cut_short_leaves_nothing_behind(family: str) -> None:
    padded, free = make_pair(family, "classification")
    stop = next(module for module in free.modules() if "GELU" in type(module).__name__)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    handle = stop.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        free(**make_batch(0))
    handle.remove()
    batch = {name: tensor[:3, :24] for name, tensor in make_batch(0).items()}
    torch.testing.assert_close(free(**batch).logits, padded(**batch).logits, rtol=0, atol=1e-5)


def test_gradient_checkpointing() -> None:
    padded, free = make_pair("bert", "classification")
    batch = make_batch(0)
    for model in (padded, free):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.activation_checkpointing_enable()
        model(**batch).logits.square().sum().backward()
    for expected, found in zip(padded.parameters(), free.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=1e-5)
    other = T.AutoModelForSequenceClassification.from_config(T.DebertaV2Config(**SIZES, **DISTANCES))
    other.activation_checkpointing_enable()
    with pytest.raises(fasttune.Error, match="gradient checkpointing"):
        fasttune.padding_free(other)


def test_attention_dropout_is_honoured_where_it_is_set() -> None:
    config = T.BertConfig(**SIZES, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    free = fasttune.padding_free(T.AutoModelForSequenceClassification.from_config(config))
    batch = make_batch(0)
    free.train()
    assert not torch.allclose(free(**batch).logits, free(**batch).logits)
    free.eval()
    assert torch.equal(free(**batch).logits, free(**batch).logits)


def test_a_family_without_a_path_is_refused_with_the_reason() -> None:
    config = T.RoFormerConfig(**{**SIZES, "num_hidden_layers": 1})
    model = T.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(fasttune.Error, match="no padding-free path for the roformer family"):
        fasttune.padding_free(model)


def test_a_convolution_over_tokens_is_refused() -> None:
    config = T.DebertaV2Config(**SIZES, **DISTANCES, conv_kernel_size=3)
    with pytest.raises(fasttune.Error, match="convolution would reach across sequences"):
        fasttune.padding_free(T.AutoModelForSequenceClassification.from_config(config))


@pytest.mark.parametrize("family", FAMILIES)
def test_boundaries_that_are_shifted_by_one_are_found_by_the_probe(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so would the comparison above find them: the probe asks for no more than it does."""
    right = Boundaries.from_mask

    def shifted(mask: torch.Tensor) -> Boundaries:
        found = right(mask)
        lengths = list(found.lengths)
        lengths[0], lengths[1] = lengths[0] + 1, lengths[1] - 1
        return Boundaries(tuple(lengths), found.index, found.padded_length)

    monkeypatch.setattr(Boundaries, "from_mask", shifted)
    config = FAMILIES[family]
    model = T.AutoModelForSequenceClassification.from_config(type(config).from_dict(config.to_dict()))
    with pytest.raises(fasttune.Error, match="the probe differs"):
        fasttune.padding_free(model)
    assert not is_padding_free(model)


COMPUTED_AGAIN = [one for one in FAMILIES if not one.startswith(("albert", "mpnet", "deberta"))]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", COMPUTED_AGAIN)
def test_layers_that_are_computed_again_on_the_way_back_give_the_same_gradients(family: str, head: str) -> None:
    """With dropout: the second time the masks have to be those of the first."""
    _, model = make_pair(family, head)
    use_cpu_dropout(model)
    batch, found = make_batch(model.config.pad_token_id), []
    for again in (False, True):
        if again:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
        model.zero_grad()
        torch.manual_seed(3)
        outputs = model(**batch)
        sum(one.float().square().sum() for one in outputs.values()).backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
