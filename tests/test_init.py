"""`fasttune init`: a recipe that says what training takes from a file, and translates the settings of the Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from exact import make_recipes
from tiny import make_rows, write_csv

import fasttune
from fasttune import recipe as recipes
from fasttune.cli.commands import run
from fasttune.errors import RecipeError
from fasttune.training.draft import draft


def written(text: str, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_it_is_a_recipe_of_what_training_would_take(tiny_model: Path, tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "rows.csv", make_rows(80)))
    text = draft(data, overrides=[f"model={tiny_model}", "training.max_steps=4"])
    asked = yaml.safe_load(text)
    assert asked["task"] == "text-classification" and asked["problem"] == "single-label"
    assert asked["data"] == {"train": data, "columns": {"text": "text", "label": "label"}}
    assert "# labels: 2: negative, positive" in text and "# train: 72 rows" in text
    assert fasttune.fit(written(text, tmp_path), output=tmp_path / "run", progress=False).is_complete


def test_a_comment_holds_the_value_that_the_run_takes(tiny_model: Path, tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "rows.csv", make_rows(80)))
    text = draft(data, overrides=[f"model={tiny_model}", "training.max_steps=2"])
    run = fasttune.fit(written(text, tmp_path), output=tmp_path / "run", progress=False)
    saved = recipes.load(run.folder / "recipe.yaml").training
    for comment in (f"  # batch_size: {saved.batch_size}\n", f"  # learning_rate: {saved.learning_rate:g}\n"):
        assert comment in text
        text = text.replace(comment, comment.replace("# ", ""))  # as a user makes it a setting
    changed = recipes.load(written(text, tmp_path)).training
    assert (changed.batch_size, changed.learning_rate) == (saved.batch_size, saved.learning_rate)


@pytest.mark.parametrize(
    ("task", "settings", "columns"),
    [
        ("question-answering", ["preprocessing.doc_stride=8"], {"question", "context", "answers"}),
        ("token-classification", [], {"tokens", "tags"}),
    ],
)
def test_other_tasks_are_found(task: str, settings: list[str], columns: set[str], tmp_path: Path) -> None:
    asked = make_recipes(tmp_path)[task]
    text = draft(asked["data"]["train"], overrides=[f"model={asked['model']}", *settings])
    loaded = recipes.load(written(text, tmp_path))
    assert loaded.task == task and columns <= {role for role, name in loaded.data.columns.model_dump().items() if name}


TRAINER = {
    "output_dir": "out",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "per_device_eval_batch_size": 8,
    "learning_rate": 3e-5,
    "num_train_epochs": 2,
    "warmup_ratio": 0.1,
    "bf16": True,
    "fp16": False,
    "eval_strategy": "epoch",
    "save_strategy": "steps",
    "metric_for_best_model": "eval_accuracy",
    "lr_scheduler_type": "polynomial",
    "report_to": ["tensorboard"],
    "optim": "adafactor",
    "group_by_length": True,
    "seed": 7,
    "hub_token": "hf_" + "a" * 34,
    "something_new": 3,
    "max_seq_length": 32,
}


def test_the_settings_of_the_trainer_are_translated(tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "rows.csv", make_rows(80)))
    arguments = tmp_path / "training_args.json"
    arguments.write_text(json.dumps(TRAINER))
    text = draft(data, arguments=arguments, overrides=["training.seed=8"])
    loaded = recipes.load(written(text, tmp_path))
    training = loaded.training
    assert (training.preset, training.batch_size, training.learning_rate) == ("tutorial", 16, 3e-5)
    assert (training.num_train_epochs, training.warmup_steps, training.precision) == (2, 0.1, "bf16")
    assert training.seed == 8, "what is typed wins"
    assert loaded.preprocessing.max_length == 32 and loaded.output.dir == "out"
    assert loaded.evaluation.metric_for_best_model == "accuracy" and loaded.tracking.report_to == ["tensorboard"]
    left_out = text.partition("# Left out of ")[2].partition("format:")[0]
    for line in (
        "# lr_scheduler_type: training.lr_scheduler_type takes 'linear', 'cosine' or 'constant'",
        "# optim: the optimizer is AdamW",
        "# hub_token: secrets come from the environment",
        "# something_new: fasttune has no such setting",
    ):
        assert line in left_out
    assert TRAINER["hub_token"] not in text and "fp16" not in text and "save_strategy" not in left_out


@pytest.mark.parametrize(
    ("given", "batch_size"),
    [
        ({"gradient_accumulation_steps": 4}, 32),
        ({"per_device_train_batch_size": 3}, 3),
        ({"per_device_train_batch_size": "4", "gradient_accumulation_steps": 4}, None),
    ],
)
def test_a_batch_is_that_of_a_device_times_the_accumulation(
    given: dict[str, Any], batch_size: int | None, tmp_path: Path
) -> None:
    arguments = tmp_path / "training_args.json"
    arguments.write_text(json.dumps(given))
    text = draft(str(write_csv(tmp_path / "rows.csv", make_rows(80))), arguments=arguments)
    assert yaml.safe_load(text)["training"].get("batch_size") == batch_size
    assert ("must be whole numbers" in text) == (batch_size is None)


def test_all_of_the_trainers_own_settings_are_read(tmp_path: Path) -> None:
    """As `TrainingArguments.to_dict()` gives them: what has its default value is not mentioned."""
    from transformers import TrainingArguments

    data = str(write_csv(tmp_path / "rows.csv", make_rows(80)))
    arguments = tmp_path / "training_args.json"
    given = TrainingArguments(str(tmp_path / "out"), use_cpu=True, num_train_epochs=2, save_total_limit=3)
    arguments.write_text(given.to_json_string())
    text = draft(data, arguments=arguments)
    loaded = recipes.load(written(text, tmp_path))
    assert (loaded.training.device, loaded.training.num_train_epochs, loaded.output.save_total_limit) == ("cpu", 2, 3)
    assert loaded.training.batch_size == 8
    assert "Left out" not in text, text


@pytest.mark.parametrize("content", ["[1]", "no json", ""])
def test_a_file_that_holds_no_settings_is_refused(content: str, tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "rows.csv", make_rows(80)))
    (tmp_path / "args.json").write_text(content)
    with pytest.raises(RecipeError, match="found no JSON object"):
        draft(data, arguments=tmp_path / "args.json")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "rows.csv", make_rows(80))
    assert run(["init", "text-classification", "rows.csv", "training.max_time=5m"]) == 0
    asked: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    assert asked["training"]["max_time"] == "5m"
    for words, code, message in (
        (["init"], 2, "init: no data file\n  hint: fasttune init rows.csv > recipe.yaml".replace("rows", "reviews")),
        (["init", "rows.csv", "rows.csv"], 2, "init: 2 data files"),
        (["init", "missing.csv"], 4, "E101 missing.csv"),
        (["init", "rows.csv", "training.sed=1"], 3, "did you mean 'seed'"),
    ):
        assert run(words) == code and message in capsys.readouterr().err
