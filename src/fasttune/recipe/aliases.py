"""Names and values that other tools and older releases use, and what to write here instead.

One table for names, one for values, one pattern for secrets. A name of our own in the wrong place is not here:
`problems` finds those from the schema. This file gives advice only; nothing is translated silently.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """`write` is the dotted path to use instead, or "" where the line is to be left out; `why` ends the sentence."""

    write: str
    why: str = ""
    value: str = ""  # what to write there, where the user's own value does not fit


def _leave(why: str) -> Advice:
    return Advice("", why)


_BUDGET = "micro-batches are cut by a token budget that is found by itself (training.tokens_per_microbatch)"
_COMMAND = "the command says what is done: fasttune train, evaluate or predict"
_BEST = "the best weights are always kept, by evaluation.metric_for_best_model"
_NO_PUSH = "training uploads nothing; the finished run folder is an ordinary Hugging Face model"
_WORKERS = "texts are tokenised once before training, so there are no loader workers"
_SHARDING = "accelerate's configuration says how processes share the model (docs/guides/many-devices.md)"
_PRECISION = "one setting names the precision"

NAMES: dict[str, Advice] = {
    # the model
    "model_name_or_path": Advice("model"),
    "model_name": Advice("model"),
    "base_model": Advice("model"),
    "checkpoint": Advice("model", "a folder with a saved model works too"),
    "tokenizer_name": _leave("the tokenizer is the model's own"),
    "config_name": _leave("the configuration is the model's own"),
    "num_labels": _leave("labels are counted in the data; data.label_names gives their order"),
    "trust_remote_code": _leave("code from a model folder or the hub is never run"),
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
    "text_column_names": Advice("data.columns.text", "one column"),
    "label_column": Advice("data.columns.label"),
    "label_column_name": Advice("data.columns.label"),
    "target_column": Advice("data.columns.label"),
    "id2label": Advice("data.label_names"),
    "label2id": Advice("data.label_names", "from the value in the data to the name, or the names in their order"),
    "labels": Advice("data.label_names"),
    "test_size": Advice("data.validation_fraction"),
    "data_seed": Advice("data.seed"),
    "max_predict_samples": Advice("data.max_eval_samples"),
    # preprocessing
    "max_seq_length": Advice("preprocessing.max_length"),
    "max_seq_len": Advice("preprocessing.max_length"),
    "pad_to_max_length": Advice("preprocessing.padding", "one of none, longest, max_length", "max_length"),
    "truncation": _leave("texts longer than preprocessing.max_length are cut and counted"),
    "preprocessing_num_workers": _leave(_WORKERS),
    "group_by_length": _leave("padding is removed, so nothing is gained by grouping"),
    "train_sampling_strategy": _leave("padding is removed, so nothing is gained by grouping"),
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
        "training.batch_size", "examples per optimizer step: times devices, times accumulation steps"
    ),
    "per_gpu_train_batch_size": Advice(
        "training.batch_size", "examples per optimizer step: times devices, times accumulation steps"
    ),
    "gradient_accumulation_steps": _leave(f"multiply training.batch_size by it instead; {_BUDGET}"),
    "per_device_eval_batch_size": _leave(_BUDGET),
    "per_gpu_eval_batch_size": _leave(_BUDGET),
    "eval_batch_size": _leave(_BUDGET),
    "auto_find_batch_size": _leave(_BUDGET),
    "eval_accumulation_steps": _leave("evaluation keeps scores, not whole batches, so its memory does not grow"),
    "fsdp": _leave(_SHARDING),
    "fsdp_config": _leave(_SHARDING),
    "deepspeed": _leave(_SHARDING),
    "ddp_backend": _leave(_SHARDING),
    "warmup_ratio": Advice("training.warmup_steps", "below 1 it is a share of all steps"),
    "warmup": Advice("training.warmup_steps", "below 1 it is a share of all steps"),
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
    "torch_dtype": Advice("training.precision", "weights are kept in fp32, the forward pass runs in it"),
    "dtype": Advice("training.precision", "weights are kept in fp32, the forward pass runs in it"),
    "no_cuda": Advice("training.device", "", "cpu"),
    "use_cpu": Advice("training.device", "", "cpu"),
    "use_mps_device": Advice("training.device", "", "mps"),
    "optim": _leave("the optimizer is AdamW"),
    "optimizer": _leave("the optimizer is AdamW"),
    "torch_compile": _leave("speed comes from leaving out padding; nothing is compiled"),
    "disable_tqdm": _leave("say it on the command line: --quiet"),
    # evaluation
    "evaluation_strategy": Advice("evaluation.eval_strategy"),
    "metric": Advice("evaluation.metrics", "a list"),
    "patience": Advice("evaluation.early_stopping_patience"),
    "early_stopping": Advice("evaluation.early_stopping_patience", "a number of evaluations"),
    "greater_is_better": _leave("every metric knows its direction: greater is better, except for loss"),
    "load_best_model_at_end": _leave(_BEST),
    "compute_metrics": Advice("evaluation.metrics", "a list of names"),
    # output and tracking
    "output_dir": Advice("output.dir"),
    "run_name": Advice("output.dir"),
    "overwrite_output_dir": _leave("a folder that holds a run is never overwritten; choose another output.dir"),
    "resume_from_checkpoint": _leave("say it on the command line: fasttune train ... --resume"),
    "ignore_data_skip": _leave("resuming continues with exactly the rows that were not seen yet"),
    "logging_dir": _leave("curves are written to tensorboard/ in the run folder"),
    "logging_strategy": _leave("training.logging_steps says how often, in optimizer steps"),
    "do_train": _leave(_COMMAND),
    "do_eval": _leave(_COMMAND),
    "do_predict": _leave(_COMMAND),
    "push_to_hub": _leave(_NO_PUSH),
    "hub_model_id": _leave(_NO_PUSH),
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
