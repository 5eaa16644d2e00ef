"""Runs an unmodified Hugging Face encoder on real tokens only.

Padding is removed once, round the encoder stack: embeddings see the padded [B, S] batch, a pre-hook on the stack
gathers the real tokens to [1, T, D] and puts their boundaries where the attention mask stood, a post-hook scatters the
result back to [B, S, D], and the model's own head runs unchanged. Nothing of the model's code or weights is touched.
"""

from __future__ import annotations

from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.padding_free import attention
from fasttune.padding_free.boundaries import Boundaries
from fasttune.padding_free.canary import sing

Model = TypeVar("Model", bound=PreTrainedModel)

# model_type of config.json -> attribute of the base model that holds the stack of layers.
ENCODER_STACK = {
    "bert": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
    "camembert": "encoder",
    "electra": "encoder",
    "ernie": "encoder",
    "distilbert": "transformer",
}


class Unpadding:
    """The two hooks on one encoder stack, and what they must remember between them."""

    def __init__(self, stack: torch.nn.Module, stock_attention: str):
        self.stock_attention = stock_attention
        self.boundaries: Boundaries | None = None
        self.handles = [
            stack.register_forward_pre_hook(self.gather, with_kwargs=True),
            stack.register_forward_hook(self.scatter),
        ]

    def gather(self, stack: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Families pass hidden states and mask by position or by name; leave both by name."""
        names = ("hidden_states", "attention_mask")
        kwargs = {**kwargs, **dict(zip(names, args, strict=False))}
        args = args[len(names) :]
        hidden, mask = kwargs["hidden_states"], kwargs.get("attention_mask")
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if mask is None else mask
        boundaries = Boundaries.from_mask(mask)
        self.boundaries = boundaries
        return args, {**kwargs, "hidden_states": boundaries.gather(hidden), "attention_mask": boundaries}

    def scatter(self, stack: torch.nn.Module, args: tuple, output: Any) -> Any:
        boundaries, self.boundaries = self.boundaries, None
        assert boundaries is not None, "the post-hook ran without the pre-hook"
        if isinstance(output, torch.Tensor):
            return boundaries.scatter(output)
        output.last_hidden_state = boundaries.scatter(output.last_hidden_state)
        return output

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


_UNPADDED: WeakKeyDictionary[torch.nn.Module, Unpadding] = WeakKeyDictionary()


def is_padding_free(model: PreTrainedModel) -> bool:
    return model in _UNPADDED


def why_not(model: PreTrainedModel) -> str | None:
    """The reason why this model cannot run without padding, or None."""
    family = model.config.model_type
    if family not in ENCODER_STACK:
        return f"no padding-free path for the {family} family yet"
    if getattr(model.config, "is_decoder", False):
        return "the model is configured as a decoder"
    if not model._supports_attention_backend:
        return f"{type(model).__name__} does not use transformers' attention interface"
    return None


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
    reason = why_not(model)
    if reason is None:
        stock_attention = model.config._attn_implementation
        expected = sing(model)
        stack = getattr(model.base_model, ENCODER_STACK[model.config.model_type])
        model.set_attn_implementation(attention.NAME)
        _UNPADDED[model] = Unpadding(stack, stock_attention)
        reason = expected.compare(sing(model))
        if reason is not None:
            padded_again(model)
    if reason is not None:
        raise EnvironmentProblem(
            Problem(
                where=f"model {model.config.name_or_path or type(model).__name__}",
                found=reason,
                expected=f"one of the families {', '.join(ENCODER_STACK)}, exact without padding",
                hint="train it padded: preprocessing.padding=longest",
                code="E410",
            )
        )
    return model


def padded_again(model: Model) -> Model:
    """Undo `padding_free`, in place: the model pads and attends as transformers made it."""
    unpadding = _UNPADDED.pop(model, None)
    if unpadding is not None:
        unpadding.remove()
        model.set_attn_implementation(unpadding.stock_attention)
    return model
