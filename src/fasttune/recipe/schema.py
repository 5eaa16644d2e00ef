"""The recipe schema: every section and field, with its default, meaning, unit and allowed values.

scripts/docs builds the reference documentation from the descriptions; error messages quote `allowed`. This module
validates one field at a time; constraints between fields are in `rules`. It reads no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from fasttune.recipe.data_schema import Data, Preprocessing
from fasttune.recipe.search_schema import Search
from fasttune.recipe.section import Section, setting
from fasttune.recipe.types import (
    LARGEST_SEED,
    METRICS,
    TASK_NAMES,
    Count,
    Duration,
    Metric,
    Metrics,
    Number,
    ReportTo,
    Seed,
    Seeds,
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
    preset: Literal["auto", "fast", "accurate", "tutorial"] = setting(
        "auto",
        "Fills the settings that the recipe leaves open: `training.num_train_epochs`, `batch_size`, `learning_rate`, "
        "`head_learning_rate`, `layer_decay`, `warmup_steps` and `attention_dropout`, by the number of rows and the "
        "size of the model. `fast` makes one epoch, `accurate` takes the time it needs, `auto` is between them (with "
        "`training.max_time`, as `accurate`), `tutorial` keeps the defaults below, those of the Hugging Face course. "
        "The saved recipe holds the numbers.",
        allowed="'auto', 'fast', 'accurate' or 'tutorial'",
    )
    num_train_epochs: Number = setting(
        3.0,
        "The number of passes over the training rows; 0.5 is half a pass. `training.max_steps` overrides it.",
        allowed="a number above 0",
        gt=0,
        allow_inf_nan=False,
    )
    max_steps: Annotated[Whole, AfterValidator(check_steps)] = setting(
        -1,
        "Stop after this many optimizer steps, regardless of `training.num_train_epochs`. -1 means no limit.",
        allowed="a whole number above 0, or -1 (no limit)",
    )
    max_time: Duration | None = setting(
        None,
        "End the run within this time, from reading the data to the last file. A few steps are timed first; if not all "
        "steps fit, fewer are made, and the learning rate decays within them. The number of steps changes with the "
        "machine's speed; the saved recipe holds the first one.",
        allowed="a duration such as 90s, 20m or 1h30m, or null (no limit)",
    )
    batch_size: Count = setting(
        8,
        "The number of examples per optimizer step, over all devices. It affects learning, not memory: batches are "
        "split into micro-batches of `training.tokens_per_microbatch` tokens.",
        allowed="a whole number above 0",
    )
    learning_rate: Number = setting(
        5e-5,
        "The peak learning rate, reached at the end of the warm-up (`training.warmup_steps`). Typical values are 1e-6 "
        "to 1e-3; larger models need lower ones.",
        allowed="a number above 0 and at most 1 (typically 1e-6 to 1e-3)",
        code="E302",
        gt=0,
        le=1,
    )
    head_learning_rate: Number | None = setting(
        None,
        "The peak learning rate of the head: all weights above the encoder's layers, the pooler included. They start "
        "untrained, so a rate of 2 to 5 times `training.learning_rate` saves the first steps of a short run. If unset, "
        "`training.learning_rate`.",
        allowed="a number above 0 and at most 1, or null (training.learning_rate)",
        code="E302",
        gt=0,
        le=1,
    )
    layer_decay: Number = setting(
        1.0,
        "The learning rate of each layer as a fraction of that of the layer above; the highest has "
        "`training.learning_rate`, the embeddings count as the lowest. Below 1, such as 0.6, lower layers change less, "
        "and the rate can be higher. Short runs gain most.",
        allowed="a number above 0, up to 1 (the same rate for all layers)",
        gt=0,
        le=1,
    )
    weight_decay: Number = setting(
        0.0,
        "AdamW's weight decay. Biases and normalization weights are not decayed.",
        allowed="a number from 0 to 1",
        ge=0,
        le=1,
    )
    warmup_steps: Annotated[Number, AfterValidator(check_warmup)] = setting(
        0.0,
        "The number of steps over which the learning rate rises from 0. A value below 1 is a fraction of all steps: "
        "0.1 is the first tenth.",
        allowed="a whole number of steps, or a fraction of all steps from 0 to below 1",
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = setting(
        "linear",
        "The learning rate after the warm-up: `linear` and `cosine` decay to 0, `constant` stays at the peak.",
        allowed="'linear', 'cosine' or 'constant'",
    )
    max_grad_norm: Number = setting(
        1.0,
        "Clip gradients to this norm. 0 disables clipping.",
        allowed="a number above 0, or 0 (no clipping)",
        ge=0,
        allow_inf_nan=False,
    )
    label_smoothing_factor: Number = setting(
        0.0,
        "Label smoothing, against over-confidence: the fraction of the target that is spread evenly over all labels. "
        "It applies to training only, so the training loss is then not comparable with the evaluation loss.",
        allowed="a number from 0 to below 1",
        ge=0,
        lt=1,
    )
    class_weights: Literal["balanced"] | WeightTable | None = setting(
        None,
        "Per-class weights of the loss, for single-label tasks. `balanced` weights classes inversely to their number "
        "of training rows. A table maps label names to weights; labels it leaves out have weight 1.",
        allowed="'balanced', a table from label names to numbers above 0, or null (no weights)",
    )
    divergence_policy: Literal["stop", "rollback"] = setting(
        "stop",
        "What to do when the loss or a gradient is not finite: `stop` ends the run (exit code 6), `rollback` returns "
        "to the last checkpoint and skips that batch, at most five times.",
        allowed="'stop' or 'rollback'",
    )
    attention_dropout: Literal["auto"] | Annotated[Number, Field(ge=0, lt=1)] = setting(
        "auto",
        "Dropout on attention weights. `auto` uses the model's own value, or 0 if the device's attention kernel does "
        "not support dropout; the saved recipe holds the number.",
        allowed="'auto' or a number from 0 to below 1",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "The precision of the forward pass; weights are kept in fp32. `auto` uses bf16 if the device is fast at it, "
        "otherwise fp16 on CUDA and fp32 elsewhere, and reports the reason. Evaluation and prediction use the same "
        "precision.",
        allowed="'auto', 'fp32', 'bf16' or 'fp16'",
        code="E310",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto",
        "The device to train on. `auto` uses CUDA if available, then MPS, then the CPU. Choose CUDA devices with "
        "CUDA_VISIBLE_DEVICES.",
        allowed="'auto', 'cpu', 'cuda' or 'mps'",
    )
    tokens_per_microbatch: Literal["auto"] | Count = setting(
        "auto",
        "The maximum number of tokens in one forward pass on one device. It affects memory and speed; without dropout, "
        "it does not affect the result. `auto` finds a value; the saved recipe holds the number.",
        allowed="'auto' or a whole number above 0",
    )
    teacher: Text | None = setting(
        None,
        "A finished run, usually of a larger model, whose probabilities this one learns from besides the labels "
        "(distillation): the loss is the mean of the losses against label and probabilities. It needs the same labels "
        "as the run, one or several per text. With `data.unlabelled` it also labels further rows.",
        allowed="the folder of a finished run, or null",
    )
    replay: float = setting(
        0.0,
        "If `model` is a run: also train on rows of that run, this many for each new row, so that the model does not "
        "forget what it knew. Its validation rows are added to the validation rows in the same proportion. With it, "
        "new rows need not have the old labels.",
        allowed="a number, 0 (none) or more",
        ge=0,
    )
    mlm_epochs: Whole = setting(
        0,
        "First train the encoder for this many passes to fill in masked words of the training texts and of "
        "`data.unlabelled` (masked language modeling), so that it knows their vocabulary before it sees a label. Suits "
        "texts unlike those of the pretraining, and pays off from a few thousand on. The model is kept in RUN/mlm.",
        allowed="a whole number, 0 (none) or more",
        ge=0,
    )
    freeze_layers: Whole = setting(
        0,
        "Leave the embeddings and this many of the lowest layers as they are; the layers above and the head are "
        "trained. What the frozen layers compute is kept in memory, so that they run once per row and not in every "
        "epoch. Suits few rows and models that already represent whole texts well, such as sentence embedders.",
        allowed="a whole number, 0 (train all layers) or more",
        ge=0,
    )
    deterministic: bool = setting(
        False,
        "Use deterministic algorithms on a GPU, so that the same run gives the same bytes there too; it is slower. "
        "On a CPU, runs repeat to the byte without it.",
        allowed="true or false",
    )
    compile: Literal["auto"] | bool = setting(
        "auto",
        "Make one program of the small operations of each layer with torch.compile, for any number of tokens. `auto` "
        "measures on an NVIDIA GPU whether that is faster, if the run is long enough, and keeps the faster way; on "
        "CPUs it is slower. Dropout masks differ from those without it.",
        allowed="auto, true or false",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Recompute activations in the backward pass instead of storing them: about a third of the memory for a third "
        "more time, with the same result.",
        allowed="true or false",
    )
    logging_steps: Count = setting(
        10,
        "Report the loss and the learning rate every this many optimizer steps.",
        allowed="a whole number above 0",
    )
    seed: Seed = setting(
        42,
        "The seed for the new head's weights, the order of the rows and the dropout masks.",
        allowed=f"a whole number from 0 to {LARGEST_SEED}",
    )
    seeds: Seeds | None = setting(
        None,
        "Train once with each of these seeds and report mean and standard deviation: a single run says little about a "
        "setting if others differ by points. The runs are kept in RUN/seeds; RUN itself holds the best one on the "
        "validation rows. Replaces `training.seed`.",
        allowed="a list of two or more different seeds, such as [1, 2, 3], or null (one run)",
    )


class Evaluation(Section):
    eval_strategy: Strategy = setting(
        "epoch",
        "When to evaluate during training: never (`no`), every `evaluation.eval_steps` steps, or after every epoch.",
        allowed="'no', 'steps' or 'epoch'",
    )
    eval_steps: Count | None = setting(
        None,
        "The number of optimizer steps between evaluations. Required with eval_strategy `steps`, refused otherwise.",
        allowed="a whole number above 0",
    )
    metrics: Metrics | None = setting(
        None,
        "The metrics to compute besides the loss. Most range from 0 to 1, correlations from -1 to 1, and exact match "
        "and F1 of answers from 0 to 100; `rmse` and `mae` are in the unit of the labels. If unset, the task's default "
        "metrics.",
        allowed="a list with any of " + ", ".join(METRICS),
        code="E304",
    )
    metric_for_best_model: Metric | Literal["loss"] | None = setting(
        None,
        "The metric that selects the best weights and drives early stopping. Greater is better, except for `loss`, "
        "`rmse` and `mae`. If `evaluation.metrics` is set, the metric must be in it. If unset, the task's primary "
        "metric, which is always computed.",
        allowed="one of " + ", ".join(METRICS) + ", loss",
        code="E304",
    )
    n_best_size: Count = setting(
        20,
        "Question answering: the number of candidate answers to keep, with their probabilities.",
        allowed="a whole number above 0",
    )
    max_answer_length: Count = setting(
        30,
        "Question answering: the maximum length of an answer in tokens.",
        allowed="a whole number of tokens above 0",
    )
    null_score_diff_threshold: Annotated[Number, Field(allow_inf_nan=False)] | None = setting(
        None,
        "Question answering with unanswerable questions: predict no answer if its score exceeds the best span's by "
        "more than this (in logits). If unset, the value with the best F1 on the validation rows, which is saved in "
        "config.json.",
        allowed="a number, or null (set on the validation rows)",
    )
    baselines: bool = setting(
        True,
        "Text classification with at least 100 training and 100 scored rows: also score the most frequent class, and "
        "logistic regression on TF-IDF and on the frozen encoder (with at most 5,000 training rows), to show what "
        "fine-tuning gains. Takes about as long as an evaluation of these rows; left out with `training.max_time`.",
        allowed="true or false",
    )
    calibrate: bool = setting(
        True,
        "Text classification: divide the logits of predicted probabilities by a temperature, so that about 90 % of the "
        "predictions with 90 % are right. It is fitted to the validation rows (at least 50) and kept in "
        "calibration.json. It changes no predicted label and no score.",
        allowed="true or false",
    )
    tune_threshold: bool = setting(
        False,
        "Text classification with two classes: predict the second one from the probability with the best F1 on the "
        "validation rows, instead of from 0.5. config.json keeps it. Suits rare second classes.",
        allowed="true or false",
    )
    min_precision: Annotated[Number, Field(gt=0, lt=1)] | None = setting(
        None,
        "Text classification with one label per text: withhold predictions that are too unsure (`label` is null), so "
        "that of the others at least this share is right on the validation rows. config.json keeps the probability.",
        allowed="a number between 0 and 1, such as 0.95, or null (predict always)",
    )
    early_stopping_patience: Count | None = setting(
        None,
        "Stop after this many consecutive evaluations without an improvement of `evaluation.metric_for_best_model`. If "
        "unset, there is no early stopping.",
        allowed="a whole number of evaluations above 0, or null (no early stopping)",
    )


class Output(Section):
    dir: Text | None = setting(
        None,
        "The run folder; --output sets it too. If unset, runs/NAME, named after the recipe or the data, then "
        "runs/NAME-2 and so on.",
        allowed="a path, or null (runs/NAME)",
    )
    mirror: Text | None = setting(
        None,
        "Where to copy checkpoints and the finished run, such as s3://bucket/runs/reviews (a path, or any URL that "
        "fsspec supports). --resume on a machine without the run fetches it from there.",
        allowed="a URL or a path, or null",
    )
    report: bool = setting(
        True,
        "Write report.html, with its charts in plots/, at the end of the run: a few seconds. `fasttune report RUN` "
        "writes it later.",
        allowed="true or false",
    )
    save_strategy: Strategy = setting(
        "epoch",
        "When to save a checkpoint: never (`no`), every `output.save_steps` steps, or after every epoch.",
        allowed="'no', 'steps' or 'epoch'",
    )
    save_steps: Count | None = setting(
        None,
        "The number of optimizer steps between checkpoints. Required with save_strategy `steps`, refused otherwise.",
        allowed="a whole number above 0",
    )
    save_total_limit: Count | None = setting(
        2,
        "The number of latest checkpoints to keep, in addition to the best one. null keeps all.",
        allowed="a whole number above 0, or null (keep all)",
    )


class Tracking(Section):
    report_to: ReportTo = setting(
        "auto",
        "Where to log curves, besides the files in the run folder. `auto` logs to TensorBoard if it is installed.",
        allowed="'auto', 'none' or [tensorboard]",
    )


class Recipe(Section):
    """A complete recipe. Create it with `load`, which also checks the rules between fields."""

    format: Annotated[Literal[1], BeforeValidator(to_whole)] = setting(
        1, "The version of the recipe format.", allowed="1, the format of this release"
    )
    task: TaskName = setting(
        "text-classification",
        "The task, by its name on the Hugging Face hub.",
        allowed=f"{', '.join(map(repr, TASK_NAMES[:-1]))} or {TASK_NAMES[-1]!r}",
    )
    problem: Literal["auto", "single-label", "ordinal", "multi-label", "regression"] = setting(
        "auto",
        "The kind of label: one class per text, one of ordered classes such as stars, several labels, or a number. "
        "`auto` detects it from the labels and reports it (never `ordinal`, in which a mistake by two classes counts "
        "more than by one); the saved recipe holds the result.",
        allowed="'auto', 'single-label', 'ordinal', 'multi-label' or 'regression'",
    )
    model: Text = setting(
        "embedded",
        "The model to fine-tune: a hub id (NAME or NAME@REVISION), a local folder, or `embedded` (small, English, 512 "
        "tokens, no download).",
        allowed="a hub id, a folder, or 'embedded'",
    )
    model_head: Literal["default", "mean"] = setting(
        "default",
        "What turns the encoder's output into labels. `default` is the head that transformers has for the model, which "
        "for most reads the first token. `mean` reads the mean of all tokens, which suits sentence embedders; the run "
        "folder is then a CrossEncoder of sentence-transformers instead of an AutoModelForSequenceClassification.",
        allowed="'default' or 'mean'",
    )
    data: Data = Field(description="The rows and their labels.")
    preprocessing: Preprocessing = Field(default_factory=Preprocessing, description="How texts become tokens.")
    training: Training = Field(default_factory=Training, description="Optimization, precision and devices.")
    evaluation: Evaluation = Field(
        default_factory=Evaluation, description="Metrics, model selection and early stopping."
    )
    output: Output = Field(default_factory=Output, description="The run folder and its checkpoints.")
    tracking: Tracking = Field(default_factory=Tracking, description="Experiment trackers.")
    search: Search = Field(default_factory=Search, description="The trials of `fasttune search`.")


def subsection(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, or None if it holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


FieldPath = tuple[str, ...]  # ("training", "seed")


def fields(section: type[Section] = Recipe, parents: FieldPath = ()) -> Iterator[tuple[FieldPath, FieldInfo]]:
    """Yield every field that holds a value, with its path, in the order of a written recipe."""
    for name, field in section.model_fields.items():
        child = subsection(field)
        if child:
            yield from fields(child, (*parents, name))
        else:
            yield (*parents, name), field
