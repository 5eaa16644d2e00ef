"""The cheap masks are dropout: the right share, the right scale, the same mask in both directions, by the seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fasttune.training.dropout import CpuDropout, use_cpu_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_share_scale_and_gradient(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.ones(401, 503, dtype=dtype, requires_grad=True)
    out = CpuDropout(probability)(hidden)
    out.backward(torch.full_like(out, 2.0))
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(probability, abs=0.005)  # more than four deviations of 200,000 draws
    kept = out[out != 0].float()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - probability)), rtol=5e-3, atol=0)
    torch.testing.assert_close(hidden.grad, 2 * out.detach())


def test_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    kept = CpuDropout(0.5)(torch.ones(400_000)) != 0
    for lag in (1, 2, 3, 4, 8):
        both = (kept[lag:] & kept[:-lag]).float().mean().item()
        assert both == pytest.approx(0.25, abs=0.005)


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    dropout, hidden = CpuDropout(0.3), torch.ones(1000)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(hidden))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert torch.equal(dropout.eval()(hidden), hidden)
    assert torch.equal(CpuDropout(1.0)(hidden), torch.zeros(1000))
    assert torch.equal(CpuDropout(0.0)(hidden), hidden)


def test_it_replaces_every_dropout_of_a_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.4)), nn.Dropout(0.2))
    use_cpu_dropout(model)
    found = [(type(module), module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    assert found == [(CpuDropout, 0.4), (CpuDropout, 0.2)]
