"""`model_head: mean`: a classifier that reads the mean of the tokens' vectors, as sentence embedders are trained to.

Saved in the format of sentence-transformers' CrossEncoder: the encoder as a plain Hugging Face model, 1_Pooling, and
2_Dense with the one layer behind it. Letters: B sequences, S padded length, D hidden width, K outputs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from fasttune.training.head import copy_rows

MEAN_HEAD = "mean"  # the value of `model_head`, and of `auto_class` where a model is loaded
WEIGHTS = "2_Dense/model.safetensors"
# Names of the dropout before a classifier, in the order of their claim.
DROPOUT_FIELDS = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob")
MODULES = {
    "": "sentence_transformers.base.modules.transformer.Transformer",
    "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "2_Dense": "sentence_transformers.base.modules.dense.Dense",
}
IDENTITY = "torch.nn.modules.linear.Identity"


class WithMeanHead:
    """The parts of a model above its encoder; `class_with_mean_head` adds those of the family."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)  # type: ignore[call-arg]  # of the family's PreTrainedModel
        body_class = _body_class(config)
        has_pooler = "add_pooling_layer" in inspect.signature(body_class).parameters
        body = AutoModel.from_config(config, **({"add_pooling_layer": False} if has_pooler else {}))
        setattr(self, self.base_model_prefix, body)  # type: ignore[attr-defined]
        dropouts = (getattr(config, field, None) for field in DROPOUT_FIELDS)
        self.dropout = nn.Dropout(next((value for value in dropouts if value is not None), 0.1))
        self.dense = nn.Linear(int(config.hidden_size), int(config.num_labels or 0))
        self.post_init()  # type: ignore[attr-defined]

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Logits [B, K]; `attention_mask` [B, S] has 1 at real tokens."""
        assert attention_mask is not None
        body = self.base_model  # type: ignore[attr-defined]
        hidden = body(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        is_real = attention_mask.unsqueeze(-1).float()
        means = (hidden.float() * is_real).sum(dim=1) / is_real.sum(dim=1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.dense(self.dropout(means)))


def class_with_mean_head(config: PreTrainedConfig) -> Any:
    """The class of a model of this family with a mean-pooling head; its `from_pretrained` reads a plain encoder."""
    body_class = _body_class(config)
    family = next(parent for parent in body_class.__mro__ if parent.__name__.endswith("PreTrainedModel"))
    return type(f"{body_class.__name__}WithMeanHead", (WithMeanHead, family), {})


def _body_class(config: PreTrainedConfig) -> Any:
    found: Any = MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found  # Funnel has two bodies, the first of which is the default


def load_dense(model: PreTrainedModel, path: str | None, before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Load the rows of the last layer from 2_Dense for the labels that it shares with `now`; returns these."""
    if path is None:
        return []
    saved = load_file(path)
    dense: Any = model.dense
    return copy_rows(dense, (saved["linear.weight"], saved["linear.bias"]), before, now)


def save_with_mean_head(folder: Path, model: PreTrainedModel) -> None:
    """Save encoder, pooling and last layer, as CrossEncoder(folder) loads them."""
    body: Any = model.base_model
    body.save_pretrained(folder)
    dense: Any = model.dense
    (folder / "2_Dense").mkdir()
    save_file({"linear.weight": dense.weight.cpu(), "linear.bias": dense.bias.cpu()}, folder / WEIGHTS)
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": kind}
            for number, (path, kind) in enumerate(MODULES.items())
        ],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
        "config_sentence_transformers.json": {"model_type": "CrossEncoder", "activation_fn": IDENTITY},
        "1_Pooling/config.json": {
            "embedding_dimension": dense.in_features,
            "pooling_mode": "mean",
            "include_prompt": True,
        },
        "2_Dense/config.json": {
            "in_features": dense.in_features,
            "out_features": dense.out_features,
            "bias": True,
            "activation_function": IDENTITY,
            "module_input_name": "sentence_embedding",
            "module_output_name": "scores",
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
