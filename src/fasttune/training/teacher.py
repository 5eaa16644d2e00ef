"""`training.teacher`: a finished run, usually of a larger model, whose probabilities the new model learns from.

Hinton et al. (2015), at temperature 1: the loss is the mean of the losses against the label and against the teacher's
probabilities. Rows of `data.unlabelled` get the teacher's label. Letters: N training rows, K classes or labels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fasttune.data.pipeline import Split, Splits
from fasttune.data.problems import some_of
from fasttune.data.rows import Rows
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import Problem, RecipeError, shown
from fasttune.parallel.collectives import raise_on_all_ranks
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import open_run
from fasttune.tasks import Prediction
from fasttune.tasks.targets import MultiLabel, SingleLabel
from fasttune.tasks.text_classification import TEACHER, TextClassification
from fasttune.training.model import checksums
from fasttune.training.precision import Choice
from fasttune.training.scoring import predict_split
from fasttune.training.setup import Setup, set_up_run


@dataclass(frozen=True)
class Taught:
    """`splits` with the unlabelled rows among the training rows, whose `probabilities` (N, K) are the teacher's."""

    splits: Splits
    probabilities: np.ndarray
    choice: Choice

    def added_to(self, store: TokenStore) -> TokenStore:
        """The tokens of the training rows with the teacher's probabilities as a feature."""
        return replace(store, features={**store.features, TEACHER: self.probabilities[store.rows]})


def ask_teacher(recipe: Recipe, splits: Splits) -> Taught | None:
    """Run the teacher over the training rows; None without one, RecipeError if it has other labels or inputs."""
    if recipe.training.teacher is None:
        return None
    teacher, setup, digest = raise_on_all_ranks(lambda: _open(recipe, splits.task), local_rank_first=True)
    task, train = splits.task, splits.train
    assert isinstance(task, TextClassification) and isinstance(task.target, SingleLabel | MultiLabel)
    assert isinstance(teacher.target, SingleLabel | MultiLabel), "checked when it was opened"
    own, its = task.target.vocabulary.names, teacher.target.vocabulary.names
    order = [its.index(name) for name in own]
    logits, _ = _answers(teacher, setup, train)
    added = 0
    if splits.unlabelled is not None and len(splits.unlabelled.rows):
        more, predictions = _answers(teacher, setup, splits.unlabelled)
        train = _with_rows(train, splits.unlabelled.rows, predictions, task.target)
        logits, added = np.concatenate([logits, more]), len(more)
    probabilities = teacher.target.probabilities(logits)[:, order].astype(np.float32)
    family = setup.model.config.model_type
    reason = f"{family}, weights {digest}" + (f"; it labelled {added:,} rows of data.unlabelled" if added else "")
    return Taught(replace(splits, train=train, unlabelled=None), probabilities, Choice(recipe.training.teacher, reason))


def _open(recipe: Recipe, task: Any) -> tuple[TextClassification, Setup, str]:
    where = "training.teacher"
    folder = open_run(str(recipe.training.teacher))
    saved = load_recipe(folder.recipe)
    used = {"device": recipe.training.device, "precision": recipe.training.precision}

    def refuse(found: str, expected: str) -> RecipeError:
        problem = Problem(where=f"{where}={folder.path}", found=found, expected=expected, code="E416")
        return RecipeError(problem)

    if saved.task != recipe.task:
        raise refuse(f"a run of {saved.task}", f"a run of {recipe.task}")
    teacher, setup = set_up_run(folder, load_recipe(saved, {"training": used}))
    assert isinstance(teacher, TextClassification)
    if teacher.target.problem != task.target.problem or not isinstance(teacher.target, SingleLabel | MultiLabel):
        raise refuse(f"a run whose problem is {teacher.target.problem}", "classes or labels, the same kind as here")
    if teacher.pairs != task.pairs:
        raise refuse("pairs of texts" if teacher.pairs else "single texts", "inputs as here")
    own, its = task.target.vocabulary.names, teacher.target.vocabulary.names
    if sorted(own) != sorted(its):
        named = [some_of([shown(name) for name in names], 10) for names in (its, own)]
        raise refuse(f"labels {named[0]}", f"the labels of the training rows: {named[1]}")
    teacher = teacher.with_temperature(1.0)
    if isinstance(teacher.target, SingleLabel):  # a teacher labels every row
        teacher = replace(teacher, target=replace(teacher.target, min_confidence=0.0))
    digest = hashlib.sha256(json.dumps(checksums(folder.path), sort_keys=True).encode()).hexdigest()[:12]
    return teacher, setup, digest


def _answers(teacher: TextClassification, setup: Setup, split: Split) -> tuple[np.ndarray, list[Prediction]]:
    """(N, K) logits, and the predictions made of them."""
    inputs = {role: cells for role, cells in split.rows.values.items() if role != "label"}
    rows = Rows(split.rows.ids, inputs)
    store = teacher.encode(rows, setup.tokenizer, setup.max_length, split.where)
    logits = predict_split(setup, teacher, store).results
    return logits, list(teacher.decode(logits, store, rows))


def _with_rows(train: Split, more: Rows, predictions: list[Prediction], target: SingleLabel | MultiLabel) -> Split:
    """The training rows and further ones, whose labels are predicted."""
    value_of = {number: value for value, number in target.vocabulary.index.items()}  # as the data writes it
    values = {name: value_of[number] for number, name in enumerate(target.vocabulary.names)}
    labels: list[Any]
    if isinstance(target, MultiLabel):
        chosen = [tuple(values[name] for name in prediction["labels"]) for prediction in predictions]
        labels = [target.separator.join(cell) for cell in chosen] if target.separator else list(chosen)
    else:
        labels = [values[prediction["label"]] for prediction in predictions]
    return replace(
        train, rows=train.rows.with_more(replace(more, values={**more.values, "label": labels})), positions=None
    )
