"""Names and values of other tools, and what to write in a recipe instead.

These tables only supply hints; nothing is translated silently. fasttune's own names in the wrong place are not listed:
`messages` finds those from the schema.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """`write` is the dotted path to use instead, or "" if there is no equivalent; `why` is appended to the hint."""

    write: str
    why: str = ""
    value: str = ""  # the value to write there, if the user's value does not carry over


def _leave(why: str) -> Advice:
    return Advice("", why)


_BUDGET = "training.tokens_per_microbatch sets the size of micro-batches, automatically by default"
_COMMAND = "choose with the command: fasttune train, evaluate or predict"
_BEST = "the best weights by evaluation.metric_for_best_model are always kept"
_PUSH = "upload a finished run with the command: fasttune push RUN REPO"
_WORKERS = "texts are tokenized once before training, so there are no data loader workers"
_SHARDING = "configure it in accelerate (docs/guides/many-devices.md)"
_PRECISION = "a single setting chooses the precision"

NAMES: dict[str, Advice] = {
    # the model
    "model_name_or_path": Advice("model"),
    "model_name": Advice("model"),
    "base_model": Advice("model"),
    "checkpoint": Advice("model", "a folder with a saved model also works"),
    "tokenizer_name": _leave("the model's tokenizer is used"),
    "config_name": _leave("the model's configuration is used"),
    "num_labels": _leave("labels are read from the data; data.label_names sets their names and order"),
    "trust_remote_code": _leave("fasttune never runs code from a model folder or the hub"),
    # data
    "dataset_name": Advice("data.train"),
    "dataset": Advice("data.train"),
    "train_file": Advice("data.train"),
    "train_data": Advice("data.train"),
    "validation_file": Advice("data.validation"),
    "eval_file": Advice("data.validation"),
    "dev_file": Advice("data.validation"),
    "valid": Advice("data.validation"),
    "dev": Advice("data.validation"),
    "eval": Advice("data.validation"),
    "test_file": Advice("data.test"),
    "text_column": Advice("data.columns.text"),
    "text_column_name": Advice("data.columns.text"),
    "text_column_names": Advice("data.columns.text", "a single column"),
    "label_column": Advice("data.columns.label"),
    "label_column_name": Advice("data.columns.label"),
    "target_column": Advice("data.columns.label"),
    "id2label": Advice("data.label_names"),
    "label2id": Advice("data.label_names", "a table from the value in the data to the name, or a list of names"),
    "labels": Advice("data.label_names"),
    "test_size": Advice("data.validation_fraction"),
    "data_seed": Advice("data.seed"),
    "max_predict_samples": Advice("data.max_eval_samples"),
    # preprocessing
    "max_seq_length": Advice("preprocessing.max_length"),
    "max_seq_len": Advice("preprocessing.max_length"),
    "pad_to_max_length": Advice("preprocessing.padding", "one of none, longest, max_length", "max_length"),
    "truncation": _leave("texts longer than preprocessing.max_length are truncated and counted"),
    "preprocessing_num_workers": _leave(_WORKERS),
    "group_by_length": _leave("padding is removed, so grouping gains nothing"),
    "train_sampling_strategy": _leave("padding is removed, so grouping gains nothing"),
    "dataloader_num_workers": _leave(_WORKERS),
    "dataloader_pin_memory": _leave(_WORKERS),
    # training
    "epochs": Advice("training.num_train_epochs"),
    "num_epochs": Advice("training.num_train_epochs"),
    "n_epochs": Advice("training.num_train_epochs"),
    "lr": Advice("training.learning_rate"),
    "batch": Advice("training.batch_size", "examples per optimizer step over all devices"),
    "train_batch_size": Advice("training.batch_size", "examples per optimizer step over all devices"),
    "per_device_train_batch_size": Advice(
        "training.batch_size", "multiply it by the number of devices and accumulation steps"
    ),
    "per_gpu_train_batch_size": Advice(
        "training.batch_size", "multiply it by the number of devices and accumulation steps"
    ),
    "gradient_accumulation_steps": _leave(f"multiply training.batch_size by it instead; {_BUDGET}"),
    "per_device_eval_batch_size": _leave(_BUDGET),
    "per_gpu_eval_batch_size": _leave(_BUDGET),
    "eval_batch_size": _leave(_BUDGET),
    "auto_find_batch_size": _leave(_BUDGET),
    "eval_accumulation_steps": _leave("evaluation keeps scores, not batches, so its memory does not grow"),
    "fsdp": _leave(_SHARDING),
    "fsdp_config": _leave(_SHARDING),
    "deepspeed": _leave(_SHARDING),
    "ddp_backend": _leave(_SHARDING),
    "warmup_ratio": Advice("training.warmup_steps", "a value below 1 is a fraction of all steps"),
    "warmup": Advice("training.warmup_steps", "a value below 1 is a fraction of all steps"),
    "scheduler": Advice("training.lr_scheduler_type"),
    "lr_scheduler": Advice("training.lr_scheduler_type"),
    "label_smoothing": Advice("training.label_smoothing_factor"),
    "max_norm": Advice("training.max_grad_norm"),
    "clip_grad_norm": Advice("training.max_grad_norm"),
    "attention_probs_dropout_prob": Advice("training.attention_dropout"),
    "fp16": Advice("training.precision", _PRECISION, "fp16"),
    "bf16": Advice("training.precision", _PRECISION, "bf16"),
    "fp16_full_eval": Advice("training.precision", "evaluation uses the same precision", "fp16"),
    "bf16_full_eval": Advice("training.precision", "evaluation uses the same precision", "bf16"),
    "mixed_precision": Advice("training.precision"),
    "torch_dtype": Advice("training.precision", "for the forward pass; weights stay in fp32"),
    "dtype": Advice("training.precision", "for the forward pass; weights stay in fp32"),
    "no_cuda": Advice("training.device", "", "cpu"),
    "use_cpu": Advice("training.device", "", "cpu"),
    "use_mps_device": Advice("training.device", "", "mps"),
    "optim": _leave("the optimizer is AdamW"),
    "optimizer": _leave("the optimizer is AdamW"),
    "torch_compile": Advice("training.compile", "auto measures whether it is faster"),
    "full_determinism": Advice("training.deterministic", "for GPUs; runs on a CPU repeat without it"),
    "disable_tqdm": _leave("use --quiet on the command line"),
    # evaluation
    "evaluation_strategy": Advice("evaluation.eval_strategy"),
    "metric": Advice("evaluation.metrics", "a list"),
    "patience": Advice("evaluation.early_stopping_patience"),
    "early_stopping": Advice("evaluation.early_stopping_patience", "a number of evaluations"),
    "greater_is_better": _leave(
        "it follows from the metric: less is better for loss, rmse and mae, greater for the others"
    ),
    "load_best_model_at_end": _leave(_BEST),
    "compute_metrics": Advice("evaluation.metrics", "a list of names"),
    # output and tracking
    "output_dir": Advice("output.dir"),
    "run_name": Advice("output.dir"),
    "overwrite_output_dir": _leave("fasttune never overwrites a run; choose another output.dir"),
    "resume_from_checkpoint": _leave("use --resume on the command line: fasttune train ... --resume"),
    "ignore_data_skip": _leave("resuming continues with exactly the rows not seen yet"),
    "logging_dir": _leave("curves are written to tensorboard/ in the run folder"),
    "logging_strategy": _leave("training.logging_steps sets the interval, in optimizer steps"),
    "do_train": _leave(_COMMAND),
    "do_eval": _leave(_COMMAND),
    "do_predict": _leave(_COMMAND),
    "push_to_hub": _leave(_PUSH),
    "hub_model_id": _leave(_PUSH),
}

VALUES: dict[tuple[str, str], str] = {
    ("task", "sentiment-analysis"): "text-classification",
    ("task", "classification"): "text-classification",
    ("task", "sequence-classification"): "text-classification",
    ("training.lr_scheduler_type", "constant_with_warmup"): "constant",
    ("training.lr_scheduler_type", "cosine_with_restarts"): "cosine",
    ("training.precision", "float32"): "fp32",
    ("training.precision", "32"): "fp32",
    ("training.precision", "no"): "fp32",
    ("training.precision", "false"): "fp32",
    ("training.precision", "float16"): "fp16",
    ("training.precision", "half"): "fp16",
    ("training.precision", "16"): "fp16",
    ("training.precision", "bfloat16"): "bf16",
    ("training.device", "gpu"): "cuda",
    ("training.device", "cuda:0"): "cuda",
    ("preprocessing.padding", "true"): "longest",
    ("preprocessing.padding", "false"): "none",
    ("preprocessing.padding", "no"): "none",
    ("preprocessing.padding", "do_not_pad"): "none",
    ("evaluation.eval_strategy", "false"): "no",
    ("evaluation.eval_strategy", "none"): "no",
    ("output.save_strategy", "none"): "no",
    ("output.save_strategy", "best"): "epoch",
    ("tracking.report_to", "all"): "auto",
    ("evaluation.metric_for_best_model", "eval_loss"): "loss",
    ("evaluation.metric_for_best_model", "mcc"): "matthews_correlation",
    ("evaluation.metrics", "mcc"): "matthews_correlation",
    ("evaluation.metrics", "acc"): "accuracy",
}
VALUES |= {
    ("evaluation.metric_for_best_model", f"eval_{name}"): name for name in ("accuracy", "f1", "f1_macro", "f1_micro")
}
