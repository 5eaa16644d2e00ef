"""Run an unmodified Hugging Face encoder on real tokens only.

Padding is removed once, around the encoder stack. The embeddings see the padded [B, S] batch; a pre-hook on the stack
gathers the real tokens to [1, T, D] and passes their boundaries in place of the attention mask; a post-hook scatters
the result back to [B, S, D]; and the model's head runs unchanged. The model's code and weights are not modified.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.unpadding import attention
from fasttune.unpadding.families import ADAPTERS
from fasttune.unpadding.hooks import BEHIND_ATTENTION, ENCODER_STACK, Unpadding
from fasttune.unpadding.probe import first_states, is_close, run_probe

Model = TypeVar("Model", bound=PreTrainedModel)

FAMILIES = (*ENCODER_STACK, *(family for family in ADAPTERS if family not in ENCODER_STACK))

MAX_PROGRAMS = 128

_UNPADDED: WeakKeyDictionary[torch.nn.Module, Unpadding] = WeakKeyDictionary()


def is_padding_free(model: PreTrainedModel) -> bool:
    return model in _UNPADDED


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Why this model cannot run without padding, in words, or None if it can."""
    family = model.config.model_type
    if family not in FAMILIES:
        return f"the {family} family is not supported yet"
    if getattr(model.config, "is_decoder", False):
        return "it is configured as a decoder"
    return ADAPTERS.get(family, Unpadding).unsupported_reason(model)


def padding_free(model: Model) -> Model:
    """Make `model` run on real tokens only, in place, and return it.

    Outputs at real positions, losses and gradients equal those of the padded model; hidden states at padding are zero.
    Call the model with `input_ids` and `attention_mask` as usual, in any training loop. A small probe runs first: if a
    result differs from the padded model's, or if changing one sequence changes another, the model is left unchanged and
    EnvironmentProblem gives the reason. Unsupported families raise it too.

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
                found=f"cannot run without padding: {reason}",
                hint="train it padded: preprocessing.padding=longest",
                code="E410",
            )
        )
    return model


def verify_kernel(model: PreTrainedModel) -> str | None:
    """Compare the model with and without padding again, as it is now; return the difference in words, or None.

    Under autocast and on a GPU, other kernels run than those that `padding_free` compared.
    """
    unpadding = _UNPADDED[model]
    output = run_probe(model)
    unpadding.remove(model)
    try:
        expected = run_probe(model)
    finally:
        unpadding.handles = []
        unpadding.install(model)
    return expected.compare(output)


def read_first_token(model: PreTrainedModel) -> bool:
    """Compute the last layer of a padding-free classifier for the first token of each sequence only.

    The head reads nothing else, so its output and all gradients stay the same, and three quarters of that layer's
    products are saved. The encoder's `last_hidden_state` is then [B, 1, D]. Returns False, and changes nothing, for a
    head that reads more, for families whose layers cannot be cut there, and if the probe's first tokens change.
    """
    unpadding = _UNPADDED[model]
    if not unpadding.pools_first or model.config.model_type not in BEHIND_ATTENTION:
        return False
    was_training = model.training
    model.eval()
    try:
        expected = first_states(model)
        unpadding.read_first(model)
        is_same = is_close(expected, first_states(model), model)
    finally:
        model.train(was_training)
    if not is_same:
        _reinstall(unpadding, model)
    return is_same


def layers_to_compile(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The layers that `compiled_layers` compiles: none for ALBERT, which transformers builds otherwise."""
    layers: list[torch.nn.Module] = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    return layers[:-1] if _UNPADDED[model].reads_first else layers


@contextmanager
def compiled_layers(model: PreTrainedModel) -> Iterator[None]:
    """Run the layers of a padding-free model through torch.compile in this block, except for their attention.

    Programs are for any number of tokens. The last layer stays as it is if `read_first_token` has cut it.
    """
    import torch._dynamo.config as dynamo  # imported late: it takes a second

    layers = layers_to_compile(model)
    try:
        # A call from compiled code: what it reads of the boundaries must not become part of a program.
        AttentionInterface.register(attention.NAME, torch.compiler.disable(attention.attention))
        for layer in layers:  # not their hooks, of which some belong to `padding_free`
            layer.forward = torch.compile(layer.forward, dynamic=True)
        # By default torch gives up after 8 programs for a function, without an error; models of one process share them.
        with dynamo.patch(recompile_limit=MAX_PROGRAMS, accumulated_recompile_limit=8 * MAX_PROGRAMS):
            yield
    finally:
        AttentionInterface.register(attention.NAME, attention.attention)
        for layer in layers:
            vars(layer).pop("forward", None)


def _reinstall(unpadding: Unpadding, model: PreTrainedModel) -> None:
    """Put the hooks on again, without those of `read_first`."""
    unpadding.remove(model)
    unpadding.handles = []
    unpadding.install(model)


def restore_padding(model: Model) -> Model:
    """Undo `padding_free` in place: the model uses transformers' attention on padded batches again."""
    unpadding = _UNPADDED.pop(model, None)
    if unpadding is not None:
        unpadding.remove(model)
    return model
