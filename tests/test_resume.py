"""A run that was interrupted and resumed ends like an uninterrupted one, byte for byte."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from faulty import Fault, run_cli
from forks import CAN_INJECT_FAULTS
from tiny import make_rows, save_tiny_model, write_csv

import fasttune
from fasttune.cli import commands as cli
from fasttune.training.events import Evaluated, Event, StepDone

NUM_STEPS = 24
KILL_AT = 10  # between checkpoint-8 and checkpoint-12
NUM_LINES = 20  # of events.jsonl at that point of a run that is killed or signalled, about step 15
needs_shim = pytest.mark.skipif(not CAN_INJECT_FAULTS, reason="needs Linux and gcc")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def learned(folder: Path) -> list[tuple]:
    """Every step and evaluation as it was, without what a clock says."""
    kept = []
    for event in lines(folder):
        if event["event"] == "step":
            kept.append((event["step"], event["loss"], event["learning_rate"], event["grad_norm"]))
        elif event["event"] == "evaluation":
            kept.append((event["step"], event["eval_loss"], event["eval_accuracy"], event["is_best"]))
    return kept


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def checkpoints(folder: Path) -> list[int]:
    """Without those that a kill left half written, whose names begin with a dot."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoints/checkpoint-*"))


def interrupt_at(step: int, kind: type[Event] = StepDone):
    """An observer that asks for a stop as Ctrl-C does."""

    def observer(event: Event) -> None:
        if isinstance(event, kind) and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return observer


@pytest.fixture(scope="module")
def place(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe whose run takes a few seconds; the model has dropout."""
    folder = tmp_path_factory.mktemp("resume")
    assert json.loads((tiny_model / "config.json").read_text())["hidden_dropout_prob"] == 0.1
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(folder / "reviews.csv", make_rows(80))), "validation_fraction": 0.25},
        "training": {"max_steps": NUM_STEPS, "learning_rate": 1e-3, "precision": "fp32", "device": "cpu"},
        "evaluation": {"eval_strategy": "steps", "eval_steps": 8},
        "output": {"save_strategy": "steps", "save_steps": 4},
        "tracking": {"report_to": "none"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Path:
    folder = place / "undisturbed"
    fasttune.fit(place / "recipe.yaml", output=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def interrupted(place: Path) -> Path:
    """A run that was stopped at step 10; tests work on copies."""
    folder = place / "interrupted"
    run = fasttune.fit(place / "recipe.yaml", output=folder, progress=False, observers=[interrupt_at(KILL_AT)])
    assert (run.is_complete, checkpoints(folder)) == (False, [8, KILL_AT])
    return folder


@pytest.fixture
def copy(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "copy"))


# --- cut short from outside -----------------------------------------------------------------------------------------


@needs_shim
def test_a_killed_run_goes_on_to_the_same_bytes(place: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["train", str(place / "recipe.yaml"), "--output", str(folder)]
    ended = run_cli(arguments, Fault(str(folder / "events.jsonl"), at=NUM_LINES, calls="write"))
    assert ended.code == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists() and max(checkpoints(folder)) >= 4
    assert cli.run([*arguments, "--resume"]) == 0
    assert weights(folder) == weights(undisturbed)
    steps = [event["step"] for event in lines(folder) if event["event"] == "step"]
    assert steps == list(range(1, NUM_STEPS + 1)), "each once, in order"
    assert learned(folder) == learned(undisturbed)


@needs_shim
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_saves_and_says_how_to_go_on(
    place: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    folder = tmp_path / "a run"  # the line to type must be quoted
    arguments = ["train", str(place / "recipe.yaml"), "training.logging_steps=7", "--output", str(folder)]
    ended = run_cli(arguments, Fault(str(folder / "events.jsonl"), at=NUM_LINES, error=-number, calls="write"))
    assert ended.code == expected
    last = max(event["step"] for event in lines(folder))
    assert KILL_AT <= last < NUM_STEPS and last in checkpoints(folder)
    line = ended.output.splitlines()[-1]
    assert line.startswith(f"stopped by {number.name}. Resume with: fasttune train ")
    assert "Traceback" not in ended.output
    name, *command = shlex.split(line.partition("Resume with: ")[2])
    assert name == "fasttune" and cli.run(command) == 0
    assert weights(folder) == weights(undisturbed)
    assert learned(folder) == learned(undisturbed)


# --- where there is nothing to do, or nothing yet -------------------------------------------------------------------


def test_resume_of_nothing_starts_from_the_beginning(
    place: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(folder), "--resume"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{folder}: nothing to resume yet, starting from the beginning"
    assert weights(folder) == weights(undisturbed)


def test_resume_without_a_checkpoint_starts_from_the_beginning(
    place: Path, undisturbed: Path, copy: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(copy / "checkpoints")
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(copy), "--resume"]) == 0
    assert "no checkpoint yet: starting from the beginning" in capsys.readouterr().err.splitlines()
    assert weights(copy) == weights(undisturbed)
    assert learned(copy) == learned(undisturbed)


def test_resume_of_a_finished_run_says_so_and_touches_nothing(
    place: Path, undisturbed: Path, capsys: pytest.CaptureFixture
) -> None:
    def state() -> dict:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in undisturbed.rglob("*")}

    before = state()
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(undisturbed), "--resume"]) == 0
    assert capsys.readouterr().err == f"{undisturbed} is finished; nothing to resume\n"
    assert state() == before


def test_a_finished_run_is_not_resumed_with_another_recipe(
    place: Path, undisturbed: Path, capsys: pytest.CaptureFixture
) -> None:
    changed = "training.learning_rate=0.5"
    assert cli.run(["train", str(place / "recipe.yaml"), changed, "--output", str(undisturbed), "--resume"]) == 3
    assert "E530" in capsys.readouterr().err


def test_without_output_the_newest_unfinished_run_goes_on(
    recipe: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = fasttune.fit(recipe, progress=False)
    stopped = fasttune.fit(recipe, progress=False, observers=[interrupt_at(12)])
    assert (finished.folder, stopped.folder) == (Path("runs/reviews"), Path("runs/reviews-2"))
    gone_on = fasttune.fit(recipe, progress=False, resume=True)
    assert (gone_on.folder, gone_on.is_complete) == (stopped.folder, True)
    assert weights(stopped.folder) == weights(finished.folder)
    assert learned(stopped.folder) == learned(finished.folder)
    assert fasttune.fit(recipe, progress=False, resume=True).reason == "finished before"
    assert fasttune.fit(recipe, progress=False).folder == Path("runs/reviews-3")


# --- what may change in between -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field", "found", "expected"),
    [
        ("training.learning_rate=2e-3", "training.learning_rate", "0.002", "0.001"),
        ("training.seed=7", "training.seed", "7", "42"),
        ("model=MODEL", "model", "MODEL", "TINY"),
    ],
)
def test_a_change_of_what_is_learned_is_refused(
    place: Path, copy: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
    change: str, field: str, found: str, expected: str,
) -> None:  # fmt: skip
    other = str(save_tiny_model(tmp_path / "other"))
    change, found, expected = (
        text.replace("MODEL", other).replace("TINY", str(tiny_model)) for text in (change, found, expected)
    )
    before = (copy / "events.jsonl").read_bytes()
    assert cli.run(["train", str(place / "recipe.yaml"), change, "--output", str(copy), "--resume"]) == 3
    allowed = "; --allow-changes resumes with the new value" if field == "training.learning_rate" else ""
    assert capsys.readouterr().err == (
        f"error: E530 resume of {copy}: {field}: found {found}, expected {expected}, as in {copy}/recipe.yaml\n"
        f"  hint: start a new run with another --output, or resume with the recipe as it was{allowed}\n"
    )
    assert (copy / "events.jsonl").read_bytes() == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("refusal", ["E530", "E531", "E520"])
def test_a_refused_resume_changes_nothing(
    place: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture, refusal: str
) -> None:
    """Not even with --allow-changes and a change that is allowed."""
    changes = ["training.learning_rate=2e-3", "--allow-changes"]
    if refusal == "E530":
        changes.append("training.seed=7")
    elif refusal == "E531":
        rows = tmp_path / "rows.csv"
        rows.write_bytes((place / "reviews.csv").read_bytes())
        saved = (copy / "recipe.yaml").read_text()
        (copy / "recipe.yaml").write_text(saved.replace(str(place / "reviews.csv"), str(rows)))
        write_csv(rows, make_rows(80, seed=9))
        changes.append(f"data.train={rows}")
    else:
        for manifest in copy.glob("checkpoints/*/manifest.json"):
            manifest.write_text("{}")
    before = contents(copy)
    arguments = ["train", str(place / "recipe.yaml"), *changes, "--output", str(copy), "--resume"]
    assert cli.run(arguments) in (3, 4, 5)
    assert refusal in capsys.readouterr().err
    assert contents(copy) == before


def test_all_changes_are_told_at_once(place: Path, copy: Path) -> None:
    with pytest.raises(fasttune.Error) as raised:
        fasttune.fit(
            place / "recipe.yaml", output=copy, resume=True, training={"seed": 1, "batch_size": 4}, progress=False
        )
    assert [problem.where.rpartition(" ")[2] for problem in raised.value.problems] == [
        "training.batch_size",
        "training.seed",
    ]


def test_changed_training_rows_are_refused(
    recipe: dict, reviews_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    fasttune.fit(recipe, output=folder, progress=False, observers=[interrupt_at(3)])
    write_csv(reviews_csv, make_rows(80, seed=1))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.run(["train", str(tmp_path / "recipe.yaml"), "--output", str(folder), "--resume"]) == 4
    assert capsys.readouterr().err.endswith(
        f"error: E531 resume of {folder}: {reviews_csv}: the training examples are not those that the run started with "
        "(rows, labels or tokenizer)\n  hint: restore the file, or start a new run with another --output\n"
    )


def test_another_kernel_is_said(place: Path, copy: Path, capsys: pytest.CaptureFixture) -> None:
    environment = json.loads((copy / "environment.json").read_text())
    environment["attention"]["value"] = "compiled"
    (copy / "environment.json").write_text(json.dumps(environment))
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(copy), "--resume"]) == 0
    assert "attention: torch now, compiled before; the resumed run will differ" in capsys.readouterr().err


def test_how_often_is_logged_may_change(
    place: Path, undisturbed: Path, copy: Path, capsys: pytest.CaptureFixture
) -> None:
    change = "training.logging_steps=12"
    assert cli.run(["train", str(place / "recipe.yaml"), change, "--output", str(copy), "--resume"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in said if line.startswith("step ")] == ["12/24", "24/24"]
    assert f"resuming from {copy}/checkpoints/checkpoint-{KILL_AT}" in said
    assert weights(copy) == weights(undisturbed)


# --- what must survive ----------------------------------------------------------------------------------------------


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(
    place: Path, undisturbed: Path, copy: Path, capsys: pytest.CaptureFixture
) -> None:
    damaged = copy / "checkpoints" / f"checkpoint-{KILL_AT}" / "optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(copy), "--resume"]) == 0
    said = capsys.readouterr().err.splitlines()
    reason = "optimizer.safetensors was changed or damaged (its sha256 differs)"
    assert f"skipping checkpoint-{KILL_AT}: {reason}" in said
    assert f"resuming from {copy}/checkpoints/checkpoint-8" in said
    assert weights(copy) == weights(undisturbed)
    assert learned(copy) == learned(undisturbed)


def test_all_checkpoints_damaged_is_refused(place: Path, copy: Path, capsys: pytest.CaptureFixture) -> None:
    for manifest in copy.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(copy), "--resume"]) == 5
    err = capsys.readouterr().err
    assert "error: 2 problems\n" in err and err.count("E520 checkpoint ") == 2


def test_patience_is_counted_across_a_resume(recipe: dict, tmp_path: Path) -> None:
    recipe["training"] |= {"num_train_epochs": 40, "learning_rate": 5e-3}
    recipe["evaluation"] = {"early_stopping_patience": 2}
    expected = fasttune.fit(recipe, output=tmp_path / "undisturbed", progress=False)
    evaluations = [event["step"] for event in lines(expected.folder) if event["event"] == "evaluation"]
    assert expected.reason == "eval_accuracy has not improved for 2 evaluations" and len(evaluations) > 2
    # Stopped when one of the two evaluations is already waited for: a run that forgets it trains one epoch more.
    observer = interrupt_at(evaluations[-2], Evaluated)
    stopped = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer])
    assert stopped.reason == "stopped by SIGINT"
    resumed = fasttune.fit(recipe, output=tmp_path / "run", progress=False, resume=True)
    assert resumed.reason == expected.reason
    assert learned(resumed.folder) == learned(expected.folder)
    assert weights(resumed.folder) == weights(expected.folder)
