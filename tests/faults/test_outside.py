"""The surroundings of a run: files that change, clocks that jump, secrets in the environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from faulty import events, make_recipe, sha256, stop_at

import fasttune
from fasttune.cli import commands as cli
from fasttune.errors import DataError, RecipeError
from fasttune.training import finalize
from fasttune.training.events import Event, StepDone

CANARY = "hf_CANARYcanaryCANARYcanary0123456789"


def test_data_that_change_while_training_change_nothing_and_are_noticed_at_a_resume(
    recipe: Path, expected: str, tmp_path: Path
) -> None:
    own = make_recipe(tmp_path / "place")
    data = tmp_path / "place" / "reviews.csv"
    whole = data.read_text()

    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            data.write_text(whole.replace("good", "bad"))

    run = fasttune.fit(own, output=tmp_path / "run", progress=False, observers=[observer])
    assert sha256(run.folder) == expected, "it trains on its tokenised copy"
    data.write_text(whole)
    fasttune.fit(own, output=tmp_path / "stopped", progress=False, observers=[stop_at(5)])
    data.write_text(whole.replace("good", "bad"))
    with pytest.raises(DataError, match=r"E531 .*the training examples are not those that the run started with"):
        fasttune.fit(own, output=tmp_path / "stopped", progress=False, resume=True)
    data.unlink()
    with pytest.raises(DataError, match="E101"):
        fasttune.fit(own, output=tmp_path / "stopped", progress=False, resume=True)
    data.write_text(whole)
    fasttune.fit(own, output=tmp_path / "stopped", progress=False, resume=True)
    assert sha256(tmp_path / "stopped") == expected


def test_clocks_that_jump_change_nothing(recipe: Path, expected: str, tmp_path: Path) -> None:
    """Order is that of steps: neither the times of files nor the time of day are asked."""
    fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[stop_at(7)])
    for number, path in enumerate(sorted((tmp_path / "run" / "checkpoints").rglob("*"))):
        os.utime(path, (10**9 - number * 86_400,) * 2)
    real = fasttune.training.callbacks.files.time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasttune.training.callbacks.files.time, "time", lambda: real() - 86_400)
        fasttune.fit(recipe, output=tmp_path / "run", progress=False, resume=True)
    assert sha256(tmp_path / "run") == expected


def test_a_card_that_cannot_be_made_costs_the_card_alone(
    recipe: Path, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(**facts: object) -> str:
        raise ZeroDivisionError("no classes")

    monkeypatch.setattr(finalize, "card", broken)
    run = fasttune.fit(recipe, output=tmp_path / "run")
    assert "warning: could not write the model card: ZeroDivisionError: no classes" in capsys.readouterr().err
    assert run.is_complete and sha256(run.folder) == expected and not (run.folder / "README.md").exists()


def test_the_best_weights_that_were_damaged_are_replaced_by_the_next_best(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Losses fall, so with the greatest of them as the best, step 4 is."""
    settings = yaml.safe_load(recipe.read_text())
    settings["evaluation"]["metric_for_best_model"] = "accuracy"

    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 10:
            (tmp_path / "run" / "checkpoints" / "checkpoint-4" / "model.safetensors").write_bytes(b"")

    run = fasttune.fit(settings, output=tmp_path / "run", observers=[observer])
    said = capsys.readouterr().err
    assert "cannot use the best weights, those of step 4: model.safetensors has 0 bytes" in said and run.is_complete


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("training.learning_rate=2e-3", 0),
        ("training.max_steps=14", 0),
        ("training.seed=7", 3),
        ("training.batch_size=4", 3),
        ("data.train=other.csv", 3),
    ],
)
def test_changes_are_applied_and_said_or_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: str, code: int
) -> None:
    fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[stop_at(7)])
    arguments = ["train", str(recipe), change, "--output", str(tmp_path / "run"), "--resume", "--allow-changes"]
    assert cli.run(arguments) == code
    said, (name, _, value) = capsys.readouterr().err, change.partition("=")
    if code == 0:
        assert f"{name}: {float(value):g} from now on, " in said
        rates = [event["learning_rate"] for event in events(tmp_path / "run") if event["event"] == "step"]
        assert len(rates) == (14 if "max_steps" in change else 12)
        assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["training"][name[9:]] == float(value)
    else:
        assert f"E530 resume of {tmp_path / 'run'}: {name}: found" in said and "--allow-changes resumes" not in said


def test_other_versions_are_said(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[stop_at(7)])
    path = tmp_path / "run" / "environment.json"
    path.write_text(
        path.read_text()
        .replace('"accelerate": "', '"accelerate": "0.')
        .replace('"num_processes": 1', '"num_processes": 3')
    )
    fasttune.fit(recipe, output=tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert "processes: 1 now, 3 before; the resumed run will differ" in said and ", 0.1" in said


def test_no_secret_comes_into_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Planted where secrets lie; then a whole run, its resume, an error, `env` and `predict`."""
    home = tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".netrc").write_text(f"machine huggingface.co login me password {CANARY}\n")
    (home / ".cache" / "huggingface" / "token").write_text(CANARY)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("HOME", str(home))
    recipe = make_recipe(tmp_path / "place")
    for arguments, code in (
        (["train", str(recipe), "--output", str(tmp_path / "run"), "tracking.report_to=[tensorboard]"], 0),
        (["train", str(recipe), "--output", str(tmp_path / "run"), "tracking.report_to=[tensorboard]", "--resume"], 0),
        (["train", f"https://me:{CANARY}@127.0.0.1:1/rows.csv", "--output", str(tmp_path / "other")], 3),
        (
            [
                "train",
                f"https://127.0.0.1:1/rows.csv?X-Amz-Signature={CANARY[3:]}",
                "--output",
                str(tmp_path / "other"),
            ],
            3,
        ),
        (["train", str(recipe), f"training.token={CANARY}", "--output", str(tmp_path / "other")], 3),
        (["predict", str(tmp_path / "run"), "good food"], 0),
        (["env"], 0),
    ):
        assert cli.run(arguments) == code, arguments
    printed = capfd.readouterr()
    assert CANARY[3:] not in printed.out + printed.err
    files = [path for folder in (tmp_path / "run", tmp_path / "place") for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20 and not [path for path in files if CANARY[3:].encode() in path.read_bytes()]


def test_a_secret_in_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="E309"):
        fasttune.fit({"data": {"train": "s3://bucket/rows.csv?sig=abcdef0123"}}, output=tmp_path / "run")
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
