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
GPU_SKIPPED_STEPS = 20  # by the wall, which is how a GPU is timed


@dataclass(frozen=True)
class Side:
    """One way to run the Trainer; attention dropout `None` keeps the model's value.

    `rebalance`: the number of micro-batches of a step among which `batch_rebalance` divides its rows; 0: not used.
    `attention`: transformers' name of an attention kernel. `compiled`: with torch.compile.
    """

    what: str
    padding: str = "longest"  # longest | max_length
    bf16: bool = True
    group_by_length: bool = False
    attention_dropout: float | None = None
    padding_free: bool = False
    rebalance: int = 0
    attention: str | None = None
    compiled: bool = False


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


# For GPUs only.
GPU_SIDES = {
    "trainer-rebalance-0": Side(
        "batch_rebalance in 4 micro-batches, bf16, fused AdamW, attention dropout 0", rebalance=4, attention_dropout=0.0
    ),
    "trainer-best-0-compiled": Side(
        "group_by_length, bf16, fused AdamW, attention dropout 0, torch_compile",
        group_by_length=True,
        attention_dropout=0.0,
        compiled=True,
    ),
    "trainer-flash-0": Side(
        "group_by_length, bf16, fused AdamW, flash attention 2 with transformers' unpadding, attention dropout 0",
        group_by_length=True,
        attention_dropout=0.0,
        attention="flash_attention_2",
    ),
}
# fasttune as shipped, and with the attention dropout of the Trainer's best setting: overrides of `training`.
OWN_SIDES: dict[str, dict[str, Any]] = {
    "fasttune": {},
    "fasttune-0": {"attention_dropout": 0},
    "fasttune-0-compiled": {"attention_dropout": 0, "compile": True},
    "fasttune-0-eager": {"attention_dropout": 0, "compile": False},
}


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
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_fasttune(recipe: dict[str, Any]) -> dict[str, Any]:
    import fasttune
    from fasttune.training.events import StepDone

    steps: list[StepDone] = []
    wall = Wall(recipe["training"].get("max_steps", 0))

    def observer(event: object) -> None:
        if isinstance(event, StepDone):
            steps.append(event)
            wall.step()

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
        **wall.speeds([step.num_tokens for step in steps], recipe["training"]["batch_size"]),
        "eval_rows_per_second": statistics.median(line["eval_samples_per_second"] for line in evaluations),
        "peak_memory_bytes": peak_memory_bytes(),
    }


@dataclass
class Wall:
    """The time from step GPU_SKIPPED_STEPS to step `last`, whatever happens between; a GPU is waited for twice."""

    last: int
    num_steps: int = 0
    begin: float = 0.0
    end: float = 0.0

    def step(self) -> None:
        self.num_steps += 1
        if self.num_steps == GPU_SKIPPED_STEPS:
            self.begin = self._now()
        if self.num_steps == self.last:
            self.end = self._now()

    def _now(self) -> float:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def speeds(self, tokens: list[int], batch_size: int) -> dict[str, float]:
        """Real tokens and examples per second; nothing for a run that is too short."""
        timed = tokens[GPU_SKIPPED_STEPS:]
        if not timed:
            return {}
        seconds = self.end - self.begin
        return {
            "wall_tokens_per_second": sum(timed) / seconds,
            "wall_examples_per_second": len(timed) * batch_size / seconds,
        }


def run_trainer(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    import fasttune
    from fasttune import recipe as recipes
    from fasttune.data.pipeline import read_splits
    from fasttune.data.starter.model import embedded_model_path
    from fasttune.tasks import TASKS

    side, training = {**SIDES, **GPU_SIDES}[name], recipe["training"]
    on_gpu = torch.cuda.is_available()
    splits = read_splits(recipes.load(recipe), TASKS)
    transformers.set_seed(training["seed"])
    folder = recipe.get("model") or embedded_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=512)
    work = (trainer_answers if recipe["task"] == "question-answering" else trainer_labels).Work(splits, tokenizer, side)
    config = transformers.AutoConfig.from_pretrained(folder)
    names = ("attention_probs_dropout_prob", "attention_dropout")  # of BERT, and of DistilBERT and ModernBERT
    dropout = {
        name: side.attention_dropout for name in names if side.attention_dropout is not None and hasattr(config, name)
    }
    attention = {} if side.attention is None else {"attn_implementation": side.attention}
    model = getattr(transformers, splits.task.auto_class).from_pretrained(
        folder, dtype=torch.float32, **work.config, **dropout, **attention
    )
    if side.padding_free:
        fasttune.padding_free(model)
    seconds: list[float] = []
    tokens: list[torch.Tensor] = []  # real ones of each micro-batch, added up after training
    wall = Wall(training.get("max_steps", 0))

    class Counting(transformers.Trainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *more: Any) -> torch.Tensor:
            tokens.append(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *more)

        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            """In order: group_by_length would also reorder evaluation windows, which then lose their questions."""
            return torch.utils.data.SequentialSampler(eval_dataset)

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.begin)
            wall.step()

    sampling = "batch_rebalance" if side.rebalance else "group_by_length" if side.group_by_length else "random"
    with tempfile.TemporaryDirectory() as folder:
        trainer = Counting(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=training["batch_size"] // (side.rebalance or 1),
                gradient_accumulation_steps=side.rebalance or 1,
                per_device_eval_batch_size=training["batch_size"],
                learning_rate=training["learning_rate"],
                num_train_epochs=training["num_train_epochs"],
                max_steps=training.get("max_steps", -1),
                bf16=side.bf16,
                train_sampling_strategy=sampling,
                dataloader_num_workers=4 if on_gpu else 0,
                optim="adamw_torch_fused",
                eval_strategy="epoch",
                save_strategy="no",
                logging_strategy="steps",
                logging_steps=1000 if on_gpu else 1,  # each reads the loss, which a GPU is waited for
                seed=training["seed"],
                report_to="none",
                disable_tqdm=True,
                use_cpu=not on_gpu,
                torch_compile=side.compiled,
                logging_nan_inf_filter=not on_gpu,  # which reads the loss of each step
            ),
            train_dataset=work.train,
            eval_dataset=work.validation,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            callbacks=[Clock()],
            compute_metrics=work.score,
        )
        output = trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    counted = torch.stack(tokens).view(len(seconds), -1).sum(1).tolist()
    rows = len(splits.validation.rows)
    return {
        "scores": scores_of(evaluations),
        "losses": [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry],
        "train_seconds": output.metrics["train_runtime"],
        "tokens_per_second": sum(counted[SKIPPED_STEPS:]) / sum(seconds[SKIPPED_STEPS:]),
        **wall.speeds(counted, training["batch_size"]),
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
