"""Rules between the fields of a recipe: settings that contradict each other.

The rules run on a recipe whose fields are valid one by one. They do not touch the data, the model or the machine;
what depends on those is checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

from fasttune.recipe.schema import FieldPath, Recipe, Training, fields

TEXTS, QUESTIONS, WORDS = "text-classification", "question-answering", "token-classification"
# Settings that apply to some tasks only.
TASKS_WITH: dict[FieldPath, tuple[str, ...]] = {
    **{("data", "columns", role): (TEXTS,) for role in ("text", "text_pair", "label")},
    **{("data", "columns", role): (QUESTIONS,) for role in ("question", "context", "answers", "answer_start")},
    **{("data", "columns", role): (WORDS,) for role in ("tokens", "tags")},
    ("problem",): (TEXTS,),
    ("model_head",): (TEXTS,),
    ("data", "label_names"): (TEXTS, WORDS),
    ("data", "label_separator"): (TEXTS,),
    ("data", "fix_spans"): (QUESTIONS,),
    ("data", "label_range"): (TEXTS,),
    ("data", "corrections"): (TEXTS,),
    ("preprocessing", "long_text"): (TEXTS,),
    ("preprocessing", "window_pooling"): (TEXTS,),
    ("preprocessing", "doc_stride"): (QUESTIONS,),
    ("preprocessing", "word_boundaries"): (WORDS,),
    ("training", "label_smoothing_factor"): (TEXTS, WORDS),
    ("training", "class_weights"): (TEXTS, WORDS),
    ("training", "teacher"): (TEXTS,),
    ("evaluation", "baselines"): (TEXTS,),
    ("evaluation", "calibrate"): (TEXTS,),
    ("evaluation", "tune_threshold"): (TEXTS,),
    ("evaluation", "min_precision"): (TEXTS,),
    ("evaluation", "n_best_size"): (QUESTIONS,),
    ("evaluation", "max_answer_length"): (QUESTIONS,),
    ("evaluation", "null_score_diff_threshold"): (QUESTIONS,),
}
# Settings that need all training rows at once.
NOT_STREAMED: tuple[FieldPath, ...] = (
    ("data", "columns", "group"),
    ("data", "columns", "time"),
    ("data", "drop_duplicates"),
    ("data", "test_fraction"),
    ("data", "max_train_samples"),
    ("data", "unlabelled"),
    ("data", "corrections"),
    ("training", "teacher"),
    ("training", "replay"),
    ("training", "mlm_epochs"),
)


@dataclass(frozen=True)
class Conflict:
    """Fields that contradict each other.

    `paths` are the fields; an error names the place of an override among them, or else of the first that was written.
    `fix` is a field and the value that resolves the conflict, `alternative` another line to write. `found` and
    `expected` are those of `Problem`.
    """

    code: str
    paths: tuple[FieldPath, ...]
    found: str
    fix: tuple[FieldPath, object]
    expected: str = ""
    alternative: str = ""


def conflicts(recipe: Recipe) -> Iterator[Conflict]:
    yield from _every_steps(
        "evaluation", "eval_strategy", recipe.evaluation.eval_strategy, "eval_steps", recipe.evaluation.eval_steps
    )
    yield from _every_steps(
        "output", "save_strategy", recipe.output.save_strategy, "save_steps", recipe.output.save_steps
    )
    yield from _early_stopping(recipe)
    yield from _best_metric(recipe)
    yield from _fractions(recipe)
    yield from _streaming(recipe)
    yield from _other_tasks(recipe)
    yield from _seeds(recipe)
    yield from _more_texts(recipe)


def _every_steps(
    section: str, strategy_name: str, strategy: str, steps_name: str, steps: int | None
) -> Iterator[Conflict]:
    strategy_path, steps_path = (section, strategy_name), (section, steps_name)
    if strategy == "steps" and steps is None:
        yield Conflict(
            code="E313",
            paths=(strategy_path, steps_path),
            found=f"{strategy_name} 'steps' requires {steps_name}, which is not set",
            fix=(steps_path, 500),
        )
    if strategy != "steps" and steps is not None:
        yield Conflict(
            code="E313",
            paths=(steps_path, strategy_path),
            found=f"{steps_name} {steps} requires {strategy_name} 'steps', but {strategy_name} is '{strategy}'",
            fix=(strategy_path, "steps"),
            alternative=f"{section}.{steps_name}=null",
        )


def _early_stopping(recipe: Recipe) -> Iterator[Conflict]:
    patience = recipe.evaluation.early_stopping_patience
    if patience is not None and recipe.evaluation.eval_strategy == "no":
        strategy = ("evaluation", "eval_strategy")
        yield Conflict(
            code="E313",
            paths=(("evaluation", "early_stopping_patience"), strategy),
            found=f"early_stopping_patience {patience} requires evaluations, but eval_strategy is 'no'",
            fix=(strategy, "epoch"),
            alternative="evaluation.early_stopping_patience=null",
        )


def _seeds(recipe: Recipe) -> Iterator[Conflict]:
    training, path = recipe.training, ("training", "seeds")
    if training.seeds is None:
        return
    default = Training().seed
    if training.seed != default:
        yield Conflict(
            code="E313",
            paths=(path, ("training", "seed")),
            found=f"seeds {training.seeds} and seed {training.seed}",
            expected="one of them",
            fix=(path, None),
            alternative=f"training.seed={default}",
        )
    if training.max_time is not None:
        yield Conflict(
            code="E313",
            paths=(("training", "max_time"), path),
            found=f"max_time {training.max_time} is the time of one run, but seeds asks for {len(training.seeds)}",
            fix=(("training", "max_time"), None),
            alternative="training.max_steps with the number of steps that fit",
        )


def _more_texts(recipe: Recipe) -> Iterator[Conflict]:
    training, unlabelled = recipe.training, ("data", "unlabelled")
    if recipe.data.unlabelled is not None and training.teacher is None and not training.mlm_epochs:
        yield Conflict(
            code="E313",
            paths=(unlabelled,),
            found="rows without labels, and nothing that learns from them",
            expected="training.teacher=RUN or training.mlm_epochs=N with it",
            fix=(unlabelled, None),
        )
    if training.max_time is not None and training.mlm_epochs:
        yield Conflict(
            code="E313",
            paths=(("training", "max_time"), ("training", "mlm_epochs")),
            found=f"max_time {training.max_time} plans the fine-tuning only, not the mlm_epochs before it",
            fix=(("training", "max_time"), None),
        )


def _best_metric(recipe: Recipe) -> Iterator[Conflict]:
    best, metrics = recipe.evaluation.metric_for_best_model, recipe.evaluation.metrics
    if metrics is not None and best not in (None, "loss", *metrics):
        metrics_path = ("evaluation", "metrics")
        yield Conflict(
            code="E304",
            paths=(("evaluation", "metric_for_best_model"), metrics_path),
            found=f"metric_for_best_model '{best}', which is not in evaluation.metrics",
            expected="one of " + ", ".join([*metrics, "loss"]),
            fix=(metrics_path, [*metrics, best]),
        )


def _fractions(recipe: Recipe) -> Iterator[Conflict]:
    data = recipe.data
    if data.validation_fraction + data.test_fraction >= 1 and data.validation is None:
        validation, test = ("data", "validation_fraction"), ("data", "test_fraction")
        yield Conflict(
            code="E313",
            paths=(test, validation),
            found=f"validation_fraction {data.validation_fraction:g} and test_fraction {data.test_fraction:g} leave no "
            "rows for training",
            fix=(test, 0.1),
        )
    if data.label_range is not None and data.label_range[0] >= data.label_range[1]:
        path = ("data", "label_range")
        low, high = data.label_range
        yield Conflict(
            code="E313",
            paths=(path,),
            found=f"{low:g} to {high:g}",
            expected="the lower number first",
            fix=(path, [high, low]),
        )
    if data.columns.group is not None and data.columns.time is not None:
        group, time = ("data", "columns", "group"), ("data", "columns", "time")
        yield Conflict(
            code="E313",
            paths=(time, group),
            found="columns.group and columns.time are both set, but a split can use only one of them",
            fix=(time, None),
        )


def _streaming(recipe: Recipe) -> Iterator[Conflict]:
    if not recipe.data.streaming:
        return
    defaults = {path: field.default for path, field in fields()}
    for path in NOT_STREAMED:
        value = reduce(getattr, path, recipe)
        if value != defaults[path]:
            yield Conflict(
                code="E313",
                paths=(path, ("data", "streaming")),
                found=f"{path[-1]} needs all training rows at once, so it cannot be combined with data.streaming",
                fix=(path, defaults[path]),
            )


def has(task: str, path: FieldPath) -> bool:
    """Whether a setting applies to a task. All settings apply to tasks that are not built in."""
    tasks = TASKS_WITH.get(path)
    return tasks is None or task in tasks or task not in (TEXTS, QUESTIONS, WORDS)


def _other_tasks(recipe: Recipe) -> Iterator[Conflict]:
    defaults = {path: field.default for path, field in fields()}
    for path, tasks in TASKS_WITH.items():
        value = reduce(getattr, path, recipe)
        if not has(recipe.task, path) and value != defaults[path]:
            yield Conflict(
                code="E313",
                paths=(path, ("task",)),
                found=f"{path[-1]} applies to {' and '.join(tasks)} only, but the task is {recipe.task}",
                fix=(path, defaults[path]),
            )
