"""The probe rejects models that mix up sequences or compute different values."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import tiny_config

import fasttune
from fasttune.unpadding import attention, is_padding_free


def broken(kind: str):
    def function(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **kwargs):
        if kind == "leaks" or (kind == "leaks under dropout" and dropout > 0):  # every sequence sees all others
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
            return out.transpose(1, 2), None
        out, weights = attention.attention(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return out * (1.5 if kind == "differs" else 1), weights

    return function


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("leaks", "differs from the padded model"),
        ("differs", "differs from the padded model"),
        ("leaks under dropout", "changed another by .* under dropout"),
    ],
)
def test_a_wrong_kernel_is_refused_and_undone(kind: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(tiny_config()).eval()
    ids = torch.randint(5, 70, (2, 9))
    before = model(input_ids=ids).logits
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, attention.NAME, broken(kind))
    with pytest.raises(fasttune.Error, match=reason):
        fasttune.padding_free(model)
    assert not is_padding_free(model)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_probe_leaves_mode_and_random_state_alone() -> None:
    model = transformers.BertForSequenceClassification(tiny_config()).train()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    fasttune.padding_free(model)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
