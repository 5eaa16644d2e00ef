"""Everything that needs an NVIDIA GPU, in one command that continues where it stopped.

    python benchmarks/gpu.py --out FOLDER [--minutes 9] [--only WORDS ...] [--rounds 2]

Runs the tests marked `gpu` and counts what a step waits for; then compares the speed of training with transformers'
Trainer, on models of the published shapes with random weights and made rows as long as Yelp reviews and SQuAD windows;
then lets memory run out. Nothing is downloaded. Each part is a process of its own; FOLDER/gpu.json keeps its result,
and FOLDER/DATE-gpu-NAME.md is written anew after each. The command ends before `--minutes` are over, with exit code 3
if parts are left: rerun it. `--only` runs the parts again whose names contain one of the words.

`--tiny` does the same with tiny models and few rows, on any machine, to see that the command works; its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sides import DATA_SETS, GPU_SIDES, GPU_SKIPPED_STEPS, OWN_SIDES, ROOT, SIDES, recipe_of
from speed import flops_per_token

# Tokens of a row with its special tokens, every fifth percentile, by the embedded model's tokenizer: 4,000 reviews of
# Yelp (512 at most), and the windows of 11,877 questions of SQuAD 1.1 (384 at most, stride 128).
LENGTHS = {
    "yelp_review_full": (
        3,
        25,
        37,
        47,
        57,
        69,
        80,
        91,
        102,
        117,
        130,
        145,
        161,
        183,
        204,
        232,
        259,
        302,
        349,
        441,
        512,
    ),
    "squad_v1": (36, 67, 81, 91, 100, 107, 114, 121, 128, 135, 143, 150, 158, 167, 177, 186, 198, 211, 233, 262, 384),
}
BERT = {"vocab_size": 30522}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base": ("BertConfig", BERT),
    "minilm-l6": (
        "BertConfig",
        {**BERT, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "modernbert-base": ("ModernBertConfig", {}),
}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SIDES_RUN = ("fasttune-0-eager", "fasttune-0-compiled", "trainer-best-0", *GPU_SIDES)
WORKLOADS = [  # model, rows
    ("bert-base", "yelp_review_full"),
    ("minilm-l6", "yelp_review_full"),
    ("bert-base", "squad_v1"),
    ("modernbert-base", "yelp_review_full"),
]
BATCH, STEPS = 128, 120
# Dense bf16 products without sparsity, by the data sheets of NVIDIA, for names as CUDA gives them.
DATASHEET_FLOPS = {r"H100 80GB HBM3": 989e12, r"H200\b": 989e12, r"A100\b": 312e12, r"L40S\b": 362e12, r"L4\b": 121e12}
PART_MINUTES = 2.5  # at least this much must be left to begin a part
# Which tests are a part, as pytest's -k: no part may be long, and one that hangs must not hide the others.
TESTS = {
    "kernels": "parity or dropout",
    "families": "family",
    "losses": "losses or other_ways",
    "steps": "deterministic or waits or overflow or diverges",
    "memory": "budget or memory",
    "compiled": "compile",
    "processes": "nccl",
}
TESTS["after training"] = f"not ({' or '.join(TESTS.values())})"


@dataclass(frozen=True)
class Part:
    name: str
    run: Callable[[bool], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # how this program calls itself
    arguments = parser.parse_args()
    parts = {part.name: part for part in all_parts(arguments.rounds)}
    if arguments.part:
        print(json.dumps(parts[arguments.part].run(arguments.tiny)))
        return
    sys.exit(run_parts(arguments, list(parts.values())))


def run_parts(arguments: argparse.Namespace, parts: list[Part]) -> int:
    """Returns 3 if parts are left. A part that the end of this call cuts off is left, unless it had the whole call."""
    start = time.monotonic()
    end = start + 60 * arguments.minutes
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "gpu.json"
    state = json.loads(kept.read_text()) if kept.exists() else {"facts": facts(), "results": {}}
    chosen = [part for part in parts if any(word in part.name for word in arguments.only)]
    left = chosen or [part for part in parts if part.name not in state["results"]]
    while left and time.monotonic() + 60 * PART_MINUTES < end:
        part = left.pop(0)
        begin = time.monotonic()
        result = run_part(part.name, arguments, end - begin)
        if result is None and begin > start + 60:
            left.insert(0, part)
            break
        result = result or {"error": f"not done in {arguments.minutes:g} minutes"}
        state["results"][part.name] = {**result, "seconds": round(time.monotonic() - begin, 1)}
        kept.write_text(json.dumps(state, indent=1) + "\n")
        page(arguments.out, state).write_text(summary(state))
        print(part.name, json.dumps(state["results"][part.name])[:300], flush=True)
    print(f"{len(left)} parts left: {', '.join(part.name for part in left)}" if left else page(arguments.out, state))
    return 3 if left else 0


def run_part(name: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any] | None:
    """Its result, or None if the time was up."""
    command = [sys.executable, __file__, "--out", str(arguments.out), "--part", name, "--rounds", str(arguments.rounds)]
    command += ["--tiny"] if arguments.tiny else []
    # A process group, so that nothing keeps the GPU when the time is up.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        (arguments.out / f"{name.replace(' ', '-')}.txt").write_text(errors[-20_000:])
        lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("  ")]
        return {"error": (lines or [f"exit code {process.returncode}"])[-1][:300]}
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def all_parts(rounds: int) -> Iterator[Part]:
    """In the order of their worth: what runs out of time is worth least."""
    for name in TESTS:
        yield Part(f"tests {name}", run_tests(name))
    yield Part("waits", waits)
    for number in range(1, rounds + 1):
        for model, rows in WORKLOADS:
            for side in SIDES_RUN:
                yield Part(f"{model} {rows} {side} {number}", speed(model, rows, side, number))
    yield Part("memory", memory_runs_out)


# --- parts --------------------------------------------------------------------------------------------------------


def run_tests(name: str) -> Callable[[bool], dict[str, Any]]:
    def run(tiny: bool) -> dict[str, Any]:
        files = ["tests/test_gpu.py", "tests/unpadding/test_cuda.py"]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
        paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(
            [*command, *files, "-k", TESTS[name]], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        lines = done.stdout.splitlines()
        return {
            "outcome": lines[-1],
            "failed": [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))],
            "messages": [line[:300] for line in lines if line.startswith("E  ")][:60],
        }

    return run


def speed(model: str, rows: str, side: str, seed: int) -> Callable[[bool], dict[str, Any]]:
    def run(tiny: bool) -> dict[str, Any]:
        from sides import run_fasttune, run_trainer

        with tempfile.TemporaryDirectory() as folder:
            recipe = made_recipe(Path(folder), model, rows, seed, tiny)
            flops = flops_per_token(recipe)
            if side in OWN_SIDES:
                recipe["training"].update(OWN_SIDES[side])
                result = run_fasttune(recipe)
            else:
                result = run_trainer(side, recipe)
        kept = ("wall_tokens_per_second", "wall_examples_per_second", "train_seconds", "peak_memory_bytes")
        return {"flops_per_token": flops, **{key: result[key] for key in kept if key in result}}

    return run


def waits(tiny: bool) -> dict[str, Any]:
    """What a step of MiniLM waits for and starts, by torch's profiler, over ten steps."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    import fasttune

    first, last = (5, 10) if tiny else (GPU_SKIPPED_STEPS, GPU_SKIPPED_STEPS + 10)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities):  # the first one loads libraries
        torch.zeros(1)
    profiler, times = profile(activities=activities), []

    def observer(event: Any) -> str | None:
        if event.name != "step" or event.step not in (first, last):
            return None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if event.step == first:
            profiler.start()
            times.append(time.perf_counter())
            return None
        times.append(time.perf_counter())
        profiler.stop()
        return "measured"

    with tempfile.TemporaryDirectory() as folder:
        recipe = made_recipe(Path(folder), "minilm-l6", "yelp_review_full", 1, tiny)
        recipe["training"].update(OWN_SIDES["fasttune-0-eager"])
        fasttune.fit(recipe, output=Path(folder) / "run", progress=False, observers=[observer])
    counts: Counter[str] = Counter()
    busy = 0.0
    for event in profiler.key_averages():
        counts[event.key] += event.count
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:  # not what CPU operators started
            busy += event.self_device_time_total / 1e6
    steps = last - first
    names = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
    copies = sum(count for name, count in counts.items() if name.startswith("Memcpy DtoH"))
    kernels = sum(
        counts[name] for name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
    )
    return {
        **{name: counts[name] / steps for name in names},
        "copies to the host": copies / steps,
        "kernels started": kernels / steps,
        "ms a step": 1e3 * (times[1] - times[0]) / steps,
        "share of the time that the GPU computes": busy / (times[1] - times[0]),
    }


def memory_runs_out(tiny: bool) -> dict[str, Any]:
    """BERT-base with a tenth of the memory, and micro-batches that are far too large at first."""
    import torch

    import fasttune

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(0.1)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        recipe = made_recipe(Path(folder), "bert-base", "yelp_review_full", 1, tiny)
        recipe["training"] |= {"batch_size": 16 if tiny else 2048, "max_steps": 5, "tokens_per_microbatch": 1_000_000}
        begin = time.perf_counter()
        run = fasttune.fit(
            recipe, output=Path(folder) / "run", progress=False, observers=[lambda event: found.update([event.name])]
        )
        events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    budgets = [event["tokens_per_microbatch"] for event in events if event["event"] == "out_of_memory"]
    return {"steps": found["step"], "budgets": budgets, "train_seconds": time.perf_counter() - begin}


# --- models and rows ----------------------------------------------------------------------------------------------


def made_recipe(folder: Path, model: str, rows: str, seed: int, tiny: bool) -> dict[str, Any]:
    """A recipe for a model with random weights and made rows, in `folder`."""
    num_rows, steps, batch = (208, 26, 8) if tiny else (BATCH * STEPS, STEPS, BATCH)
    num_words = 500 if tiny else 30_000
    data = folder / rows
    data.mkdir()
    for number, name in enumerate((DATA_SETS[rows].train, DATA_SETS[rows].validation)):
        make = make_reviews if rows == "yelp_review_full" else make_questions
        make(data / name, random.Random(number), LENGTHS[rows], num_words, num_rows if number == 0 else 32)
    recipe = recipe_of(data, seed, epochs=1)
    recipe["training"] |= {"batch_size": batch, "max_steps": steps, "precision": "bf16", "logging_steps": 1000}
    return {
        **recipe,
        "model": str(save_model(folder / "model", model, num_words, tiny)),
        "evaluation": {"baselines": False} if rows == "yelp_review_full" else {},
        "output": {"report": False, "save_strategy": "no"},
    }


def save_model(folder: Path, name: str, num_words: int, tiny: bool) -> Path:
    """Random weights, and a tokenizer for which each word of the made rows is one token."""
    import torch
    import transformers

    kind, settings = MODELS[name]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(num_words))]
    settings = {**settings, **({"vocab_size": len(words), **TINY} if tiny else {}), "pad_token_id": 0}
    if kind == "ModernBertConfig":
        settings |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = getattr(transformers, kind)(**settings)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(
        vocab={word: index for index, word in enumerate(words)}, model_max_length=512
    )
    if kind == "ModernBertConfig":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder


def drawn(lengths: tuple[int, ...], rng: random.Random) -> int:
    """A length with these quantiles."""
    place = rng.random() * (len(lengths) - 1)
    low = int(place)
    return round(lengths[low] + (place - low) * (lengths[low + 1] - lengths[low]))


def text(num_words: int, of: int, rng: random.Random) -> str:
    return " ".join(f"w{rng.randrange(of)}" for _ in range(num_words))


def make_reviews(path: Path, rng: random.Random, lengths: tuple[int, ...], of: int, num_rows: int) -> None:
    rows = [{"label": number % 5, "text": text(max(drawn(lengths, rng) - 2, 1), of, rng)} for number in range(num_rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_questions(path: Path, rng: random.Random, lengths: tuple[int, ...], of: int, num_rows: int) -> None:
    """In SQuAD's format: a question of 11 words, and the first word of its context as the answer."""
    paragraphs = []
    for number in range(num_rows):
        context = text(max(drawn(lengths, rng) - 14, 1), of, rng)
        answer = {"text": context.split()[0], "answer_start": 0}
        question = {"id": str(number), "question": text(11, of, rng), "answers": [answer]}
        paragraphs.append({"context": context, "qas": [question]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "made", "paragraphs": paragraphs}]}))


# --- the page -----------------------------------------------------------------------------------------------------


def facts() -> dict[str, Any]:
    from datetime import date

    import torch

    from fasttune.training.environment import describe
    from fasttune.training.flops import device_name, measured_peak

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "date": date.today().isoformat(),
        "gpu": device_name(device),
        "peak_flops": measured_peak(device, "bf16"),
        **describe(),
    }


def page(out: Path, state: dict[str, Any]) -> Path:
    name = state["facts"]["gpu"].lower().replace(" ", "-")
    return out / f"{state['facts']['date']}-gpu-{name}.md"


def summary(state: dict[str, Any]) -> str:
    about, results = state["facts"], state["results"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    sheet = next((flops for name, flops in DATASHEET_FLOPS.items() if re.search(name, about["gpu"])), None)
    lines = [
        f"# On one {about['gpu']}, {about['date']}",
        "",
        f"Fastest bf16 product measured: {about['peak_flops'] / 1e12:.0f} TFLOPS"
        + (f"; by the data sheet {sheet / 1e12:.0f}" if sheet else "")
        + f". {versions}.",
        "",
        f"Made rows, random weights, bf16, batches of {BATCH} rows, attention dropout 0 on every side. Medians. Real",
        f"tokens per second, without padding, by the wall clock from step {GPU_SKIPPED_STEPS} to {STEPS}. The last",
        "column compares with the faster of fasttune's two, which it chooses by measurement. MFU counts full",
        "attention, also in layers with windows.",
    ]
    tests = {name: result for name, result in results.items() if name.startswith("tests ")}
    if tests:
        lines += ["", "Tests marked `gpu`:", ""]
    for name, result in tests.items():
        lines.append(f"- {name.removeprefix('tests ')}: {result.get('outcome', result.get('error'))}")
        lines += [f"  - {line}" for line in result.get("failed", [])]
    for model, rows in WORKLOADS:
        lines += table(model, rows, results, about["peak_flops"], sheet)
    for name in ("waits", "memory"):
        if name in results:
            figures = (
                f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in results[name].items()
            )
            lines += ["", f"{name.capitalize()}: {'; '.join(figures)}"]
    return "\n".join(lines) + "\n"


def table(model: str, rows: str, results: dict[str, Any], peak: float, sheet: float | None) -> list[str]:
    runs = {
        side: [value for name, value in results.items() if name.startswith(f"{model} {rows} {side} ")]
        for side in SIDES_RUN
    }
    if not any(runs.values()):
        return []
    lines = [
        "",
        f"## {model}, rows as long as those of {rows}",
        "",
        "| side | | real tokens/s | rows or windows/s | MFU of the data sheet | of the measured peak | peak memory, GB "
        "| fasttune / side |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def median(side: str, key: str) -> float | None:
        values = [run[key] for run in runs[side] if key in run]
        return statistics.median(values) if values else None

    own = max(
        filter(None, (median(side, "wall_tokens_per_second") for side in SIDES_RUN if side in OWN_SIDES)), default=None
    )
    for side in SIDES_RUN:
        what = {**SIDES, **GPU_SIDES}[side].what if side not in OWN_SIDES else "bf16, attention dropout 0"
        tokens = median(side, "wall_tokens_per_second")
        if tokens is None:
            errors = [run["error"] for run in runs[side] if "error" in run]
            lines.append(f"| {side} | {what} | {errors[0] if errors else 'not run yet'} | | | | | |")
            continue
        flops = tokens * (median(side, "flops_per_token") or 0.0)
        lines.append(
            f"| {side} | {what} | {tokens:,.0f} | {median(side, 'wall_examples_per_second'):,.0f} "
            f"| {f'{flops / sheet:.1%}' if sheet else ''} | {flops / peak:.1%} "
            f"| {(median(side, 'peak_memory_bytes') or 0.0) / 1e9:.1f} | {own / tokens if own else 0:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
