"""A tiny batch that must come out right before a model may run without padding.

Packing goes wrong silently: a model that ignores boundaries still trains, on mixed-up sequences. So two things are
proved on the very model that was loaded: nothing differs from the stock model, and no sequence moves another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

LENGTHS = (7, 12, 3)  # ragged, and the longest not first
BEYOND_WINDOW = 5  # tokens by which the longest exceeds the window of local attention, where a model has one
# fp32 sums in another order; a leak between sequences moves hidden states by far more than this.
TOLERANCE = 1e-4
ROUNDINGS = 8  # times the machine epsilon of the compute dtype: rounding alone stays below this


def tolerance_of(dtype: torch.dtype) -> float:
    """How far hidden states of size 1 may be apart when they are computed in `dtype`."""
    return max(TOLERANCE, ROUNDINGS * torch.finfo(dtype).eps)


@dataclass(frozen=True)
class ProbeOutput:
    """Hidden states of the real tokens of the probe, (T, D), and again after the ids of the second sequence changed.

    `dropped`: both once more in training mode, with the same dropout masks.
    """

    plain: torch.Tensor
    changed: torch.Tensor
    dropped: tuple[torch.Tensor, torch.Tensor]
    tolerance: float = TOLERANCE

    def compare(self, other: ProbeOutput) -> str | None:
        """What `other` does differently, in words, or None."""
        difference = (self.plain - other.plain).abs().max().item()
        if not difference <= self.tolerance * max(1.0, self.plain.abs().max().item()):
            return f"the probe differs from the padded model by {difference:.1e}"
        first = LENGTHS[0]
        for (before, after), when in (((other.plain, other.changed), ""), (other.dropped, " under dropout")):
            leak = (before[:first] - after[:first]).abs().max().item()
            if not leak <= self.tolerance:
                return f"changing one sequence of the probe moved another by {leak:.1e}{when}"
        return None


@torch.no_grad()
def run_probe(model: PreTrainedModel) -> ProbeOutput:
    """Run the probe in evaluation mode and in training mode; mode and torch's random state are left as they were.

    Some kernels take another path under dropout, so a proof without it says nothing about training. The probe computes
    on the model's device, in the type of its weights or that of an autocast round the call.
    """
    generator = torch.Generator().manual_seed(0)
    window = getattr(model.config, "local_attention", None) or 0
    longest = max(*LENGTHS, min(window + BEYOND_WINDOW, model.config.max_position_embeddings) if window else 0)
    lengths = torch.tensor([LENGTHS[0], longest, LENGTHS[2]])
    mask = torch.arange(longest) < lengths[:, None]
    pad = model.config.pad_token_id or 0
    highest = min(model.config.vocab_size, 1000)
    ids = torch.randint(min(pad + 1, highest - 1), highest, mask.shape, generator=generator)
    other_ids = ids.clone()
    other_ids[1] = torch.randint(min(pad + 1, highest - 1), highest, (longest,), generator=generator)
    device = model.device.type
    mask_given = mask.long().to(model.device)

    def hidden(row_ids: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # of dropout
        row_ids = row_ids.masked_fill(~mask, pad).to(model.device)
        return model.base_model(input_ids=row_ids, attention_mask=mask_given).last_hidden_state.float().cpu()[mask]

    was_training = model.training
    devices = [] if device == "cpu" else [model.device]
    try:
        with torch.random.fork_rng(devices, device_type="cuda" if device == "cpu" else device):
            model.eval()
            plain, changed = hidden(ids), hidden(other_ids)
            model.train()
            dropped = hidden(ids), hidden(other_ids)
    finally:
        model.train(was_training)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    return ProbeOutput(plain, changed, dropped, tolerance_of(dtype))
