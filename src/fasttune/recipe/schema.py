"""What a recipe may say: every section and field, with its default, meaning, unit and allowed values.

The reference documentation is made from these descriptions, and the error messages from the words in `allowed`. This
file judges one field at a time; rules that tie two fields together are in `checks`. It reads no file, loads no library
and holds no field that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from fasttune.recipe.data_schema import Data, Preprocessing
from fasttune.recipe.section import Section, setting
from fasttune.recipe.types import (
    LARGEST_SEED,
    METRICS,
    Count,
    Metric,
    Metrics,
    Number,
    ReportTo,
    Seed,
    Strategy,
    TaskName,
    Text,
    WeightTable,
    Whole,
    check_steps,
    check_warmup,
    to_whole,
)


class Training(Section):
    num_train_epochs: Number = setting(
        3.0,
        "Passes over the training rows; 0.5 is half a pass. `training.max_steps` overrides it.",
        allowed="a number above 0",
        gt=0,
        allow_inf_nan=False,
    )
    max_steps: Annotated[Whole, AfterValidator(check_steps)] = setting(
        -1,
        "Stop after this many optimizer steps, whatever `training.num_train_epochs` says; -1: no such limit.",
        allowed="a whole number above 0, or -1 (no limit)",
    )
    batch_size: Count = setting(
        8,
        "Examples per optimizer step, over all devices: a choice about learning, not about memory. It is cut into "
        "micro-batches by `training.tokens_per_microbatch`.",
        allowed="a whole number above 0",
    )
    learning_rate: Number = setting(
        5e-5,
        "The highest learning rate, reached at the end of the warm-up (`training.warmup_steps`). Usual: 1e-6 to 1e-3; "
        "lower for larger models.",
        allowed="a number above 0 and at most 1 (usual range 1e-6 to 1e-3)",
        code="E302",
        gt=0,
        le=1,
    )
    weight_decay: Number = setting(
        0.0,
        "How strongly AdamW pulls weights towards 0, times the learning rate; biases and norms are left alone.",
        allowed="a number from 0 to 1",
        ge=0,
        le=1,
    )
    warmup_steps: Annotated[Number, AfterValidator(check_warmup)] = setting(
        0.0,
        "Steps over which the learning rate rises from 0. Below 1 it is a share of all steps: 0.1 is the first tenth.",
        allowed="0 or a share of all steps below 1, or a whole number of steps",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = setting(
        "linear",
        "How the learning rate goes on after the warm-up: down to 0 in a line (`linear`) or a half cosine (`cosine`), "
        "or not at all (`constant`).",
        allowed="'linear', 'cosine' or 'constant'",
    )
    max_grad_norm: Number = setting(
        1.0,
        "Gradients whose norm is larger are scaled down to it; 0: no clipping.",
        allowed="a number above 0, or 0 (no clipping)",
        ge=0,
        allow_inf_nan=False,
    )
    label_smoothing_factor: Number = setting(
        0.0,
        "The share of the target that is spread evenly over all labels, against over-confidence. It acts in training "
        "only, so the training loss is then not comparable with the evaluation loss.",
        allowed="a number from 0 to below 1",
        ge=0,
        lt=1,
    )
    class_weights: Literal["balanced"] | WeightTable | None = setting(
        None,
        "How much a row of each class counts in loss and gradient; single-label only. `balanced`: each class as much "
        "as any other, by its number of training rows. A table: from label name to weight, 1 for those it leaves out.",
        allowed="'balanced', a table from label name to a number above 0, or nothing (all rows alike)",
    )
    divergence_policy: Literal["stop", "rollback"] = setting(
        "stop",
        "What to do at a loss or gradient that is not finite: end the run (exit code 6), or go back to the last "
        "checkpoint and leave that batch out, five times at most.",
        allowed="'stop' or 'rollback'",
    )
    attention_dropout: Literal["auto"] | Annotated[Number, Field(ge=0, lt=1)] = setting(
        "auto",
        "Dropout on attention weights. `auto`: the model's own, or 0 where the attention kernel of the device has "
        "none; the saved recipe holds the number.",
        allowed="'auto' or a number from 0 to below 1",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "The arithmetic of the forward pass; weights are kept in fp32. `auto`: bf16 where the device is fast in it, "
        "otherwise fp16 on CUDA and fp32 elsewhere; said with the reason. Evaluation and prediction use the same.",
        allowed="'auto', 'fp32', 'bf16' or 'fp16'",
        code="E310",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto",
        "Where to train. `auto`: CUDA, else MPS, else the CPU. Which CUDA devices is said by CUDA_VISIBLE_DEVICES.",
        allowed="'auto', 'cpu', 'cuda' or 'mps'",
    )
    tokens_per_microbatch: Literal["auto"] | Count = setting(
        "auto",
        "The most tokens in one forward pass on one device: a choice about memory. The result does not depend on it "
        "where there is no dropout. `auto`: found by itself; the saved recipe holds the number.",
        allowed="'auto' or a whole number above 0",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Keep only what goes into each layer and compute the rest again on the way back: about a third of the memory "
        "for a third more time. The result stays the same.",
        allowed="true or false",
    )
    logging_steps: Count = setting(
        10,
        "Report loss and learning rate every so many optimizer steps.",
        allowed="a whole number above 0",
    )
    seed: Seed = setting(
        42,
        "Draws the new head's weights, the order of the rows and the dropout masks.",
        allowed=f"a whole number from 0 to {LARGEST_SEED}",
    )


class Evaluation(Section):
    eval_strategy: Strategy = setting(
        "epoch",
        "When to evaluate during training: never, every `evaluation.eval_steps` steps, or after every epoch.",
        allowed="'no', 'steps' or 'epoch'",
    )
    eval_steps: Count | None = setting(
        None,
        "Optimizer steps between evaluations; required with eval_strategy `steps`, refused with the others.",
        allowed="a whole number above 0",
    )
    metrics: Metrics | None = setting(
        None,
        "What to compute besides the loss; values from 0 to 1, correlations from -1, errors in the unit of the labels, "
        "exact match and F1 of answers from 0 to 100. "
        "Left out: the task's own.",
        allowed="a list of " + ", ".join(METRICS),
        code="E304",
    )
    metric_for_best_model: Metric | Literal["loss"] | None = setting(
        None,
        "Chooses the weights that are kept and decides on early stopping; greater is better, except for `loss`, `rmse` "
        "and `mae`. One of `evaluation.metrics` where that is given. Left out: the task's primary metric, which is "
        "computed in any case.",
        allowed="one of " + ", ".join(METRICS) + ", loss",
        code="E304",
    )
    n_best_size: Count = setting(
        20,
        "Question answering: how many spans of a context are kept with their probabilities.",
        allowed="a whole number above 0",
    )
    max_answer_length: Count = setting(
        30,
        "Question answering: the most tokens of an answer.",
        allowed="a whole number of tokens above 0",
    )
    null_score_diff_threshold: Annotated[Number, Field(allow_inf_nan=False)] | None = setting(
        None,
        "Question answering where some questions have no answer: none is given where it scores higher than the best "
        "span by more than this (in logits). Left out: the value with the best F1 on the validation rows, kept in "
        "config.json.",
        allowed="a number, or nothing (set on the validation rows)",
    )
    early_stopping_patience: Count | None = setting(
        None,
        "Stop after this many evaluations in a row without a better `evaluation.metric_for_best_model`. Left out: "
        "train to the end.",
        allowed="a whole number of evaluations above 0, or nothing (no early stopping)",
    )


class Output(Section):
    dir: Text | None = setting(
        None,
        "The run folder, as --output gives it. Left out: runs/NAME after the recipe or the data, then NAME-2 ...",
        allowed="a path, or nothing (runs/NAME)",
    )
    mirror: Text | None = setting(
        None,
        "A second place for checkpoints and the finished run, such as s3://bucket/runs/reviews (any address that "
        "fsspec knows, or a path). --resume on a machine that has none of the run fetches it from there.",
        allowed="an address or a path, or nothing",
    )
    save_strategy: Strategy = setting(
        "epoch",
        "When to write a checkpoint: never, every `output.save_steps` steps, or after every epoch.",
        allowed="'no', 'steps' or 'epoch'",
    )
    save_steps: Count | None = setting(
        None,
        "Optimizer steps between checkpoints; required with save_strategy `steps`, refused with the others.",
        allowed="a whole number above 0",
    )
    save_total_limit: Count | None = setting(
        2,
        "How many checkpoints are kept: the newest ones, and the best besides. Nothing (null): all.",
        allowed="a whole number above 0, or null (all are kept)",
    )


class Tracking(Section):
    report_to: ReportTo = setting(
        "auto",
        "Where curves go besides the run folder's own files. `auto`: TensorBoard where it is installed.",
        allowed="'auto', 'none' or [tensorboard]",
    )


class Recipe(Section):
    """A whole recipe. Make one with `load`, which also checks what ties fields together."""

    format: Annotated[Literal[1], BeforeValidator(to_whole)] = setting(
        1, "The version of this format.", allowed="1, the format of this release"
    )
    task: TaskName = setting(
        "text-classification",
        "What is learned, by the hub's name.",
        allowed="'text-classification', 'question-answering' or 'token-classification'",
    )
    problem: Literal["auto", "single-label", "multi-label", "regression"] = setting(
        "auto",
        "What a label is: one class of each text, several labels, or a number. `auto`: inferred from the labels, and "
        "said; the saved recipe holds it.",
        allowed="'auto', 'single-label', 'multi-label' or 'regression'",
    )
    model: Text = setting(
        "embedded",
        "The model to start from: a hub id (NAME or NAME@REVISION), a local folder, or `embedded` (small, English, 512 "
        "tokens, no download).",
        allowed="a hub id, a folder, or 'embedded'",
    )
    data: Data = Field(description="The rows and their labels.")
    preprocessing: Preprocessing = Field(default_factory=Preprocessing, description="From text to tokens.")
    training: Training = Field(default_factory=Training, description="How to learn.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="How to judge.")
    output: Output = Field(default_factory=Output, description="What is written, and where.")
    tracking: Tracking = Field(default_factory=Tracking, description="Who else is told.")


def subsection(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, or None where it holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


FieldPath = tuple[str, ...]  # ("training", "seed")


def fields(section: type[Section] = Recipe, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every field that holds a value, with its path, in the order of a written recipe."""
    for name, field in section.model_fields.items():
        below = subsection(field)
        if below:
            yield from fields(below, (*above, name))
        else:
            yield (*above, name), field
