"""A classifier whose last layer computes first tokens only: the same logits and gradients as the padded model's."""

from __future__ import annotations

import threading

import pytest
import torch
from parity import FAMILIES, make_batch, make_pair

from fasttune.unpadding import read_first_token
from fasttune.unpadding.hooks import BEHIND_ATTENTION, Unpadding

LENGTHS = (12, 5, 9, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["classification", "question-answering", "tokens"])
def test_logits_and_gradients_are_those_of_the_padded_model(family: str, head: str) -> None:
    padded, ours = make_pair(family, head)
    is_cut = head == "classification" and padded.config.model_type in BEHIND_ATTENTION
    assert read_first_token(ours) is is_cut
    batch = make_batch(padded.config.pad_token_id or 0, LENGTHS)
    real = batch["attention_mask"].bool()
    outputs = [model(**batch) for model in (padded, ours)]
    for name, expected in outputs[0].items():
        value = outputs[1][name]
        if head != "classification":
            expected, value = expected[real], value[real]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    if head != "classification":
        return
    for output in outputs:
        output.logits.square().sum().backward()
    for (name, parameter), other in zip(padded.named_parameters(), ours.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad, parameter.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_the_last_layer_computes_one_token_of_each_sequence() -> None:
    _, model = make_pair("bert", "classification")
    seen: list[int] = []
    for layer in model.bert.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    batch = make_batch(0, LENGTHS)
    model(**batch)
    whole = seen.copy()
    read_first_token(model)
    seen.clear()
    hidden = model.base_model(**batch).last_hidden_state
    assert whole == [whole[0], whole[0]] and seen == [whole[0], len(LENGTHS)]
    assert hidden.shape == (len(LENGTHS), 1, 32)


def test_a_layer_that_cannot_be_cut_is_found_and_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    padded, ours = make_pair("bert", "classification")

    def second_tokens(self: Unpadding, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple:
        firsts = self._of_last.pop(threading.get_ident()).firsts
        return tuple(hidden.index_select(1, firsts + 1) for hidden in args)

    monkeypatch.setattr(Unpadding, "behind_last_attention", second_tokens)
    assert not read_first_token(ours)
    batch = make_batch(0, LENGTHS)
    torch.testing.assert_close(ours(**batch).logits, padded(**batch).logits, atol=1e-5, rtol=1e-5)
    assert ours.base_model(**batch).last_hidden_state.shape == (len(LENGTHS), max(LENGTHS), 32)
