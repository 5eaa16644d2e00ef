"""The tutorial's small run on real reviews: fasttune beside transformers' Trainer, same rows, model, seeds and machine.

    python benchmarks/yelp_small.py --data FOLDER            all of it, two to three hours on two cores
    python benchmarks/yelp_small.py --sides trainer --shared     accuracy only, while other work goes on

A run that was stopped goes on: what stands in the day's file of results is not measured again.

FOLDER holds train.jsonl and validation.jsonl of Yelp Review Full ({"label": 0..4, "text": ...} a line); default:
yelp_review_full in the folder that FASTTUNE_REAL_DATA names. 1,000 training rows are drawn with seed 42, batch 16,
learning rate 5e-5, 3 epochs. Sides:
  fasttune           as shipped (recipes/yelp.yaml)
  trainer-best       group_by_length, bf16, fused AdamW, attention dropout 0: the best a stock Trainer can be made to do
  trainer            dynamic padding, bf16, fused AdamW, attention dropout as the model has it
  trainer-timed      the same, timed on 128 rows, for where its long runs shared the machine
  trainer-default    dynamic padding, fp32; timed on 128 rows
  tutorial           padding to 512, fp32; timed on 64 rows
Each run is a process of its own, so that no side profits from what another left behind. Nothing else may run meanwhile.
Real tokens a second leave padding out, and evaluations, saves and start-up too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEFAULT_DATA = Path(os.environ.get("FASTTUNE_REAL_DATA", ROOT / "../shared/data")) / "yelp_review_full"
SEEDS = (1, 2, 3)
ROWS = {
    "fasttune": 1000,
    "trainer-best": 1000,
    "trainer": 1000,
    "trainer-timed": 128,
    "trainer-default": 128,
    "tutorial": 64,
}
# In turn, so that a slow hour of the machine meets both sides; the slowest last.
ORDER = [
    ("tutorial", 1),
    ("trainer-default", 1),
    ("trainer-timed", 1),
    *((side, seed) for seed in SEEDS for side in ("fasttune", "trainer-best")),
    *(("trainer", seed) for seed in SEEDS),
]


def recipe_of(data: Path, seed: int, num_rows: int) -> dict[str, Any]:
    return {
        "data": {
            "train": str(data / "train.jsonl"),
            "validation": str(data / "validation.jsonl"),
            "max_train_samples": num_rows,
            "label_names": ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"],
        },
        "training": {"seed": seed, "batch_size": 16, "learning_rate": 5e-5, "num_train_epochs": 3, "logging_steps": 30},
        "tracking": {"report_to": "none"},
    }


def run_fasttune(data: Path, seed: int) -> dict[str, Any]:
    import fasttune

    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(data, seed, ROWS["fasttune"])
        run = fasttune.fit(recipe, output=Path(folder) / "run", progress=False)
        events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    return {
        "accuracy": [event["eval_accuracy"] for event in events if event["event"] == "evaluation"],
        "tokens_per_second": sum(step["num_tokens"] for step in steps) / sum(step["seconds"] for step in steps),
        "mfu_with_evaluations": run.metrics["train_mfu"],
        "eval_rows_per_second": run.metrics["eval_samples_per_second"],
        "peak_memory_bytes": run.metrics["peak_memory_bytes"],
    }


def run_trainer(side: str, data: Path, seed: int) -> dict[str, Any]:
    """The rows, labels and tokens are those that fasttune reads, so that both sides train on the same."""
    import resource

    import torch
    import transformers
    from sklearn.metrics import accuracy_score

    from fasttune import recipe as recipes
    from fasttune.starter.model import embedded_model_path
    from fasttune.tasks.prepare import read_splits

    is_best = side == "trainer-best"
    splits = read_splits(recipes.load(recipe_of(data, seed, ROWS[side])))
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_path(), model_max_length=512)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        embedded_model_path(),
        num_labels=5,
        dtype=torch.float32,
        **({"attention_probs_dropout_prob": 0.0} if is_best else {}),
    )
    padding: Any = "max_length" if side == "tutorial" else False

    def examples(rows: Any) -> list[dict[str, Any]]:
        encoded = tokenizer(list(rows.values["text"]), truncation=True, max_length=512, padding=padding)
        labels = [splits.task.vocabulary.index[label] for label in rows.values["label"]]
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": label}
            for ids, mask, label in zip(encoded["input_ids"], encoded["attention_mask"], labels, strict=True)
        ]

    train, validation = examples(splits.train.rows), examples(splits.validation.rows)
    timed_only = ROWS[side] < 1000
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=16,
                learning_rate=5e-5,
                num_train_epochs=1 if timed_only else 3,
                bf16=side not in ("tutorial", "trainer-default"),
                train_sampling_strategy="group_by_length" if is_best else "random",
                optim="adamw_torch_fused",
                eval_strategy="no" if timed_only else "epoch",
                save_strategy="no",
                logging_steps=30,
                seed=seed,
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
            ),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda result: {
                "accuracy": accuracy_score(result.label_ids, result.predictions.argmax(-1))
            },
        )
        runtime = trainer.train().metrics["train_runtime"]
    evaluations = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    seconds = runtime - sum(entry["eval_runtime"] for entry in evaluations)
    num_tokens = sum(sum(example["attention_mask"]) for example in train) * (1 if timed_only else 3)
    result = {
        "accuracy": [entry["eval_accuracy"] for entry in evaluations],
        "tokens_per_second": num_tokens / seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if evaluations:
        result["eval_rows_per_second"] = statistics.median(entry["eval_samples_per_second"] for entry in evaluations)
    return result


def run_in_process(side: str, data: Path, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--seed", str(seed), "--data", str(data)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(side, seed, json.dumps(result), file=sys.stderr, flush=True)
    return {"side": side, "seed": seed, **result}


def summary(runs: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """A markdown page: medians of speed, means of accuracy, ratios to fasttune."""

    def of(side: str, key: str) -> list[Any]:
        return [run[key] for run in runs if run["side"] == side]

    def speed(side: str) -> float | None:
        alone = [run["tokens_per_second"] for run in runs if run["side"] == side and not run.get("shared")]
        return statistics.median(alone) if alone else None

    ours = speed("fasttune")
    lines = [
        "# Yelp, 1,000 rows, the embedded model: fasttune beside the Trainer",
        "",
        f"{facts['date']}, {facts['platform']}, {facts['cpu']['name']}, {facts['cpu']['cores']} cores, "
        f"bf16 products at {facts['bf16_gflops']:.0f} GFLOPS; "
        + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "",
        "| side | rows | runs | real tokens/s, median | fasttune / side | accuracy after 3 epochs, by seed | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in (side for side in ROWS if of(side, "side")):
        last = [accuracy[-1] for accuracy in of(side, "accuracy") if accuracy]
        mean = f"{statistics.mean(last):.4f}" if last else ""
        by_seed = ", ".join(f"{accuracy:.3f}" for accuracy in last)
        tokens = speed(side)
        timing = f"{tokens:,.0f} | {ours / tokens:.1f}" if tokens and ours else "not alone |"
        lines.append(f"| {side} | {ROWS[side]} | {len(of(side, 'side'))} | {timing} | {by_seed} | {mean} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--side", choices=ROWS, help="one run in this process; prints its figures as JSON")
    parser.add_argument("--seed", type=int, default=SEEDS[0])
    parser.add_argument("--sides", nargs="+", choices=ROWS, default=list(ROWS), help="only these")
    parser.add_argument("--shared", action="store_true", help="other work goes on: accuracy counts, speed does not")
    arguments = parser.parse_args()
    if arguments.side:
        is_ours = arguments.side == "fasttune"
        side = run_fasttune if is_ours else partial(run_trainer, arguments.side)
        print(json.dumps(side(arguments.data, arguments.seed)))
        return
    import torch

    from fasttune.engine.flops import measured_peak
    from fasttune.environment import describe

    facts = {"date": date.today().isoformat(), **describe()}
    facts["bf16_gflops"] = measured_peak(torch.device("cpu"), "bf16") / 1e9
    path = ROOT / "benchmarks" / "results" / f"{facts['date']}-yelp-small"
    known = path.with_suffix(".json")
    runs = json.loads(known.read_text())["runs"] if known.exists() else []
    for side, seed in ORDER:
        if side in arguments.sides and not any((run["side"], run["seed"]) == (side, seed) for run in runs):
            runs.append(run_in_process(side, arguments.data, seed) | ({"shared": True} if arguments.shared else {}))
        known.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n")
        path.with_suffix(".md").write_text(summary(runs, facts))
    print(summary(runs, facts))


if __name__ == "__main__":
    main()
