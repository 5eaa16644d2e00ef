"""The hooks that take padding out before the layers of an encoder and put it back behind them.

Most families need nothing else: their stack of layers is one module, and attention goes through transformers' attention
interface. `exceptions` holds those that need more.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from transformers import PreTrainedModel

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.padding_free import attention
from fasttune.padding_free.boundaries import Boundaries

# model_type of config.json -> attribute of the base model that holds the stack of layers.
ENCODER_STACK = {
    "bert": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
    "camembert": "encoder",
    "electra": "encoder",
    "ernie": "encoder",
    "albert": "encoder",
    "distilbert": "transformer",
    "mpnet": "encoder",
    "deberta": "encoder",
    "deberta-v2": "encoder",
}


class Unpadding:
    """Hooks on one model, and what they must remember between them."""

    def __init__(self, model: PreTrainedModel):
        self.stock_attention = model.config._attn_implementation
        self._boundaries: dict[int, Boundaries] = {}  # by thread: several may be in the model at once
        self.pools_first = _pools_first(model)
        self.handles: list[Any] = []
        self.install(model)

    @classmethod
    def unsupported_reason(cls, model: PreTrainedModel) -> str | None:
        """The reason why this model of the family cannot run without padding, or None."""
        if not model._supports_attention_backend:
            return f"{type(model).__name__} does not use transformers' attention interface"
        return None

    def install(self, model: PreTrainedModel) -> None:
        model.set_attn_implementation(attention.NAME)
        self.hook_stack(model)

    def hook_stack(self, model: PreTrainedModel) -> torch.nn.Module:
        stack = getattr(model.base_model, ENCODER_STACK[model.config.model_type])
        self.handles += [
            stack.register_forward_pre_hook(self.before_stack, with_kwargs=True),
            stack.register_forward_hook(self.after_stack),
        ]
        return stack

    def remove(self, model: PreTrainedModel) -> None:
        for handle in self.handles:
            handle.remove()
        if model.config._attn_implementation != self.stock_attention:
            model.set_attn_implementation(self.stock_attention)

    def before_stack(self, stack: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Families pass hidden states and mask by position or by name; leave both by name."""
        names = ("hidden_states", "attention_mask")
        kwargs = {**kwargs, **dict(zip(names, args, strict=False))}
        boundaries = self.find_boundaries(kwargs["hidden_states"], kwargs.get("attention_mask"))
        packed = boundaries.gather(kwargs["hidden_states"])
        return args[len(names) :], {**kwargs, "hidden_states": packed, "attention_mask": boundaries}

    def after_stack(self, stack: torch.nn.Module, args: tuple, output: Any) -> Any:
        boundaries = self.take_boundaries()
        if isinstance(output, torch.Tensor):
            return boundaries.scatter(output)
        if isinstance(output, tuple):
            return boundaries.scatter(output[0]), *output[1:]
        output.last_hidden_state = boundaries.scatter(output.last_hidden_state)
        return output

    def find_boundaries(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> Boundaries:
        """Of a batch whose embeddings are `hidden` [B, S, D], kept for the layers and for `after_stack`."""
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        else:
            mask = _real_keys(mask)
        if self.pools_first and not bool(mask[:, 0].all()):
            raise EnvironmentProblem(
                Problem(
                    where="attention_mask",
                    found="padding on the left",
                    expected="padding on the right: this model's head reads the first position of each row",
                    hint='tokenizer.padding_side = "right"',
                    code="E411",
                )
            )
        boundaries = Boundaries.from_mask(mask)
        if not max(boundaries.lengths):
            raise _wrong_mask("no real token in the whole batch", "at least one")
        if hidden.device.type == "cpu":
            # oneDNN makes (4 ms) and keeps (0.4 MB) a program for every product whose number of tokens is new.
            boundaries = boundaries.filled()
        self.boundaries = boundaries
        return boundaries

    @property
    def boundaries(self) -> Boundaries | None:
        """Those of the forward pass that this thread is in."""
        return self._boundaries.get(threading.get_ident())

    @boundaries.setter
    def boundaries(self, value: Boundaries | None) -> None:
        if value is None:
            self._boundaries.pop(threading.get_ident(), None)
        else:
            self._boundaries[threading.get_ident()] = value

    def take_boundaries(self) -> Boundaries:
        boundaries, self.boundaries = self.boundaries, None
        assert boundaries is not None, "a hook before the layers ran first"
        return boundaries


def _real_keys(mask: torch.Tensor) -> torch.Tensor:
    """[B, S] bool of a mask of any form that says of each row which tokens are real; others are refused.

    As made for attention, [B, 1, Q, S]: 0 at real keys and a large negative number elsewhere, or True at real keys.
    """
    if mask.dim() == 2:
        return mask.bool()
    is_additive = mask.is_floating_point()
    if mask.dim() != 4 or mask.shape[1] != 1 or not (is_additive or mask.dtype == torch.bool):
        raise _wrong_mask(f"a mask of {str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}", "[B, S] of 0 and 1")
    keys = mask == 0 if is_additive else mask
    if not bool((keys == keys[:, :, :1]).all()):
        raise _wrong_mask("a mask in which tokens of one row see different tokens", "[B, S]: one answer for each token")
    return keys[:, 0, 0]


def _wrong_mask(found: str, expected: str) -> EnvironmentProblem:
    hint = "fasttune.padding_free takes the padding out of plain batches; run this model as transformers made it"
    return EnvironmentProblem(Problem(where="attention_mask", found=found, expected=expected, hint=hint, code="E411"))


def _pools_first(model: PreTrainedModel) -> bool:
    """Whether the head reads position 0; heads for tokens and spans read every position."""
    is_classifier = type(model).__name__.endswith(("ForSequenceClassification", "ForMultipleChoice"))
    return is_classifier and getattr(model.config, "classifier_pooling", "cls") != "mean"
