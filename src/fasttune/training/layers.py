"""The layers of an encoder, and what is above them."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

# The parts of a base model above its layers; all others, such as a table of relative positions, are below.
ABOVE_LAYERS = ("pooler", "final_norm")


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """The layers of an encoder, lowest first; None if the family has no such list, like ALBERT, which has one layer."""
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return module
    return None
