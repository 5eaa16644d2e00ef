"""Training on rows that are read as they come: it learns, survives a kill to the same bytes, and says what it needs."""

from __future__ import annotations

import io
import json
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from faulty import Fault, run_cli
from forks import CAN_INJECT_FAULTS
from tiny import make_rows

import fasttune
from fasttune import api
from fasttune.cli import commands as cli
from fasttune.errors import DataError, RecipeError
from fasttune.training.events import Event, StepDone

NUM_STEPS = 60
KILL_AT = 45


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe_of(folder: Path, model: Path, **data: object) -> Path:
    recipe = {
        "model": str(model),
        "data": {
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "dev.jsonl"),
            "streaming": True,
            "shuffle_buffer_size": 300,
            **data,
        },
        "training": {"max_steps": NUM_STEPS, "learning_rate": 1e-3, "precision": "fp32", "device": "cpu"},
        "evaluation": {"eval_strategy": "steps", "eval_steps": 30},
        "output": {"save_strategy": "steps", "save_steps": 10},
        "tracking": {"report_to": "none"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Several blocks and windows of rows, and about one epoch of steps."""
    write(tmp_path / "train.jsonl", [{"id": row, **one} for row, one in enumerate(make_rows(2400))])
    write(tmp_path / "dev.jsonl", make_rows(60, seed=1))
    return tmp_path


def events_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def learned(folder: Path) -> list[tuple]:
    return [
        (event["step"], event["loss"], event["grad_norm"]) for event in events_of(folder) if event["event"] == "step"
    ]


def test_a_stream_is_learned_and_its_run_says_what_it_saw(place: Path, tiny_model: Path) -> None:
    write(place / "train.jsonl", make_rows(6000, longest=4))
    write(place / "dev.jsonl", make_rows(100, seed=1, longest=4))
    recipe = recipe_of(place, tiny_model)
    said = io.StringIO()
    changes = ["training.max_steps=150", "training.batch_size=32", "training.learning_rate=3e-3"]
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        assert cli.run(["train", str(recipe), "--output", str(place / "run"), *changes]) == 0
    assert "rows, read as they are needed" in said.getvalue() and "a sample of" in said.getvalue()
    results = json.loads((place / "run" / "all_results.json").read_text())
    assert results["eval_accuracy"] > 0.9
    assert results["train_samples"] == pytest.approx(6000, rel=0.1)
    assert results["epoch"] == pytest.approx(150 * 32 / results["train_samples"], rel=0.1)


@pytest.mark.skipif(not CAN_INJECT_FAULTS, reason="needs Linux and gcc")
def test_a_killed_stream_goes_on_to_the_same_bytes(place: Path, tiny_model: Path) -> None:
    recipe = recipe_of(place, tiny_model)
    fasttune.fit(recipe, output=place / "undisturbed", progress=False)
    folder = place / "run"
    fault = Fault(str(folder / "events.jsonl"), at=KILL_AT, calls="write")
    assert run_cli(["train", str(recipe), "--output", str(folder)], fault).code == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    fasttune.fit(recipe, output=folder, resume=True, progress=False)
    assert (folder / "model.safetensors").read_bytes() == (place / "undisturbed" / "model.safetensors").read_bytes()
    assert learned(folder) == learned(place / "undisturbed")


def test_epochs_of_a_stream_are_about_its_rows(place: Path, tiny_model: Path) -> None:
    changes = ["training.max_steps=-1", "training.num_train_epochs=2", "evaluation.eval_strategy=epoch"]
    changes += ["training.batch_size=32"]
    overrides = [*changes, "evaluation.eval_steps=null", "output.save_strategy=no", "output.save_steps=null"]
    fasttune.fit(recipe_of(place, tiny_model), output=place / "run", overrides=overrides, progress=False)
    events = events_of(place / "run")
    assert len(learned(place / "run")) == pytest.approx(2 * 2400 / 32, rel=0.1)
    assert [round(event["epoch"]) for event in events if event["event"] == "evaluation"] == [1, 2]


def test_other_rows_than_those_of_the_start_are_refused_at_resume(place: Path, tiny_model: Path) -> None:
    recipe = recipe_of(place, tiny_model)
    fasttune.fit(recipe, output=place / "run", progress=False, observers=[interrupted_at(10)])
    write(place / "train.jsonl", make_rows(2400, seed=5))
    with pytest.raises(DataError) as caught:
        fasttune.fit(recipe, output=place / "run", resume=True, progress=False)
    assert caught.value.problems[0].code == "E531"


def interrupted_at(step: int):
    """An observer that asks for a stop as Ctrl-C does."""

    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return observer


def test_a_label_that_the_sample_does_not_have_stops_the_run_where_it_stands(place: Path, tiny_model: Path) -> None:
    rows = make_rows(4000)
    with_another = [dict(row, label="mixed") if number == 3000 else row for number, row in enumerate(rows)]
    write(place / "train.jsonl", with_another)
    with pytest.raises(DataError) as caught:
        fasttune.fit(
            recipe_of(place, tiny_model),
            output=place / "run",
            progress=False,
            overrides=["training.max_steps=75", "training.batch_size=64", "data.shuffle_buffer_size=100"],
        )
    (problem,) = caught.value.problems
    assert problem.code == "E214" and "'mixed'" in problem.found and "from byte" in problem.found
    assert "data.label_names" in problem.hint and "the sample at the start" in problem.found
    names = "data.label_names=[negative, positive, mixed]"
    overrides = ["training.max_steps=75", "training.batch_size=64", "data.shuffle_buffer_size=100", names]
    run = fasttune.fit(recipe_of(place, tiny_model), output=place / "named", progress=False, overrides=overrides)
    assert run.is_complete


def test_questions_and_words_are_streamed_by_the_same_code(tmp_path: Path, tiny_model: Path) -> None:
    words = [f"w{number}" for number in range(40)]
    questions, tags = [], []
    for row in range(400):
        context = " ".join(words[(row + place) % 40] for place in range(30))
        answer = words[(row + 3) % 40]
        start = context.index(answer)
        answers = {"text": [answer], "answer_start": [start]}
        questions.append({"id": str(row), "question": f"not {answer}", "context": context, "answers": answers})
        tags.append({"tokens": context.split(), "tags": ["B-X" if word == answer else "O" for word in context.split()]})
    for task, rows in (("question-answering", questions), ("token-classification", tags)):
        write(tmp_path / "train.jsonl", rows)
        write(tmp_path / "dev.jsonl", rows[:20])
        recipe = recipe_of(tmp_path, tiny_model, shuffle_buffer_size=100)
        overrides = [f"task={task}", "training.max_steps=60", "preprocessing.max_length=32"]
        if task == "question-answering":
            overrides.append("preprocessing.doc_stride=8")
        run = fasttune.fit(recipe, output=tmp_path / task, overrides=overrides, progress=False)
        assert run.is_complete and len(learned(tmp_path / task)) == 60


def test_validation_rows_are_asked_for(place: Path, tiny_model: Path) -> None:
    with pytest.raises(DataError) as caught:
        fasttune.fit(recipe_of(place, tiny_model, validation=None), output=place / "run", progress=False)
    (problem,) = caught.value.problems
    assert problem.code == "E258" and problem.hint == "data.validation=FILE"
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    "setting", ["data.drop_duplicates=true", "data.columns.group=text", "data.max_train_samples=5"]
)
def test_settings_that_need_all_rows_at_once_are_refused(place: Path, tiny_model: Path, setting: str) -> None:
    with pytest.raises(RecipeError) as caught:
        fasttune.fit(recipe_of(place, tiny_model), overrides=[setting], progress=False)
    assert [problem.code for problem in caught.value.problems] == ["E313"]


def test_a_stream_is_looked_at_and_checked_by_a_sample(place: Path, tiny_model: Path) -> None:
    seen = api.show(str(place / "train.jsonl"), overrides=["data.streaming=true", "data.shuffle_buffer_size=100"])
    assert "a sample of about" in seen.description and len(seen.rows) > 0
    checked = fasttune.check(recipe_of(place, tiny_model))
    assert checked.forecast.num_steps == NUM_STEPS
    assert any("read as they are needed" in note for note in checked.report["notes"])


def bad_rows(event_lines: list[dict]) -> list[str]:
    return [line["row"].partition(": E")[2][:3] for line in event_lines if line["event"] == "row_skipped"]


def test_bad_rows_are_left_out_up_to_a_number(
    place: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [json.dumps(row) for row in make_rows(2000)]  # several blocks; what is bad is not in the sample
    clean = tmp_path / "clean.jsonl"
    clean.write_text("\n".join(rows) + "\n")
    dirty = tmp_path / "dirty.jsonl"
    bad = ['{"text": "w1 good", "label": ', '{"text": "", "label": "positive"}', '{"text": "w2", "label": "maybe"}']
    bad += ['{"text": "without a label"}', '{"text": "w3", "label": 3}']
    dirty.write_text("\n".join([*rows[:20], bad[0], *rows[20:50], *bad[1:4], *rows[50:70], bad[4], *rows[70:]]) + "\n")
    (tmp_path / "validation.jsonl").write_text("\n".join(rows[:40]) + "\n")
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(dirty), "validation": str(tmp_path / "validation.jsonl"), "streaming": True,
                 "shuffle_buffer_size": 50, "label_names": ["negative", "positive"], "max_bad_rows": 5},
        "training": {"batch_size": 50, "num_train_epochs": 2, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }  # fmt: skip
    run = fasttune.fit(recipe, output=tmp_path / "run")
    lines = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    found = sorted(bad_rows(lines))
    assert len(found) == 5 and {"115", "210", "214"} < set(found), "each once, though it is met in both epochs"
    said = capsys.readouterr().err
    assert said.count("warning: skipped row: ") == 5 and "dirty.jsonl from byte" in said
    assert "5 rows were skipped, such as" in (run.folder / "README.md").read_text()
    tokens = [sum(line["num_tokens"] for line in lines if line["event"] == "step")]
    exact = fasttune.fit(
        {**recipe, "data": {**recipe["data"], "train": str(clean)}}, output=tmp_path / "clean", progress=False
    )
    lines = [json.loads(line) for line in (exact.folder / "events.jsonl").read_text().splitlines()]
    tokens.append(sum(line["num_tokens"] for line in lines if line["event"] == "step"))
    assert tokens[0] == pytest.approx(tokens[1], rel=0.1), "all others are learned from"
    with pytest.raises(DataError, match=r"data.max_bad_rows=4 to skip more than 2 rows"):
        fasttune.fit(recipe, output=tmp_path / "strict", progress=False, data={"max_bad_rows": 2})


def test_a_file_that_is_gone_is_no_bad_row(place: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in make_rows(2000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "dev.jsonl").write_text("\n".join(rows[:40]) + "\n")

    def observer(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            (tmp_path / "rows.jsonl").unlink()

    recipe = recipe_of(tmp_path, tiny_model, train=str(tmp_path / "rows.jsonl"), max_bad_rows=100)
    with pytest.raises(FileNotFoundError):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[observer], training={"batch_size": 40})
