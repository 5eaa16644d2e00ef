"""A tiny batch that a model must compute correctly before it may run without padding.

Packing fails silently: a model that ignores the boundaries still trains, on mixed-up sequences. So the probe checks two
things on the loaded model: its output equals the padded model's, and no sequence influences another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

LENGTHS = (7, 12, 3)  # different lengths, the longest not first
BEYOND_WINDOW = 5  # tokens by which the longest sequence exceeds the window of a model with local attention
# fp32 sums in another order differ by less; a leak between sequences changes hidden states by far more.
TOLERANCE = 1e-4
ROUNDINGS = 8  # rounding stays below this many times the machine epsilon of the compute dtype


def tolerance_of(dtype: torch.dtype) -> float:
    """The maximum difference of hidden states of size 1 that are computed in `dtype`."""
    return max(TOLERANCE, ROUNDINGS * torch.finfo(dtype).eps)


@dataclass(frozen=True)
class ProbeOutput:
    """Hidden states of the probe's real tokens, (T, D): `plain`, and `changed` with other ids in the second sequence.

    `dropped`: the same two in training mode, with equal dropout masks.
    """

    plain: torch.Tensor
    changed: torch.Tensor
    dropped: tuple[torch.Tensor, torch.Tensor]
    tolerance: float = TOLERANCE

    def compare(self, other: ProbeOutput) -> str | None:
        """How `other` differs from this output, in words, or None."""
        difference = (self.plain - other.plain).abs().max().item()
        if not difference <= self.tolerance * max(1.0, self.plain.abs().max().item()):
            return f"its output on the probe differs from the padded model by {difference:.1e}"
        first = LENGTHS[0]
        runs = (((other.plain, other.changed), ""), (other.dropped, " under dropout"))
        for (before, after), when in runs:
            leak = (before[:first] - after[:first]).abs().max().item()
            if not leak <= self.tolerance:
                return f"changing one sequence of the probe changed another by {leak:.1e}{when}"
        return None


@torch.no_grad()
def run_probe(model: PreTrainedModel) -> ProbeOutput:
    """Run the probe in evaluation and in training mode; the model's mode and torch's random state are restored.

    Some kernels take another path under dropout, so a check in evaluation mode would not cover training. The probe runs
    on the model's device, in the dtype of its weights or of an autocast around the call.
    """
    ids, other_ids, mask = _batch(model)
    device = model.device.type

    def hidden(row_ids: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # for equal dropout masks
        return _states(model, row_ids, mask)[mask]

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
    return ProbeOutput(plain, changed, dropped, tolerance_of(_dtype(model)))


@torch.no_grad()
def first_states(model: PreTrainedModel) -> torch.Tensor:
    """(B, D): the hidden state of the first token of each sequence of the probe, in the model's mode."""
    ids, _, mask = _batch(model)
    return _states(model, ids, mask)[:, 0]


def is_close(first: torch.Tensor, second: torch.Tensor, model: PreTrainedModel) -> bool:
    """Whether hidden states differ by rounding only."""
    difference = (first - second).abs().max().item()
    return difference <= tolerance_of(_dtype(model)) * max(1.0, first.abs().max().item())


def _batch(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[B, S] ids, the same with another second sequence, and bool, true at real tokens."""
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
    return ids.masked_fill(~mask, pad), other_ids.masked_fill(~mask, pad), mask


def _states(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, S, D] last hidden states in fp32 on the CPU."""
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.long().to(model.device)}
    states: torch.Tensor = model.base_model(**inputs).last_hidden_state
    return states.float().cpu()


def _dtype(model: PreTrainedModel) -> torch.dtype:
    device = model.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
