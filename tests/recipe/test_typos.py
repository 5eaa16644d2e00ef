"""A name with one wrong letter gets the right suggestion."""

import string

import pytest

from fasttune.recipe import fields
from fasttune.recipe.messages import Origin, collect
from fasttune.recipe.schema import METRICS, Recipe

NAMES = sorted({path[:depth] for path, _ in fields() for depth in range(1, len(path) + 1)})
LETTERS = string.ascii_lowercase + "_-"


def single_edits(word):
    edits = {word[:i] + letter + word[i:] for i in range(len(word) + 1) for letter in LETTERS}
    edits |= {word[:i] + letter + word[i + 1 :] for i in range(len(word)) for letter in LETTERS}
    edits |= {word[:i] + word[i + 1 :] for i in range(len(word))}
    edits |= {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    return edits - {word, ""}


def hint_for(path):
    values = 1
    for key in reversed(path):
        values = {key: values}
    problems = []
    collect(values, Origin("recipe: "), {}, problems)
    return problems[0].hint if problems else None


def test_typos_of_every_name():
    assert len(NAMES) == 99 + 7
    num_typos, missed = 0, []
    for *parents, name in NAMES:
        for typo in sorted(single_edits(name)):
            hint = hint_for((*parents, typo))
            if hint is None:  # the typo is the name of another field
                continue
            num_typos += 1
            if not hint.startswith(f"did you mean '{name}'?"):
                missed.append((*parents, name, typo, hint))
    assert num_typos > 20_000
    assert len(missed) <= 0.01 * num_typos, missed[:20]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (("learnin_rate",), "did you mean 'training.learning_rate'?"),
        (("training", "eval_stepz"), "did you mean 'evaluation.eval_steps'?"),
        (("gradient_acumulation_steps",), "did you mean 'gradient_accumulation_steps'? leave it out: multiply"),
        (("per_device_train_batchsize",), "did you mean 'training.batch_size'?"),
        (("training", "LEARNING_RATE"), "did you mean 'learning_rate'?"),
        (("zzz",), "a recipe has format, task, problem, model, model_head, data, "),
        (("output", "zzz"), "output has dir, mirror, report, save_strategy, save_steps, save_total_limit"),
    ],
)
def test_suggestions_across_sections(path, hint):
    assert hint_for(path).startswith(hint)


def test_metrics_are_not_confused_with_fields():
    # `precision` is both a metric of entities and the training precision; no message confuses the two.
    assert set(METRICS) & {path[-1] for path, _ in fields()} == {"precision"}
    assert set(Recipe.model_fields) >= {"data", "training"}
