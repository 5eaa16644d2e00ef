"""The hooks that remove padding before the layers of an encoder and restore it after them.

Most families need nothing else: their layers are in a single module, and they use transformers' attention interface.
`families` holds those that need more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.unpadding import attention
from fasttune.unpadding.boundaries import Boundaries

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
# model_type -> the module of a layer behind which every token is computed for itself, from (hidden, residual) or from
# their sum.
BEHIND_ATTENTION = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie"), "attention.output"),
    "distilbert": "sa_layer_norm",
}


_known = threading.local()  # `boundaries`: those of the batch that this thread is about to run


@contextmanager
def known_boundaries(lengths: Sequence[int], index: torch.Tensor, starts: torch.Tensor, width: int) -> Iterator[None]:
    """Tell the models that run in this block the boundaries of their batch, so that they need not read its mask.

    Reading it waits for a GPU. `lengths` (B,) on the host; `index` (T,) int64 and `starts` (B + 1,) int32 on the
    device; `width`: S. Padding is on the right.
    """
    _known.boundaries = Boundaries(tuple(lengths), index, width, given_starts=starts)
    try:
        yield
    finally:
        _known.boundaries = None


class Unpadding:
    """The hooks on a model, and the state they share."""

    def __init__(self, model: PreTrainedModel):
        self.stock_attention = model.config._attn_implementation
        self._boundaries: dict[int, Boundaries] = {}  # by thread: several threads may run the model at once
        self.pools_first = _pools_first(model)
        self.reads_first = False  # whether the last layer computes first tokens only
        self._of_last: dict[int, Boundaries] = {}  # by thread
        self.handles: list[Any] = []
        self.install(model)

    @classmethod
    def unsupported_reason(cls, model: PreTrainedModel) -> str | None:
        """Why this model of the family cannot run without padding, in words, or None if it can."""
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
        self.reads_first = False
        if model.config._attn_implementation != self.stock_attention:
            model.set_attn_implementation(self.stock_attention)

    def before_stack(self, stack: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Replace hidden states and mask, which families pass by position or by name; pass both on by name."""
        names = ("hidden_states", "attention_mask")
        kwargs = {**kwargs, **dict(zip(names, args, strict=False))}
        boundaries = self.find_boundaries(kwargs["hidden_states"], kwargs.get("attention_mask"))
        packed = boundaries.gather(kwargs["hidden_states"])
        return args[len(names) :], {**kwargs, "hidden_states": packed, "attention_mask": boundaries}

    def after_stack(self, stack: torch.nn.Module, args: tuple, output: Any) -> Any:
        boundaries = self.take_boundaries()
        restored = _first_tokens if self.reads_first else Boundaries.scatter
        if isinstance(output, torch.Tensor):
            return restored(boundaries, output)
        if isinstance(output, tuple):
            return restored(boundaries, output[0]), *output[1:]
        output.last_hidden_state = restored(boundaries, output.last_hidden_state)
        return output

    def read_first(self, model: PreTrainedModel) -> None:
        """Let the last layer compute only first tokens behind its attention, as `read_first_token` says."""
        stack: Any = getattr(model.base_model, ENCODER_STACK[model.config.model_type])
        last = stack.layer[-1]
        module = last.get_submodule(BEHIND_ATTENTION[model.config.model_type])
        self.handles += [
            last.attention.register_forward_pre_hook(self.before_last_attention, with_kwargs=True),
            module.register_forward_pre_hook(self.behind_last_attention),
        ]
        self.reads_first = True

    def before_last_attention(self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Note the boundaries that are passed as the mask: with gradient checkpointing the layer runs again in the
        backward pass, when `self.boundaries` is gone. Hooks of the layer itself do not run then."""
        given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Boundaries))
        self._of_last[threading.get_ident()] = given

    def behind_last_attention(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple:
        firsts = self._of_last.pop(threading.get_ident()).firsts
        return tuple(hidden.index_select(1, firsts) for hidden in args)

    def find_boundaries(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> Boundaries:
        """Find the boundaries of a batch with embeddings `hidden` [B, S, D]; the layers and `after_stack` use them."""
        known: Boundaries | None = getattr(_known, "boundaries", None)
        if known is not None and (len(known.lengths), known.padded_length) == tuple(hidden.shape[:2]):
            boundaries = known
        else:
            boundaries = self.boundaries_of(hidden, mask)
        if hidden.device.type == "cpu":
            # oneDNN compiles and keeps a program for each new number of tokens (docs/decisions/0011).
            boundaries = boundaries.filled()
        self.boundaries = boundaries
        return boundaries

    def boundaries_of(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> Boundaries:
        """Read them from the mask, which waits for the device."""
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        else:
            mask = _real_keys(mask)
        if self.pools_first and not bool(mask[:, 0].all()):
            raise EnvironmentProblem(
                Problem(
                    where="attention_mask",
                    found="padding on the left",
                    expected="padding on the right, because this model's head reads the first position of each row",
                    hint='tokenizer.padding_side = "right"',
                    code="E411",
                )
            )
        boundaries = Boundaries.from_mask(mask)
        if not max(boundaries.lengths):
            raise _wrong_mask("the batch has no real tokens")
        return boundaries

    @property
    def boundaries(self) -> Boundaries | None:
        """The boundaries of this thread's current forward pass."""
        return self._boundaries.get(threading.get_ident())

    @boundaries.setter
    def boundaries(self, value: Boundaries | None) -> None:
        if value is None:
            self._boundaries.pop(threading.get_ident(), None)
        else:
            self._boundaries[threading.get_ident()] = value

    def take_boundaries(self) -> Boundaries:
        boundaries, self.boundaries = self.boundaries, None
        assert boundaries is not None, "the hook before the layers runs first"
        return boundaries


def _first_tokens(boundaries: Boundaries, packed: torch.Tensor) -> torch.Tensor:
    """[1, B, D] -> [B, 1, D]: the last layer has left first tokens only."""
    return packed.transpose(0, 1)


def _real_keys(mask: torch.Tensor) -> torch.Tensor:
    """Convert a padding mask of any form to [B, S] bool; EnvironmentProblem for any other mask.

    Masks as built for attention are [B, 1, Q, S]: 0 at real keys and a large negative number elsewhere, or bool with
    True at real keys.
    """
    if mask.dim() == 2:
        return mask.bool()
    is_additive = mask.is_floating_point()
    if mask.dim() != 4 or mask.shape[1] != 1 or not (is_additive or mask.dtype == torch.bool):
        dtype = str(mask.dtype).removeprefix("torch.")
        raise _wrong_mask(f"a mask of shape {list(mask.shape)} and type {dtype}", "shape [B, S] with values 0 and 1")
    keys = mask == 0 if is_additive else mask
    if not bool((keys == keys[:, :, :1]).all()):
        raise _wrong_mask("the mask lets the tokens of a row attend to different tokens")
    return keys[:, 0, 0]


def _wrong_mask(found: str, expected: str = "") -> EnvironmentProblem:
    hint = "padding_free supports padding masks only; use this model without it"
    return EnvironmentProblem(Problem(where="attention_mask", found=found, expected=expected, hint=hint, code="E411"))


def _pools_first(model: PreTrainedModel) -> bool:
    """Whether the head reads position 0; heads for tokens and spans read every position."""
    is_classifier = type(model).__name__.endswith(("ForSequenceClassification", "ForMultipleChoice"))
    return is_classifier and getattr(model.config, "classifier_pooling", "cls") != "mean"
