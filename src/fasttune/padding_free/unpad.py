"""Runs an unmodified Hugging Face encoder on real tokens only.

Padding is removed once, round the encoder stack: embeddings see the padded [B, S] batch, a pre-hook on the stack
gathers the real tokens to [1, T, D] and puts their boundaries where the attention mask stood, a post-hook scatters the
result back to [B, S, D], and the model's own head runs unchanged. Nothing of the model's code or weights is touched.
"""

from __future__ import annotations

from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.padding_free.families import ADAPTERS
from fasttune.padding_free.hooks import ENCODER_STACK, Unpadding
from fasttune.padding_free.probe import run_probe

Model = TypeVar("Model", bound=PreTrainedModel)

FAMILIES = (*ENCODER_STACK, *(family for family in ADAPTERS if family not in ENCODER_STACK))

_UNPADDED: WeakKeyDictionary[torch.nn.Module, Unpadding] = WeakKeyDictionary()


def is_padding_free(model: PreTrainedModel) -> bool:
    return model in _UNPADDED


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """The reason why this model cannot run without padding, or None."""
    family = model.config.model_type
    if family not in FAMILIES:
        return f"no padding-free path for the {family} family yet"
    if getattr(model.config, "is_decoder", False):
        return "the model is configured as a decoder"
    return ADAPTERS.get(family, Unpadding).unsupported_reason(model)


def padding_free(model: Model) -> Model:
    """Make `model` run on real tokens only, in place, and return it.

    Outputs at real positions, losses and gradients equal those of the padded model; hidden states at padding are zero.
    Works in anybody's loop: call the model with `input_ids` and `attention_mask` as usual. A small probe (the canary)
    runs first; if changing one sequence moved another, or a result differed from the stock model's, the model is
    left as it was and EnvironmentProblem says why, as it does for a family without a padding-free path.

    >>> model = fasttune.padding_free(AutoModelForSequenceClassification.from_pretrained(path))  # doctest: +SKIP
    """
    if is_padding_free(model):
        return model
    reason = unsupported_reason(model)
    if reason is None:
        expected = run_probe(model)
        _UNPADDED[model] = ADAPTERS.get(model.config.model_type, Unpadding)(model)
        try:
            reason = expected.compare(run_probe(model))
        except BaseException:
            restore_padding(model)
            raise
        if reason is not None:
            restore_padding(model)
    if reason is not None:
        raise EnvironmentProblem(
            Problem(
                where=f"model {model.config.name_or_path or type(model).__name__}",
                found=reason,
                expected=f"one of the families {', '.join(FAMILIES)}, exact without padding",
                hint="train it padded: preprocessing.padding=longest",
                code="E410",
            )
        )
    return model


def prove(model: PreTrainedModel) -> str | None:
    """Run the probe again as the model stands now, with and without padding; what differs, in words, or None.

    Within an autocast and on a GPU other kernels compute than those that `padding_free` compared.
    """
    unpadding = _UNPADDED[model]
    found = run_probe(model)
    unpadding.remove(model)
    try:
        expected = run_probe(model)
    finally:
        unpadding.handles = []
        unpadding.install(model)
    return expected.compare(found)


def restore_padding(model: Model) -> Model:
    """Undo `padding_free`, in place: the model pads and attends as transformers made it."""
    unpadding = _UNPADDED.pop(model, None)
    if unpadding is not None:
        unpadding.remove(model)
    return model
