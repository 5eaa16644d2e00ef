"""A tiny batch that must come out right before a model may run without padding.

Packing goes wrong silently: a model that ignores boundaries still trains, on mixed-up sequences. So two things are
proved on the very model that was loaded: nothing differs from the stock model, and no sequence moves another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

LENGTHS = (7, 12, 3)  # ragged, and the longest not first
# fp32 sums in another order; a leak between sequences moves hidden states by far more than this.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Song:
    """Hidden states of the real tokens of the probe, (T, D), and again after the ids of the second sequence changed."""

    plain: torch.Tensor
    changed: torch.Tensor

    def compare(self, other: Song) -> str | None:
        """What `other` does differently, in words, or None."""
        difference = (self.plain - other.plain).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, self.plain.abs().max().item()):
            return f"the probe differs from the padded model by {difference:.1e}"
        first = LENGTHS[0]
        leak = (other.plain[:first] - other.changed[:first]).abs().max().item()
        if not leak <= TOLERANCE:
            return f"changing one sequence of the probe moved another by {leak:.1e}"
        return None


@torch.no_grad()
def sing(model: PreTrainedModel) -> Song:
    """Run the probe in fp32 and evaluation mode; the model's mode and torch's random state are left as they were."""
    generator = torch.Generator().manual_seed(0)
    longest = max(LENGTHS)
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    pad = model.config.pad_token_id or 0
    highest = min(model.config.vocab_size, 1000)
    ids = torch.randint(min(pad + 1, highest - 1), highest, mask.shape, generator=generator)
    other_ids = ids.clone()
    other_ids[1] = torch.randint(min(pad + 1, highest - 1), highest, (longest,), generator=generator)
    training = model.training
    model.eval()
    try:
        songs = []
        for row_ids in (ids, other_ids):
            row_ids = row_ids.masked_fill(~mask, pad)
            output = model.base_model(input_ids=row_ids.to(model.device), attention_mask=mask.long().to(model.device))
            songs.append(output.last_hidden_state.float().cpu()[mask])
    finally:
        model.train(training)
    return Song(*songs)
