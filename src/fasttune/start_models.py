"""Known encoders to start from: languages, size, licence, published scores, and their speed on this machine."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import torch

from fasttune.recipe import yaml_text
from fasttune.training.flops import peak_flops
from fasttune.training.precision import choose_device, choose_precision

# The share of the fastest matrix product that training reaches, measured on two Zen 4 cores: .42 (embedded model, fp32,
# batches of 8 short rows) to .72 (the same model, bf16, reviews of Yelp).
UTILISATION = 0.5
TOKENS_PER_ROW = 128
MANY_LANGUAGES = "many"


@dataclass(frozen=True)
class Score:
    """A published score in percent, and where it was read."""

    benchmark: str
    value: float
    source: str


@dataclass(frozen=True)
class StartModel:
    """`parameters` in millions, embeddings included. `gated`: whether the layers have three feed-forward matrices."""

    model: str
    languages: str
    parameters: float
    layers: int
    hidden_size: int
    intermediate_size: int
    max_tokens: int
    licence: str
    scores: tuple[Score, ...] = ()
    gated: bool = False
    note: str = ""

    @property
    def flops_per_token(self) -> float:
        """Of forward and backward: 6 for each weight in a product (Kaplan et al. 2020, section 2.1)."""
        attention = 4 * self.hidden_size**2
        feed_forward = (3 if self.gated else 2) * self.hidden_size * self.intermediate_size
        return 6.0 * self.layers * (attention + feed_forward)


def start_models(language: str | None = None) -> list[StartModel]:
    """All of them, or those for a language (a code such as "de") and for many languages."""
    text = importlib.resources.files("fasttune").joinpath("start_models.yaml").read_text("utf-8")
    entries: Any = yaml_text.read(text, "start_models.yaml")[0]
    models = [
        StartModel(**{**entry, "scores": tuple(Score(**score) for score in entry.get("scores", ()))})
        for entry in entries
    ]
    return [model for model in models if language in (None, model.languages) or model.languages == MANY_LANGUAGES]


def rows_per_second(models: list[StartModel]) -> list[float]:
    """Estimated rows of 128 tokens per second, in training on this machine in the precision that `auto` chooses."""
    device = choose_device("auto").value
    peak = peak_flops(torch.device(device), choose_precision("auto", device).value)
    return [UTILISATION * peak / (model.flops_per_token * TOKENS_PER_ROW) for model in models]
