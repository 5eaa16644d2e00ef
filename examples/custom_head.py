"""Your own module on an encoder without padding, and your own autograd.Function in it, checked by gradcheck.

    python examples/custom_head.py
    torchrun --nproc-per-node 2 examples/custom_head.py

`BiasAdd` adds a bias [D] to anything that ends in D. In the forward pass the bias is repeated along all other
dimensions; so in the backward pass its gradient is the sum over them. Forgetting that sum is the usual mistake, and
`torch.autograd.gradcheck` finds it: it compares the backward pass with differences of the forward pass, in float64,
where such differences have enough digits.
"""

from __future__ import annotations

import argparse

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from custom_loop import make_loaders, make_schedule, parse, scores
from torch import nn
from torch.nn.functional import cross_entropy

import fasttune
from fasttune.data.starter.model import embedded_model_path
from fasttune.data.starter.pairs import LABELS


class BiasAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return hidden + bias

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradient, gradient.flatten(0, -2).sum(0)


class BiasedLinear(nn.Module):
    """hidden [..., D] -> [..., K], a linear map and a bias that starts at 0."""

    def __init__(self, num_inputs: int, num_outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return BiasAdd.apply(hidden @ self.weight.T, self.bias)


class PairClassifier(nn.Module):
    """The mean of an encoder's hidden states over real tokens, then a head of our own."""

    def __init__(self, num_classes: int, **settings):
        super().__init__()
        # No pooler: nothing would come from it, and DDP waits for the gradient of every parameter.
        encoder = transformers.AutoModel.from_pretrained(
            embedded_model_path(), dtype=torch.float32, add_pooling_layer=False, **settings
        )
        self.encoder = fasttune.padding_free(encoder)
        self.head = BiasedLinear(encoder.config.hidden_size, num_classes)

    def forward(self, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """[B, K] logits; `attention_mask` [B, S]."""
        hidden = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state
        real = attention_mask[..., None].to(hidden.dtype)
        return self.head((hidden * real).sum(1) / real.sum(1))


def check() -> bool:
    """An error where a gradient is wrong."""
    hidden = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    return torch.autograd.gradcheck(BiasAdd.apply, (hidden, bias))


def train(arguments: argparse.Namespace, **settings) -> tuple[list[float], dict[str, float]]:
    """The loss of each step, and the scores at the end; on any number of processes."""
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    transformers.set_seed(arguments.seed)
    model = PairClassifier(len(LABELS), **settings)
    rows, validation = make_loaders(arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
    model, optimizer, rows, validation = accelerator.prepare(model, optimizer, rows, validation)
    schedule = make_schedule(optimizer, arguments.epochs * len(rows))
    losses = []
    for _ in range(arguments.epochs):
        model.train()
        for batch in rows:
            labels = batch.pop("labels")
            loss = cross_entropy(model(**batch), labels)
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(accelerator.reduce(loss.detach(), reduction="mean").item())
    model.eval()
    predictions, expected = [], []
    with torch.no_grad():
        for batch in validation:
            labels = batch.pop("labels")
            predicted, labels = accelerator.gather_for_metrics((model(**batch).argmax(-1), labels))
            predictions += predicted.tolist()
            expected += labels.tolist()
    return losses, scores(predictions, expected)


def main() -> None:
    check()
    losses, found = train(parse())
    if Accelerator().is_main_process:
        print(
            f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, " + ", ".join(f"{key} {one:.3f}" for key, one in found.items())
        )


if __name__ == "__main__":
    main()
