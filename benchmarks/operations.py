"""Break the time of a training step down by operation, and compare it with the arithmetic alone.

    python benchmarks/operations.py [--data FOLDER]        about a minute on two cores; nothing else may run

Self time of each torch operation on the CPU, over some steps of the embedded model on the rows of speed.py. The
profiler slows small operations down a little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from sides import ROOT, YELP, heading, machine, recipe_of

WARM_UP, STEPS = 3, 9
SHOWN = 16
GROUPS = {  # prefix of an operation's name -> group
    "CompiledBackward": "attention, backward (C)",
    "NativeAttention": "attention, forward (C)",
    "CpuDropout": "dropout (C)",
    "DropoutBackward": "dropout, backward",
    "aten::mm": "matrix products of the backward",
    "aten::addmm": "matrix products of the forward",
    "mkldnn::": "matrix products of the forward",
    "aten::mkldnn": "matrix products of the forward",
    "aten::gelu": "GELU",
    "aten::native_layer_norm": "LayerNorm",
    "aten::copy_": "casts and copies",
    "aten::_fused_adamw_": "AdamW",
    "aten::_foreach_norm": "clipping",
    "aten::linalg_vector_norm": "clipping",
    "aten::_foreach_mul_": "clipping",
    "aten::embedding": "embeddings",
    "aten::index": "unpadding",
    "aten::add": "sums",
    "aten::sum": "sums",
}


def group_of(name: str) -> str:
    return next((group for start, group in GROUPS.items() if name.startswith(start)), name)


def profiled(data: Path) -> tuple[dict[str, float], float, float]:
    """Seconds per step by group, seconds of the whole step, and FLOPs per step."""
    from torch.profiler import ProfilerActivity, profile

    import fasttune
    from fasttune.training.events import StepDone

    profiler = profile(activities=[ProfilerActivity.CPU])
    times: list[float] = []
    tokens: list[int] = []

    def observer(event: object) -> str | None:
        if not isinstance(event, StepDone):
            return None
        if event.step == WARM_UP:
            profiler.start()
            times.append(time.perf_counter())
        if event.step > WARM_UP:
            tokens.append(event.num_tokens)
        if event.step == WARM_UP + STEPS:
            times.append(time.perf_counter())
            profiler.stop()
            return "enough"
        return None

    recipe = recipe_of(data, 1, 16 * (WARM_UP + STEPS), 16, 1)
    recipe["evaluation"] = {"eval_strategy": "no"}
    recipe["output"] = {"save_strategy": "no"}
    with tempfile.TemporaryDirectory() as folder:
        run = fasttune.fit(recipe, output=Path(folder) / "run", progress=False, observers=[observer])
        flops_per_token = run.metrics["total_flos"] / (
            run.metrics["train_tokens_per_second"] * run.metrics["train_runtime"]
        )
    seconds: dict[str, float] = {}
    for entry in profiler.key_averages():
        group = group_of(entry.key)
        seconds[group] = seconds.get(group, 0.0) + entry.self_cpu_time_total / 1e6 / STEPS
    return seconds, (times[1] - times[0]) / STEPS, flops_per_token * sum(tokens) / STEPS


def summary(seconds: dict[str, float], whole: float, flops: float, facts: dict[str, Any]) -> str:
    bound = flops / facts["bf16_gflops"] / 1e9
    lines = [
        "# Time of a training step by operation",
        "",
        heading(facts),
        "",
        f"{STEPS} steps of 16 Yelp rows, the embedded model: {whole * 1e3:.0f} ms per step; at the machine's peak "
        f"the arithmetic of its real tokens takes {bound * 1e3:.0f} ms ({bound / whole:.0%}).",
        "",
        "| operation | ms per step | share |",
        "|---|---|---|",
    ]
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    for name, value in ordered[:SHOWN]:
        lines.append(f"| {name} | {value * 1e3:.1f} | {value / whole:.1%} |")
    rest = whole - sum(value for _, value in ordered[:SHOWN])
    lines.append(f"| everything else | {rest * 1e3:.1f} | {rest / whole:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=YELP)
    facts = machine()
    page = summary(*profiled(parser.parse_args().data), facts)
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-operations.md"
    path.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
