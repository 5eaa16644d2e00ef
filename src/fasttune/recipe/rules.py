"""What ties fields of a recipe together: settings that contradict each other.

Each rule takes a recipe whose fields are right one by one and says what does not fit. Rules about the data, the model
or the machine are not here: a recipe is checked without touching any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

from fasttune.recipe.schema import FieldPath, Recipe, fields

TEXTS, QUESTIONS, WORDS = "text-classification", "question-answering", "token-classification"
# Settings that not every task has.
TASKS_WITH: dict[FieldPath, tuple[str, ...]] = {
    **{("data", "columns", role): (TEXTS,) for role in ("text", "text_pair", "label")},
    **{("data", "columns", role): (QUESTIONS,) for role in ("question", "context", "answers", "answer_start")},
    **{("data", "columns", role): (WORDS,) for role in ("tokens", "tags")},
    ("problem",): (TEXTS,),
    ("data", "label_names"): (TEXTS, WORDS),
    ("data", "label_separator"): (TEXTS,),
    ("data", "fix_spans"): (QUESTIONS,),
    ("data", "label_range"): (TEXTS,),
    ("preprocessing", "long_text"): (TEXTS,),
    ("preprocessing", "window_pooling"): (TEXTS,),
    ("preprocessing", "doc_stride"): (QUESTIONS,),
    ("preprocessing", "word_boundaries"): (WORDS,),
    ("training", "label_smoothing_factor"): (TEXTS, WORDS),
    ("training", "class_weights"): (TEXTS, WORDS),
    ("evaluation", "n_best_size"): (QUESTIONS,),
    ("evaluation", "max_answer_length"): (QUESTIONS,),
    ("evaluation", "null_score_diff_threshold"): (QUESTIONS,),
}


NOT_STREAMED: tuple[FieldPath, ...] = (
    ("data", "columns", "group"),
    ("data", "columns", "time"),
    ("data", "drop_duplicates"),
    ("data", "test_fraction"),
    ("data", "max_train_samples"),
)


@dataclass(frozen=True)
class Conflict:
    """`paths` are the fields that contradict each other; the place that is named is the one last written of them."""

    code: str
    paths: tuple[FieldPath, ...]
    found: str
    expected: str
    fix: tuple[FieldPath, object]
    otherwise: str = ""


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
    yield from _of_other_tasks(recipe)


def _every_steps(
    section: str, strategy_name: str, strategy: str, steps_name: str, steps: int | None
) -> Iterator[Conflict]:
    strategy_path, steps_path = (section, strategy_name), (section, steps_name)
    if strategy == "steps" and steps is None:
        yield Conflict(
            "E313",
            (strategy_path, steps_path),
            f"{strategy_name} 'steps' without {steps_name}",
            "a whole number of steps above 0",
            (steps_path, 500),
        )
    if strategy != "steps" and steps is not None:
        yield Conflict(
            "E313",
            (steps_path, strategy_path),
            f"{steps_name} {steps} with {strategy_name} '{strategy}'",
            f"{strategy_name} 'steps'",
            (strategy_path, "steps"),
            f"{section}.{steps_name}=null",
        )


def _early_stopping(recipe: Recipe) -> Iterator[Conflict]:
    patience = recipe.evaluation.early_stopping_patience
    if patience is not None and recipe.evaluation.eval_strategy == "no":
        strategy = ("evaluation", "eval_strategy")
        yield Conflict(
            "E313",
            (("evaluation", "early_stopping_patience"), strategy),
            f"early_stopping_patience {patience} with eval_strategy 'no'",
            "evaluations that can be counted",
            (strategy, "epoch"),
            "evaluation.early_stopping_patience=null",
        )


def _best_metric(recipe: Recipe) -> Iterator[Conflict]:
    best, metrics = recipe.evaluation.metric_for_best_model, recipe.evaluation.metrics
    if metrics is not None and best not in (None, "loss", *metrics):
        listed = ("evaluation", "metrics")
        yield Conflict(
            "E304",
            (("evaluation", "metric_for_best_model"), listed),
            f"metric_for_best_model '{best}', which evaluation.metrics does not list",
            "one of " + ", ".join([*metrics, "loss"]),
            (listed, [*metrics, best]),
        )


def _fractions(recipe: Recipe) -> Iterator[Conflict]:
    data = recipe.data
    if data.validation_fraction + data.test_fraction >= 1 and data.validation is None:
        validation, test = ("data", "validation_fraction"), ("data", "test_fraction")
        yield Conflict(
            "E313",
            (test, validation),
            f"validation_fraction {data.validation_fraction:g} and test_fraction {data.test_fraction:g}",
            "rows left to learn from",
            (test, 0.1),
        )
    if data.label_range is not None and data.label_range[0] >= data.label_range[1]:
        path = ("data", "label_range")
        low, high = data.label_range
        yield Conflict("E313", (path,), f"{low:g} to {high:g}", "the lower number first", (path, [high, low]))
    if data.columns.group is not None and data.columns.time is not None:
        group, time = ("data", "columns", "group"), ("data", "columns", "time")
        yield Conflict("E313", (time, group), "both a group and a time", "one of them to split by", (time, None))


def _streaming(recipe: Recipe) -> Iterator[Conflict]:
    """What needs all training rows at once."""
    defaults = {path: field.default for path, field in fields()}
    for path in NOT_STREAMED if recipe.data.streaming else ():
        value = reduce(getattr, path, recipe)
        if value != defaults[path]:
            found = f"{path[-1]} with data.streaming, which reads rows as they come"
            yield Conflict("E313", (path, ("data", "streaming")), found, "one of them", (path, defaults[path]))


def has(task: str, path: FieldPath) -> bool:
    """Whether a task has this setting; a task of which nothing is said here has all."""
    tasks = TASKS_WITH.get(path)
    return tasks is None or task in tasks or task not in (TEXTS, QUESTIONS, WORDS)


def _of_other_tasks(recipe: Recipe) -> Iterator[Conflict]:
    defaults = {path: field.default for path, field in fields()}
    for path, tasks in TASKS_WITH.items():
        value = reduce(getattr, path, recipe)
        if not has(recipe.task, path) and value != defaults[path]:
            yield Conflict(
                "E313",
                (path, ("task",)),
                f"{path[-1]} with task '{recipe.task}', which has none",
                f"it with {' or '.join(tasks)} only",
                (path, defaults[path]),
            )
