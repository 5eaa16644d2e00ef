"""The C kernels against torch's autograd in fp32, including dropout masks, and the fallback without them."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttune.training.dropout import CpuDropout
from fasttune.unpadding import native
from fasttune.unpadding.attention import MAX_COMPILED_LENGTH, attention, compiled_for
from fasttune.unpadding.boundaries import Boundaries
from fasttune.unpadding.native import build

FOUND = native.find()
CAN_BE_HAD = (
    platform.system() == "Linux" and torch.cpu.get_capabilities().get("avx512_bf16", False) and shutil.which("gcc")
)
needs_kernels = pytest.mark.skipif(not CAN_BE_HAD, reason="needs Linux, AVX512_BF16 and gcc")
HEADS = 3
# Results and intermediate probabilities are rounded to bfloat16 (8 bits).
TOLERANCE = 0.015

Tensors = list[torch.Tensor]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Run with several threads: with a single one, as in other tests, data races would not show."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def boundaries_of(lengths: list[int]) -> Boundaries:
    return Boundaries.from_mask(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def make_tensors(num_tokens: int, width: int) -> Tensors:
    """query, key, value [1, H, T, d] as in transformers: a transposed view of the projection."""
    generator = torch.Generator().manual_seed(num_tokens)
    made = [torch.randn(1, num_tokens, HEADS, width, generator=generator).bfloat16() for _ in range(3)]
    return [tensor.transpose(1, 2).requires_grad_() for tensor in made]


def reference(
    tensors: Tensors, lengths: list[int], scale: float, factors: torch.Tensor | None = None, window: int = 10**6
) -> torch.Tensor:
    """Attention per sequence in fp32. `factors` [H, T, longest]: the dropout factors of each token's weights."""
    outputs = []
    for start, stop in pairwise([0, *accumulate(lengths)]):
        query, key, value = (tensor[0, :, start:stop].float() for tensor in tensors)
        places = torch.arange(stop - start)
        far = (places[:, None] - places).abs() >= window
        scores = (query @ key.transpose(1, 2) * scale).masked_fill(far, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        outputs.append((weights if factors is None else weights * factors[:, start:stop, : stop - start]) @ value)
    return torch.cat(outputs, dim=1).transpose(0, 1)[None]


def assert_same(found: torch.Tensor, expected: torch.Tensor, tensors: Tensors) -> None:
    """Compare outputs and gradients, each relative to its largest value."""
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours = [found, *torch.autograd.grad(found, tensors, weight)]
    theirs = [expected, *torch.autograd.grad(expected, tensors, weight.float())]
    for name, one, other in zip(("out", "query", "key", "value"), ours, theirs, strict=True):
        largest = other.float().abs().max().clamp_min(0.1)  # a sequence with a single token has zero gradients
        difference = (one.float() - other.float()).abs().max() / largest
        assert difference <= TOLERANCE, f"{name}: {difference:.4f}"


def run(tensors: Tensors, lengths: list[int], scale: float, **options: Any) -> torch.Tensor:
    found = attention(torch.nn.Module(), *tensors, boundaries_of(lengths), scaling=scale, **options)[0]
    assert "NativeAttention" in type(found.grad_fn).__name__
    return found


@needs_kernels
def test_they_are_there() -> None:
    assert FOUND.library is not None, FOUND.reason


@needs_kernels
@settings(max_examples=60)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=6), st.sampled_from(native.HEAD_WIDTHS))
def test_attention_equals_each_sequence_alone(lengths: list[int], width: int) -> None:
    tensors = make_tensors(sum(lengths), width)
    assert_same(run(tensors, lengths, 0.2), reference(tensors, lengths, 0.2), tensors)


@needs_kernels
def test_the_longest_sequence_beside_the_shortest() -> None:
    lengths = [1, MAX_COMPILED_LENGTH, 2]
    tensors = make_tensors(sum(lengths), 32)
    assert_same(run(tensors, lengths, 0.2), reference(tensors, lengths, 0.2), tensors)


@needs_kernels
@pytest.mark.parametrize("window", [1, 2, 16, 17, 65, 100])
def test_a_window(window: int) -> None:
    lengths = [100, 16, 3]
    tensors = make_tensors(sum(lengths), 32)
    expected = reference(tensors, lengths, 0.2, window=window)
    assert_same(run(tensors, lengths, 0.2, sliding_window=window), expected, tensors)


@needs_kernels
def test_tensors_of_any_layout() -> None:
    lengths = [9, 40]
    tensors = [
        torch.randn(1, HEADS, 49, 32).bfloat16().requires_grad_(),  # heads outermost
        torch.randn(1, 49, 2 * HEADS, 32).bfloat16()[:, :, ::2].transpose(1, 2).requires_grad_(),  # heads apart
        torch.randn(1, HEADS, 32, 49).bfloat16().transpose(2, 3).requires_grad_(),  # tokens innermost
    ]
    assert_same(run(tensors, lengths, 0.2), reference(tensors, lengths, 0.2), tensors)


def drawn_factors(tensors: Tensors, lengths: list[int], seed: int, dropout: float) -> torch.Tensor:
    """The kernel's dropout factors [H, T, 32], read with the unit matrix as values."""
    library = FOUND.library
    assert library is not None and max(lengths) <= 32
    units = torch.cat([torch.eye(32)[:length] for length in lengths])
    values = units.bfloat16()[None, None].expand(1, HEADS, -1, -1)
    starts, flat = boundaries_of(lengths).starts_tensor, torch.zeros_like(tensors[0].detach())
    out, _ = library.attention_forward(flat, flat, values, starts, native.Settings(1.0, 32, dropout, seed))
    each = torch.repeat_interleave(torch.tensor(lengths), torch.tensor(lengths))  # weights are 1 / length
    return out.float().transpose(0, 1) * each[None, :, None]


@needs_kernels
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_attention_dropout_forward_and_backward(dropout: float) -> None:
    lengths = [32, 31, 1, 18]
    tensors = make_tensors(sum(lengths), 32)
    torch.manual_seed(5)
    found = run(tensors, lengths, 0.2, dropout=dropout)
    torch.manual_seed(5)
    factors = drawn_factors(tensors, lengths, native.draw_seed(), dropout)
    kept = factors[factors != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - dropout)), rtol=0.01, atol=0)
    assert_same(found, reference(tensors, lengths, 0.2, (factors > 0) / (1 - dropout)), tensors)


@needs_kernels
def test_masks_have_the_right_share_and_differ_by_head_sequence_and_seed() -> None:
    lengths = [32] * 40
    tensors = make_tensors(sum(lengths), 32)
    kept = drawn_factors(tensors, lengths, 7, 0.25) > 0
    assert (~kept).float().mean().item() == pytest.approx(
        0.25, abs=0.006
    )  # more than four standard deviations of 120,000 draws
    by_piece = kept.reshape(HEADS, 40, 32, 32)
    others = (by_piece[:, :, :, 1:], by_piece[:, :, 1:], by_piece[:, 1:], by_piece[1:])
    ones = (by_piece[:, :, :, :-1], by_piece[:, :, :-1], by_piece[:, :-1], by_piece[:-1])
    for one, other in zip(ones, others, strict=True):
        assert (one & other).float().mean().item() == pytest.approx(0.75**2, abs=0.015)
    assert torch.equal(kept, drawn_factors(tensors, lengths, 7, 0.25) > 0)
    assert not torch.equal(kept, drawn_factors(tensors, lengths, 8, 0.25) > 0)
    assert not torch.equal(kept, drawn_factors(tensors, lengths, 7 + 2**40, 0.25) > 0)


@needs_kernels
def test_a_number_that_is_none_stays_none() -> None:
    tensors = make_tensors(20, 32)
    with torch.no_grad():
        tensors[0][0, 1, 12, 3] = float("nan")
    found = run(tensors, [10, 10], 0.2)
    assert found[0, 12, 1].isnan().all()
    assert not found[0, :10].isnan().any(), "the other sequence knows nothing of it"


@needs_kernels
@pytest.mark.parametrize("num", [1, 15, 17, 8192, 8193, 100_003])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dropout_touches_every_number_and_none_beyond(num: int, dtype: torch.dtype) -> None:
    library = FOUND.library
    assert library is not None
    source, room = torch.full((num + 64,), 3.0, dtype=dtype), torch.full((num + 64,), 7.0, dtype=dtype)
    out = room[32 : num + 32]
    drop = library._make_dropout(0.5, 3)
    library._drop[dtype](source.data_ptr(), out.data_ptr(), num, drop)
    assert set(out.unique().tolist()) <= {0.0, 6.0}
    assert (room[:32] == 7).all() and (room[num + 32 :] == 7).all()
    assert torch.equal(library.dropout(source[:num], 0.5, 3), out)
    assert torch.equal(library.dropout(out, 0.5, 3), out * 2), "the same seed keeps the same numbers"


def forget() -> None:
    build.find.cache_clear()
    compiled_for.cache_clear()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder. The cached build result is cleared before and after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTTUNE_NATIVE", raising=False)
    forget()
    yield tmp_path / "fasttune" / "native"
    monkeypatch.undo()
    forget()


@needs_kernels
def test_it_is_compiled_once(fresh: Path) -> None:
    first = native.find()
    assert first.library is not None and "AVX512_BF16" in first.reason
    made = [path.stat().st_mtime_ns for path in fresh.iterdir()]
    build.find.cache_clear()
    assert native.find().library is not None
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == made and len(made) == 1


@needs_kernels
def test_a_damaged_file_in_the_cache_is_made_anew(fresh: Path) -> None:
    path = build.compile_kernels("gcc")
    size = path.stat().st_size
    path.write_bytes(b"not a library")
    assert native.find().library is not None
    assert [(entry.name, entry.stat().st_size) for entry in fresh.iterdir()] == [(path.name, size)]


@needs_kernels
def test_they_are_proved_in_any_mode(fresh: Path) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert compiled_for("cpu", torch.bfloat16, 32).library is not None


@needs_kernels
def test_second_derivatives_are_refused_and_not_wrong() -> None:
    tensors = make_tensors(20, 32)
    weight = torch.ones(1, 20, HEADS, 32, requires_grad=True)
    (grad,) = torch.autograd.grad((run(tensors, [20], 0.2) * weight).sum(), tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@needs_kernels
def test_kernels_that_compute_something_else_are_not_used(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttune.unpadding.attention.TOLERANCE", 1e-6)
    found = compiled_for("cpu", torch.bfloat16, 32)
    assert found.library is None and "differ from torch by" in found.reason


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"FASTTUNE_NATIVE": "0"}, "turned off"),
        ({"PATH": ""}, "no C compiler"),
        ({"CC": "false"}, "false failed"),
    ],
)
def test_without_them_torch_does_the_work(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = native.find()
    assert found.library is None
    if FOUND.library is not None:
        assert reason in found.reason
    lengths = [9, 40]
    tensors = make_tensors(49, 32)
    out = attention(torch.nn.Module(), *tensors, boundaries_of(lengths), scaling=0.2)[0]
    assert_same(out, reference(tensors, lengths, 0.2), tensors)
    hidden = torch.ones(50, 50, requires_grad=True)
    dropped = CpuDropout(0.5)(hidden)
    assert 0.3 < (dropped == 0).float().mean().item() < 0.7
