"""The sides of a comparison: fasttune, and transformers' Trainer in the ways people run it, on the same rows and model.

All sides train on the rows, labels and tokens that fasttune reads. Run as a program, this file is one side in a
separate process, so that no side benefits from what another left behind.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import trainer_answers
import trainer_labels

ROOT = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("FASTTUNE_REAL_DATA", ROOT / "../shared/data"))
YELP = REAL_DATA / "yelp_review_full"


@dataclass(frozen=True)
class DataSet:
    """The files of a folder of the same name, and how to train on them."""

    train: str
    validation: str
    task: str = "text-classification"
    label_names: tuple[str, ...] | None = None
    batch_size: int = 16
    learning_rate: float = 5e-5
    epochs: int = 3


DATA_SETS = {
    "yelp_review_full": DataSet(
        "train.jsonl", "validation.jsonl", label_names=("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
    ),
    "mrpc": DataSet("train.tsv", "dev.tsv", batch_size=8),
    "squad_v1": DataSet("train.json", "dev.json", "question-answering", learning_rate=1e-4, epochs=2),
}
SKIPPED_STEPS = 2  # the first steps compile and allocate, on every side


@dataclass(frozen=True)
class Side:
    """One way to run the Trainer; attention dropout `None` keeps the model's value."""

    what: str
    padding: str = "longest"  # longest | max_length
    bf16: bool = True
    group_by_length: bool = False
    attention_dropout: float | None = None
    padding_free: bool = False


SIDES = {
    "tutorial": Side("padding to 512, fp32", padding="max_length", bf16=False),
    "trainer-default": Side("dynamic padding, fp32", bf16=False),
    "trainer-default-0": Side("dynamic padding, fp32, attention dropout 0", bf16=False, attention_dropout=0.0),
    "trainer": Side("dynamic padding, bf16, fused AdamW"),
    "trainer-0": Side("dynamic padding, bf16, fused AdamW, attention dropout 0", attention_dropout=0.0),
    "trainer-best": Side("group_by_length, bf16, fused AdamW", group_by_length=True),
    "trainer-best-0": Side(
        "group_by_length, bf16, fused AdamW, attention dropout 0", group_by_length=True, attention_dropout=0.0
    ),
    "trainer-default-free": Side("dynamic padding, fp32, fasttune.padding_free", bf16=False, padding_free=True),
    "trainer-free": Side("dynamic padding, bf16, fused AdamW, fasttune.padding_free", padding_free=True),
}


# fasttune as shipped, and with the attention dropout of the Trainer's best setting: overrides of `training`.
OWN_SIDES: dict[str, dict[str, Any]] = {"fasttune": {}, "fasttune-0": {"attention_dropout": 0}}


def recipe_of(
    data: Path, seed: int, num_rows: int | None = None, num_eval_rows: int | None = None, epochs: int | None = None
) -> dict[str, Any]:
    """The recipe for a folder of DATA_SETS with its published files; without a number of rows, all of them."""
    own = DATA_SETS[data.name]
    return {
        "task": own.task,
        "data": {
            "train": str(data / own.train),
            "validation": str(data / own.validation),
            "label_names": None if own.label_names is None else list(own.label_names),
            "max_train_samples": num_rows,
            "max_eval_samples": num_eval_rows,
        },
        "training": {
            "preset": "tutorial",
            "seed": seed,
            "batch_size": own.batch_size,
            "learning_rate": own.learning_rate,
            "num_train_epochs": epochs or own.epochs,
            "logging_steps": 30,
        },
        "tracking": {"report_to": "none"},
    }


def save_distilbert_sized(folder: Path) -> str:
    """A DistilBERT with random weights (6 layers of 768) and the embedded model's tokenizer, to measure speed with."""
    import torch
    import transformers

    from fasttune.data.starter.model import embedded_model_path

    torch.manual_seed(0)
    transformers.DistilBertModel(transformers.DistilBertConfig()).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_path(), model_max_length=512)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return str(folder)


def scores_of(evaluations: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Metric -> its value after each epoch."""
    other = ("eval_loss", "eval_runtime", "eval_samples")
    names = [name for name in evaluations[0] if name.startswith("eval_") and name not in other and "_per_" not in name]
    return {name.removeprefix("eval_"): [evaluation[name] for evaluation in evaluations] for name in names}


def peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_fasttune(recipe: dict[str, Any]) -> dict[str, Any]:
    import fasttune
    from fasttune.training.events import StepDone

    steps: list[StepDone] = []

    def observer(event: object) -> None:
        if isinstance(event, StepDone):
            steps.append(event)

    with tempfile.TemporaryDirectory() as folder:
        run = fasttune.fit(recipe, output=Path(folder) / "run", progress=False, observers=[observer])
        lines = (run.folder / "events.jsonl").read_text().splitlines()
    evaluations = [line for line in map(json.loads, lines) if line["event"] == "evaluation"]
    timed = steps[SKIPPED_STEPS:]
    return {
        "scores": scores_of(evaluations),
        "losses": [round(step.loss, 4) for step in steps],
        "train_seconds": run.metrics["train_runtime"],
        "tokens_per_second": sum(step.num_tokens for step in timed) / sum(step.seconds for step in timed),
        "eval_rows_per_second": statistics.median(line["eval_samples_per_second"] for line in evaluations),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def run_trainer(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    import fasttune
    from fasttune import recipe as recipes
    from fasttune.data.pipeline import read_splits
    from fasttune.data.starter.model import embedded_model_path
    from fasttune.tasks import TASKS

    side, training = SIDES[name], recipe["training"]
    splits = read_splits(recipes.load(recipe), TASKS)
    transformers.set_seed(training["seed"])
    folder = recipe.get("model", embedded_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=512)
    work = (trainer_answers if recipe["task"] == "question-answering" else trainer_labels).Work(splits, tokenizer, side)
    dropout = {} if side.attention_dropout is None else {"attention_probs_dropout_prob": side.attention_dropout}
    model = getattr(transformers, splits.task.auto_class).from_pretrained(
        folder, dtype=torch.float32, **work.config, **dropout
    )
    if side.padding_free:
        fasttune.padding_free(model)
    steps: list[tuple[float, int]] = []  # seconds, real tokens

    class Collator(transformers.DataCollatorWithPadding):
        """Count the real tokens of each training batch, in training order."""

        def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
            batch = super().__call__(features)
            counts.append(int(batch["attention_mask"].sum()))
            return batch

    class InOrder(transformers.Trainer):
        """Evaluate in order: group_by_length would also reorder evaluation windows, which then lose their questions."""

        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            return torch.utils.data.SequentialSampler(eval_dataset)

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            counts.clear()

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            steps.append((time.perf_counter() - self.begin, counts.pop(0)))

        def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
            counts.clear()

    counts: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = (InOrder if recipe["task"] == "question-answering" else transformers.Trainer)(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=training["batch_size"],
                per_device_eval_batch_size=training["batch_size"],
                learning_rate=training["learning_rate"],
                num_train_epochs=training["num_train_epochs"],
                bf16=side.bf16,
                train_sampling_strategy="group_by_length" if side.group_by_length else "random",
                optim="adamw_torch_fused",
                eval_strategy="epoch",
                save_strategy="no",
                logging_strategy="steps",
                logging_steps=1,
                seed=training["seed"],
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
            ),
            train_dataset=work.train,
            eval_dataset=work.validation,
            data_collator=Collator(tokenizer),
            callbacks=[Clock()],
            compute_metrics=work.score,
        )
        output = trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    timed = steps[SKIPPED_STEPS:]
    rows = len(splits.validation.rows)
    return {
        "scores": scores_of(evaluations),
        "losses": [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry],
        "train_seconds": output.metrics["train_runtime"],
        "tokens_per_second": sum(count for _, count in timed) / sum(seconds for seconds, _ in timed),
        "eval_rows_per_second": statistics.median(rows / entry["eval_runtime"] for entry in evaluations),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def in_process(side: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Run one side in a new process and return its measurements."""
    command = [sys.executable, __file__, side, json.dumps(recipe)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    shown = {key: value for key, value in result.items() if key != "losses"}
    print(side, recipe["training"]["seed"], json.dumps(shown), file=sys.stderr, flush=True)
    return {"side": side, "seed": recipe["training"]["seed"], **result}


def machine() -> dict[str, Any]:
    """Date, machine, versions, and the peak of the machine's matrix products."""
    import torch

    from fasttune.training.environment import describe
    from fasttune.training.flops import measured_peak

    peaks = {f"{name}_gflops": measured_peak(torch.device("cpu"), name) / 1e9 for name in ("bf16", "fp32")}
    return {"date": date.today().isoformat(), **describe(), **peaks}


def heading(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    peaks = f"bf16 products at {facts['bf16_gflops']:.0f} GFLOPS, fp32 at {facts['fp32_gflops']:.0f}"
    return f"{facts['date']}, {facts['cpu']['name']}, {facts['cpu']['cores']} cores, {peaks}; {versions}"


if __name__ == "__main__":
    name, recipe = sys.argv[1], json.loads(sys.argv[2])
    if name in OWN_SIDES:
        recipe["training"].update(OWN_SIDES[name])
    print(json.dumps(run_fasttune(recipe) if name in OWN_SIDES else run_trainer(name, recipe)))
