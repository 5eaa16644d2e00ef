"""The fields of a recipe: names, defaults, descriptions and accepted values."""

import subprocess
import sys

import pytest

from fasttune.recipe import Recipe, fields, load
from fasttune.recipe.schema import METRICS

DATA = {"data": {"train": "reviews.csv"}}

# Users and other tools write these names. Add or remove one here on purpose, with a line in the change log.
FIELDS_AND_DEFAULTS = {
    "format": 1,
    "task": "text-classification",
    "problem": "auto",
    "model": "embedded",
    "model_head": "default",
    "data.train": "reviews.csv",
    "data.validation": None,
    "data.test": None,
    "data.unlabelled": None,
    "data.columns.text": None,
    "data.columns.text_pair": None,
    "data.columns.label": None,
    "data.columns.question": None,
    "data.columns.context": None,
    "data.columns.answers": None,
    "data.columns.answer_start": None,
    "data.columns.tokens": None,
    "data.columns.tags": None,
    "data.columns.group": None,
    "data.columns.time": None,
    "data.label_names": None,
    "data.no_label": None,
    "data.corrections": None,
    "data.label_separator": None,
    "data.fix_spans": False,
    "data.label_range": None,
    "data.encoding": None,
    "data.header": "auto",
    "data.sheet": None,
    "data.max_bytes": None,
    "data.total_row": "ask",
    "data.drop_empty": "auto",
    "data.drop_duplicates": False,
    "data.streaming": False,
    "data.shuffle_buffer_size": 10_000,
    "data.max_bad_rows": 0,
    "data.validation_fraction": 0.1,
    "data.test_fraction": 0.0,
    "data.max_train_samples": None,
    "data.max_eval_samples": None,
    "data.seed": 42,
    "preprocessing.max_length": None,
    "preprocessing.long_text": "truncate",
    "preprocessing.window_pooling": "mean",
    "preprocessing.doc_stride": 128,
    "preprocessing.word_boundaries": "auto",
    "preprocessing.padding": "none",
    "training.preset": "auto",
    "training.num_train_epochs": 3.0,
    "training.max_steps": -1,
    "training.max_time": None,
    "training.batch_size": 8,
    "training.learning_rate": 5e-5,
    "training.head_learning_rate": None,
    "training.layer_decay": 1.0,
    "training.weight_decay": 0.0,
    "training.warmup_steps": 0.0,
    "training.lr_scheduler_type": "linear",
    "training.max_grad_norm": 1.0,
    "training.label_smoothing_factor": 0.0,
    "training.class_weights": None,
    "training.divergence_policy": "stop",
    "training.attention_dropout": "auto",
    "training.precision": "auto",
    "training.device": "auto",
    "training.tokens_per_microbatch": "auto",
    "training.teacher": None,
    "training.replay": 0.0,
    "training.mlm_epochs": 0,
    "training.freeze_layers": 0,
    "training.compile": "auto",
    "training.deterministic": False,
    "training.gradient_checkpointing": False,
    "training.logging_steps": 10,
    "training.seed": 42,
    "training.seeds": None,
    "evaluation.eval_strategy": "epoch",
    "evaluation.eval_steps": None,
    "evaluation.metrics": None,
    "evaluation.metric_for_best_model": None,
    "evaluation.n_best_size": 20,
    "evaluation.max_answer_length": 30,
    "evaluation.null_score_diff_threshold": None,
    "evaluation.baselines": True,
    "evaluation.calibrate": True,
    "evaluation.tune_threshold": False,
    "evaluation.min_precision": None,
    "evaluation.early_stopping_patience": None,
    "output.dir": None,
    "output.mirror": None,
    "output.report": True,
    "output.save_strategy": "epoch",
    "output.save_steps": None,
    "output.save_total_limit": 2,
    "tracking.report_to": "auto",
    "search.num_trials": 20,
    "search.max_time": None,
    "search.ranges": None,
}


def get(recipe, name):
    for part in name.split("."):
        recipe = getattr(recipe, part)
    return recipe


def test_the_fields_are_these_with_these_defaults():
    recipe = load(DATA)
    assert {".".join(path): get(recipe, ".".join(path)) for path, _ in fields()} == FIELDS_AND_DEFAULTS


def test_every_field_says_what_it_means_and_what_it_takes():
    for path, field in fields():
        assert field.description and len(field.description) >= 20, path
        assert field.json_schema_extra["allowed"], path
        assert field.json_schema_extra["code"].startswith("E3"), path


def test_metrics_are_frozen():
    assert METRICS == (
        "accuracy",
        "f1",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "precision_macro",
        "recall_macro",
        "matthews_correlation",
        "quadratic_kappa",
        "pearson",
        "spearman",
        "rmse",
        "mae",
        "exact_match",
        "precision",
        "recall",
    )


def test_a_recipe_cannot_be_changed():
    recipe = load(DATA)
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.learning_rate = 1.0


@pytest.mark.parametrize(
    ("field", "written", "read"),
    [
        ("training.learning_rate", "2e-5", 2e-5),  # as a YAML 1.1 reader returns 2e-5
        ("training.learning_rate", 1, 1.0),
        ("training.num_train_epochs", " 2 ", 2.0),
        ("training.batch_size", "16", 16),
        ("training.batch_size", "1e3", 1000),
        ("training.batch_size", 1000.0, 1000),
        ("training.batch_size", "1_000", 1000),
        ("training.seed", "4294967295", 4294967295),
        ("training.max_steps", -1, -1),
        ("training.warmup_steps", 500, 500.0),
        ("training.warmup_steps", 0.06, 0.06),
        ("training.attention_dropout", 0, 0.0),
        ("training.tokens_per_microbatch", 4096, 4096),
        ("training.max_grad_norm", 0, 0.0),
        ("evaluation.eval_strategy", False, "no"),
        ("output.save_strategy", False, "no"),
        ("output.save_total_limit", None, None),
        ("tracking.report_to", False, "none"),
        ("tracking.report_to", "tensorboard", ["tensorboard"]),
        ("tracking.report_to", ["tensorboard"], ["tensorboard"]),
        ("data.validation", ("a.csv", "b.csv"), ["a.csv", "b.csv"]),
        ("data.label_names", ["bad", "good"], ["bad", "good"]),
        ("data.label_names", {0: "bad", "1": "good"}, {"0": "bad", "1": "good"}),
        ("evaluation.metrics", ["f1", "accuracy"], ["f1", "accuracy"]),
        ("evaluation.metric_for_best_model", "loss", "loss"),
    ],
)
def test_values_that_are_accepted(field, written, read):
    values = written
    for part in reversed(field.split(".")):
        values = {part: values}
    value = get(load(DATA, values), field)
    assert value == read
    assert type(value) is type(read)


def test_numbers_of_numpy_and_paths_are_taken(tmp_path):
    numpy = pytest.importorskip("numpy")
    recipe = load(
        {"data": {"train": tmp_path}}, {"training": {"batch_size": numpy.int64(4), "learning_rate": numpy.float32(0.5)}}
    )
    assert recipe.data.train == str(tmp_path)
    assert (recipe.training.batch_size, type(recipe.training.batch_size)) == (4, int)
    assert (recipe.training.learning_rate, type(recipe.training.learning_rate)) == (0.5, float)


def test_direct_construction_refuses_unknown_names():
    with pytest.raises(ValueError, match="extra"):
        Recipe.model_validate(DATA | {"learning_rate": 1})


def test_importing_recipes_imports_nothing_heavy():
    code = (
        "import sys, fasttune.recipe\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
