"""Families that need more than the two hooks around a stack of layers.

MPNet and DeBERTa compute attention in their own modules, with relative position biases. That code runs unchanged on
buckets of sequences of similar length, padded to the longest; all other layers see real tokens only. ModernBERT has no
module around its layers, and has rotary positions and local attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel

from fasttune.unpadding import attention
from fasttune.unpadding.boundaries import Boundaries, Bucket
from fasttune.unpadding.hooks import ENCODER_STACK, Unpadding


class AttentionInBlocks(Unpadding, ABC):
    """Calls the family's attention module once per bucket. Subclasses name the module and build its arguments."""

    attention_module: Callable[[torch.nn.Module], torch.nn.Module]

    @classmethod
    def unsupported_reason(cls, model: PreTrainedModel) -> str | None:
        if model.is_activation_checkpointing:
            return "its attention cannot be recomputed, as gradient checkpointing requires"
        return None

    def install(self, model: PreTrainedModel) -> None:
        stack: Any = self.hook_stack(model)
        self.stack = stack
        self.modules: list[Any] = [type(self).attention_module(layer) for layer in stack.layer]
        for module in self.modules:
            module.unpadding = self
            # Bound to this module, so that deep copies of the model get their own.
            module.forward = MethodType(in_blocks, module)

    def remove(self, model: PreTrainedModel) -> None:
        super().remove(model)
        for module in self.modules:
            del module.forward, module.unpadding  # the instance attributes; the class keeps its forward

    @abstractmethod
    def arguments(self, block: torch.Tensor, bucket: Bucket, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The arguments of the stock module, besides this bucket's hidden states [num_sequences, length, D]."""


def in_blocks(module: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """The attention module's forward while its model runs without padding: [1, T, D] -> [1, T, D]."""
    stock, unpadding = type(module).forward, module.unpadding
    if unpadding.boundaries is None:  # called directly, outside the model
        return stock(module, hidden_states, *args, **kwargs)
    outputs = []
    for bucket in unpadding.boundaries.buckets:
        block = bucket.pad(hidden_states[0, bucket.start : bucket.stop])
        out = stock(module, block, **unpadding.arguments(block, bucket, *args, **kwargs))[0]
        outputs.append(bucket.unpad(out))
    return torch.cat(outputs)[None], None


class MPNet(AttentionInBlocks):
    """Computes the relative position bias, which all layers share, for the longest sequence instead of all tokens."""

    attention_module = staticmethod(lambda layer: layer.attention.attn)

    def install(self, model: PreTrainedModel) -> None:
        super().install(model)
        self.stack.unpadding = self
        self.stack.compute_position_bias = MethodType(bias_of_the_longest, self.stack)

    def remove(self, model: PreTrainedModel) -> None:
        super().remove(model)
        del self.stack.compute_position_bias, self.stack.unpadding

    def arguments(self, block: torch.Tensor, bucket: Bucket, *args: Any, **kwargs: Any) -> dict[str, Any]:
        _, position_bias = args  # mask and bias
        mask = None if bucket.bias is None else bucket.bias.to(block.dtype)
        return {"attention_mask": mask, "position_bias": position_bias[:, :, : bucket.length, : bucket.length]}


def bias_of_the_longest(stack: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    boundaries = stack.unpadding.boundaries
    shorter = hidden if boundaries is None else hidden[:, : max(boundaries.lengths)]
    return type(stack).compute_position_bias(stack, shorter, *args, **kwargs)


class Deberta(AttentionInBlocks):
    """DeBERTa v1 to v3: relative position biases are looked up with `relative_pos` [1, length, length]."""

    attention_module = staticmethod(lambda layer: layer.attention.self)

    @classmethod
    def unsupported_reason(cls, model: PreTrainedModel) -> str | None:
        stack = getattr(model.base_model, ENCODER_STACK[model.config.model_type])
        if getattr(stack, "conv", None) is not None:
            return "its convolution would mix tokens of different sequences"
        if getattr(model.base_model, "z_steps", 0) > 1:
            return "its last layer runs more than once, outside the stack"
        return super().unsupported_reason(model)

    def before_stack(self, stack: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Pass in the distances of the longest sequence, so that the stack builds no [T, T] masks and distances."""
        args, kwargs = super().before_stack(stack, args, kwargs)
        hidden, boundaries = kwargs["hidden_states"], kwargs["attention_mask"]
        assert isinstance(boundaries, Boundaries)
        kwargs["attention_mask"] = hidden.new_ones(1, 1, 1, 1)  # four dimensions, so that the stack leaves it unchanged
        get_rel_pos: Any = stack.get_rel_pos
        kwargs["relative_pos"] = get_rel_pos(hidden[:, : max(boundaries.lengths)])
        return args, kwargs

    def after_stack(self, stack: torch.nn.Module, args: tuple, output: Any) -> Any:
        """Restore padding in the last of all hidden states too: the model uses it, not `last_hidden_state`."""
        boundaries = self.take_boundaries()
        if isinstance(output, tuple):  # return_dict=False: (last hidden state, all hidden states, ...)
            last = boundaries.scatter(output[0])
            return last, (*output[1][:-1], last), *output[2:]
        output.last_hidden_state = boundaries.scatter(output.last_hidden_state)
        output.hidden_states = (*output.hidden_states[:-1], output.last_hidden_state)
        return output

    def arguments(self, block: torch.Tensor, bucket: Bucket, *args: Any, **kwargs: Any) -> dict[str, Any]:
        distances = kwargs["relative_pos"]
        if distances is not None:
            distances = distances[:, : bucket.length, : bucket.length]
        mask = torch.ones(1, 1, 1, 1, device=block.device) if bucket.bias is None else bucket.bias == 0
        return {
            "attention_mask": mask.expand(-1, -1, bucket.length, bucket.length),
            "relative_pos": distances,
            "rel_embeddings": kwargs["rel_embeddings"],
        }


class ModernBert(Unpadding):
    """Passes boundaries in place of each layer's mask, with the rotary angles of the real tokens."""

    def install(self, model: PreTrainedModel) -> None:
        model.set_attn_implementation(attention.NAME)
        base: Any = model.base_model
        self.angles: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.handles += [
            base.register_forward_pre_hook(self.forget),
            *(layer.register_forward_pre_hook(self.before_layer, with_kwargs=True) for layer in base.layers),
            base.final_norm.register_forward_hook(self.after_norm),
        ]

    def forget(self, base: torch.nn.Module, args: tuple) -> None:
        """Discard what a forward pass that raised an exception left behind."""
        self.boundaries = None
        self.angles.clear()

    def before_layer(self, layer: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        (hidden,) = args
        if self.boundaries is None:  # the first layer
            hidden = self.find_boundaries(hidden, kwargs["attention_mask"]).gather(hidden)
        kwargs = {**kwargs, "attention_mask": self.boundaries, "position_embeddings": self.packed_angles(kwargs)}
        return (hidden,), kwargs

    def packed_angles(self, kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather cosines and sines: [B or 1, S, d] -> [1, T, d]. Cached, since layers of a kind share them."""
        angles, boundaries = kwargs["position_embeddings"], self.boundaries
        assert boundaries is not None
        if id(angles) not in self.angles:
            rows = len(boundaries.lengths) - boundaries.num_fillers
            cosines, sines = (boundaries.gather(tensor.expand(rows, -1, -1)) for tensor in angles)
            self.angles[id(angles)] = (cosines, sines)
        return self.angles[id(angles)]

    def after_norm(self, norm: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        self.angles.clear()
        return self.take_boundaries().scatter(output)


ADAPTERS: dict[str, type[Unpadding]] = {
    "mpnet": MPNet,
    "deberta": Deberta,
    "deberta-v2": Deberta,
    "modernbert": ModernBert,
}
OWN_ATTENTION = tuple(family for family, adapter in ADAPTERS.items() if issubclass(adapter, AttentionInBlocks))
