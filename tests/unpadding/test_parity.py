"""Padding-free equals padded, for each family and head: outputs at real positions, and all gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import transformers as T
from parity import (
    DISTANCES,
    FAMILIES,
    HEADS,
    LONGEST,
    SIZES,
    Batch,
    as_pairs,
    differences,
    make_batch,
    make_pair,
    real_logits,
)

import fasttune
from fasttune.training.dropout import use_cpu_dropout
from fasttune.unpadding import is_padding_free, restore_padding
from fasttune.unpadding.boundaries import Boundaries

LENGTHS = (24, 7, 22, 1, 15)
TOLERANCE = 1e-5


def some_batch(model: T.PreTrainedModel, side: str = "right") -> Batch:
    return make_batch(model.config.pad_token_id, LENGTHS, side)


def check_same(padded: T.PreTrainedModel, free: T.PreTrainedModel, batch: Batch, head: str) -> None:
    found = differences(padded, free, batch, head)
    assert max(found.logits, found.loss, found.gradients) <= TOLERANCE, found
    assert found.gradients <= 1e-4 * found.largest, "gradients too small for the line above to mean anything"
    assert not found.one_sided


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_losses_and_gradients_equal_the_padded_model(family: str, head: str) -> None:
    padded, free = make_pair(family, head)
    check_same(padded, free, make_batch(padded.config.pad_token_id, range(1, LONGEST + 1)), head)


@pytest.mark.parametrize("head", ["question-answering", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding(family: str, head: str) -> None:
    padded, free = make_pair(family, head)
    check_same(padded, free, some_batch(padded, side="left"), head)


def test_left_padding_where_the_head_reads_the_mean() -> None:
    padded, free = make_pair("modernbert-mean", "classification")
    check_same(padded, free, some_batch(padded, side="left"), "classification")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "modernbert-mean"])
def test_left_padding_is_refused_where_the_head_reads_the_first_position(family: str) -> None:
    padded, free = make_pair(family, "classification")
    batch = some_batch(padded, side="left")
    with pytest.raises(fasttune.Error, match="padding on the left") as caught:
        free(**batch)
    assert caught.value.problems[0].hint == 'tokenizer.padding_side = "right"'


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["bert", "roberta", "ernie", "electra", "albert"])
def test_pairs_with_token_types(family: str, head: str) -> None:
    padded, free = make_pair(family, head)
    batch = some_batch(padded)
    check_same(padded, free, as_pairs(batch), head)
    assert not torch.allclose(real_logits(free, batch), real_logits(free, as_pairs(batch)), atol=0.01)


def shifted(right: Callable[[torch.Tensor], Boundaries]) -> Callable[[torch.Tensor], Boundaries]:
    def from_mask(mask: torch.Tensor) -> Boundaries:
        found = right(mask)
        first, second, *others = found.lengths
        return Boundaries((first - 1, second + 1, *others), found.index, found.padded_length)

    return from_mask


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_finds_boundaries_that_are_shifted_by_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    padded, free = make_pair(family, "classification")
    monkeypatch.setattr(Boundaries, "from_mask", shifted(Boundaries.from_mask))
    assert differences(padded, free, some_batch(padded), "classification").logits > 100 * TOLERANCE


def test_a_batch_without_mask_is_all_real() -> None:
    padded, free = make_pair("bert", "tokens")
    ids = some_batch(padded)["input_ids"].clamp(min=5)
    torch.testing.assert_close(free(input_ids=ids).logits, padded(input_ids=ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta", "modernbert"])
def test_undone_and_done_again(family: str) -> None:
    padded, free = make_pair(family, "classification")
    batch = some_batch(padded)
    assert is_padding_free(free)
    restore_padding(free)
    assert not is_padding_free(free)
    assert free.config._attn_implementation == padded.config._attn_implementation
    assert torch.equal(free(**batch).logits, padded(**batch).logits)
    assert is_padding_free(fasttune.padding_free(free))


def test_a_saved_model_carries_nothing_of_it(tmp_path) -> None:
    padded, free = make_pair("bert", "classification")
    free.save_pretrained(tmp_path)
    assert "fasttune" not in (tmp_path / "config.json").read_text()
    loaded = T.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**some_batch(padded)).logits, padded(**some_batch(padded)).logits)


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta", "modernbert"])
def test_a_deep_copy_is_a_model_of_its_own(family: str) -> None:
    padded, free = make_pair(family, "classification")
    copy = deepcopy(free)
    with torch.no_grad():
        for parameter in free.parameters():
            parameter.mul_(1.5)
    batch = some_batch(padded)
    torch.testing.assert_close(copy(**batch).logits, padded(**batch).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_that_was_cut_short_leaves_nothing_behind(family: str) -> None:
    padded, free = make_pair(family, "classification")
    stop = next(module for module in free.modules() if "GELU" in type(module).__name__)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    handle = stop.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        free(**some_batch(padded))
    handle.remove()
    batch = {name: tensor[:3, :24] for name, tensor in some_batch(padded).items()}
    torch.testing.assert_close(free(**batch).logits, padded(**batch).logits, rtol=0, atol=1e-5)


def test_gradient_checkpointing() -> None:
    padded, free = make_pair("bert", "classification")
    batch = some_batch(padded)
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
    batch = some_batch(free)
    free.train()
    assert not torch.allclose(free(**batch).logits, free(**batch).logits)
    free.eval()
    assert torch.equal(free(**batch).logits, free(**batch).logits)


def test_a_family_without_a_path_is_refused_with_the_reason() -> None:
    config = T.RoFormerConfig(**{**SIZES, "num_hidden_layers": 1})
    model = T.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(fasttune.Error, match="the roformer family is not supported"):
        fasttune.padding_free(model)


def test_a_convolution_over_tokens_is_refused() -> None:
    config = T.DebertaV2Config(**SIZES, **DISTANCES, conv_kernel_size=3)
    with pytest.raises(fasttune.Error, match="convolution would mix tokens of different sequences"):
        fasttune.padding_free(T.AutoModelForSequenceClassification.from_config(config))


@pytest.mark.parametrize("family", FAMILIES)
def test_boundaries_that_are_shifted_by_one_are_found_by_the_probe(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Boundaries, "from_mask", shifted(Boundaries.from_mask))
    config = FAMILIES[family]
    model = T.AutoModelForSequenceClassification.from_config(type(config).from_dict(config.to_dict()))
    with pytest.raises(fasttune.Error, match="the probe differs"):
        fasttune.padding_free(model)
    assert not is_padding_free(model)


COMPUTED_AGAIN = [one for one in FAMILIES if not one.startswith(("albert", "mpnet", "deberta"))]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", COMPUTED_AGAIN)
def test_layers_that_are_computed_again_on_the_way_back_give_the_same_gradients(family: str, head: str) -> None:
    """With dropout, recomputation must use the same masks."""
    _, model = make_pair(family, head)
    use_cpu_dropout(model)
    batch, found = some_batch(model), []
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
