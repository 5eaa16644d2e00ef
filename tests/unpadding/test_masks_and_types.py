"""`padding_free` in other training loops: masks of other forms, half-precision weights, several threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from tiny import tiny_config

import fasttune
from fasttune.unpadding import verify_kernel
from fasttune.unpadding.hooks import Unpadding

LENGTHS = (5, 9, 1)


def make_model(**changes: object) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(tiny_config(**changes)).eval()


def batch() -> dict[str, torch.Tensor]:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, 70, mask.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def mask_of(keys: torch.Tensor, form: str) -> torch.Tensor:
    """Convert a [B, S] bool mask to another form that attention accepts."""
    see = keys[:, None, None].expand(-1, 1, keys.shape[1], -1)
    if form == "bool":
        return see
    return torch.zeros(see.shape).masked_fill(~see, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("form", ["bool", "additive"])
def test_a_mask_as_attention_takes_it_means_the_same(form: str) -> None:
    """Real tokens are True in the bool form and 0 in the additive form."""
    model, keys = make_model(), batch()["attention_mask"].bool()
    unpadding = Unpadding(model)
    hidden = torch.randn(*keys.shape, 32)
    assert unpadding.find_boundaries(hidden, mask_of(keys, form)).starts[: len(LENGTHS) + 1] == [0, 5, 14, 15]
    assert torch.equal(
        unpadding.find_boundaries(hidden, mask_of(keys, form)).index, keys.flatten().nonzero().squeeze(1)
    )


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(torch.ones(3, 9, 9).tril(), id="3-D"),
        pytest.param(torch.ones(3, 1, 9, 9, dtype=torch.bool).tril(), id="causal"),
        pytest.param(torch.zeros(3, 1, 9, 9).masked_fill(torch.ones(9, 9).triu(1) > 0, -1e9), id="additive and causal"),
        pytest.param(torch.ones(3, 4, 9, 9, dtype=torch.bool), id="one a head"),
        pytest.param(torch.ones(3, 1, 9, 9, dtype=torch.long), id="4-D whole numbers"),
        pytest.param(torch.zeros(3, 9, dtype=torch.long), id="nothing real"),
    ],
)
def test_a_mask_that_padding_cannot_be_told_from_is_refused(mask: torch.Tensor) -> None:
    unpadding = Unpadding(make_model())
    with pytest.raises(fasttune.Error, match="E411 attention_mask"):
        unpadding.find_boundaries(torch.randn(3, 9, 32), mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_taken(dtype: torch.dtype) -> None:
    """transformers 5 loads a checkpoint in the dtype it is stored in."""
    model = make_model().to(dtype)
    expected = model(**batch()).logits
    found = fasttune.padding_free(model)(**batch()).logits
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected.float(), atol=8 * torch.finfo(dtype).eps, rtol=0)


def test_a_leak_is_found_in_half_precision_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from fasttune.unpadding.boundaries import Boundaries

    real = Boundaries.from_mask.__func__

    def one_for_all(cls: type[Boundaries], mask: torch.Tensor) -> Boundaries:
        found = real(cls, mask)
        return cls((sum(found.lengths), *[0] * (len(found.lengths) - 1)), found.index, found.padded_length)

    monkeypatch.setattr(Boundaries, "from_mask", classmethod(one_for_all))
    with pytest.raises(fasttune.Error, match="E410"):
        fasttune.padding_free(make_model(initializer_range=0.5).to(torch.bfloat16))


def test_the_probe_is_made_again_as_the_model_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fasttune.padding_free(make_model())
    with torch.autocast("cpu", torch.bfloat16):
        assert verify_kernel(model) is None
    before = model(**batch()).logits
    from fasttune.unpadding import attention

    real = attention.attention
    monkeypatch.setattr(
        "fasttune.unpadding.attention.attention", lambda *args, **how: (real(*args, **how)[0] * 2, None)
    )
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, lambda *args, **how: (real(*args, **how)[0] * 2, None))
    try:
        assert "differs from the padded model" in str(verify_kernel(model))
    finally:
        AttentionInterface.register(attention.NAME, real)
    torch.testing.assert_close(model(**batch()).logits, before)


def test_local_attention_is_probed_beyond_its_window() -> None:
    from fasttune.unpadding.probe import run_probe

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ModernBertConfig(vocab_size=79, local_attention=8, pad_token_id=0, **sizes)
    assert len(run_probe(transformers.ModernBertModel(config)).plain) == 7 + (8 + 5) + 3


def test_threads_may_share_a_model() -> None:
    model = fasttune.padding_free(make_model())
    whole = batch()
    parts = [{name: tensor[row : row + 1, : LENGTHS[row]] for name, tensor in whole.items()} for row in range(3)] * 40
    with torch.no_grad():
        expected = [model(**part).logits for part in parts]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda part: model(**part).logits, parts))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert copy.deepcopy(model) is not model, "hooks hold nothing that cannot be copied"
