"""Question answering from a file to answers: every form of data, training, the saved model, the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from tiny import make_questions, write_csv, write_jsonl

import fasttune
from fasttune import recipe as recipes
from fasttune.cli import commands as cli
from fasttune.data.pipeline import read_splits
from fasttune.tasks import TASKS

Row = dict[str, Any]


def as_squad(rows: list[Row]) -> Row:
    def pairs(answers: Row) -> list[Row]:
        both = zip(answers["text"], answers["answer_start"], strict=True)
        return [{"text": text, "answer_start": start} for text, start in both]

    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": pairs(row["answers"]),
                    "is_impossible": not row["answers"]["text"],
                }
            ],
        }
        for row in rows
    ]
    return {"version": "v2.0", "data": [{"title": "one", "paragraphs": paragraphs}]}


def write(rows: list[Row], form: str, folder: Path) -> Path:
    path = folder / f"rows.{form}"
    plain = [
        {
            **{key: row[key] for key in ("id", "question", "context")},
            "answer": (row["answers"]["text"] or [""])[0],
            "answer_start": str((row["answers"]["answer_start"] or [""])[0]),
        }
        for row in rows
    ]
    if form == "json":
        path.write_text(json.dumps(as_squad(rows)), encoding="utf-8")
    elif form == "jsonl":
        write_jsonl(path, rows)
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_csv(path, plain)
    return path


def recipe_of(path: Path, model: Path, **training: Any) -> Row:
    settings = {"num_train_epochs": 6, "learning_rate": 3e-3, "precision": "fp32", "device": "cpu", **training}
    return {
        "task": "question-answering",
        "model": str(model),
        "data": {"train": str(path)},
        "preprocessing": {"doc_stride": 16},
        "training": settings,
        "tracking": {"report_to": "none"},
    }


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_all_forms_give_the_same_rows(form: str, tmp_path: Path, tiny_model: Path) -> None:
    rows = make_questions(30, unanswered=0.3)
    expected, found = (
        read_splits(recipes.load(recipe_of(write(rows, name, tmp_path), tiny_model)), TASKS) for name in ("json", form)
    )
    assert replace(found.task, notes=()) == replace(expected.task, notes=())
    for role in ("question", "context", "answers"):
        assert list(found.train.rows.values[role]) == list(expected.train.rows.values[role])
    assert found.train.rows.ids == expected.train.rows.ids
    assert found.validation.rows.ids == expected.validation.rows.ids


def test_held_out_questions_share_no_context_with_the_others(tmp_path: Path, tiny_model: Path) -> None:
    rows = [
        {**row, "id": f"{row['id']}-{part}", "question": f"what was w{part}"}
        for row in make_questions(20)
        for part in range(3)
    ]
    splits = read_splits(recipes.load(recipe_of(write(rows, "jsonl", tmp_path), tiny_model)), TASKS)
    sides = [set(split.rows.values["context"]) for split in splits.all()]
    assert len(sides) == 2 and not sides[0] & sides[1]
    assert len(splits.validation.rows) == 6


def test_from_file_to_answers(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_questions(200, unanswered=0.25, longest=40)
    path = write(rows, "json", tmp_path)
    run = fasttune.fit(recipe_of(path, tiny_model), output=tmp_path / "run", progress=False)
    assert run.metrics["eval_f1"] > 80 and run.metrics["eval_NoAns_f1"] > 60
    threshold = json.loads((run.folder / "config.json").read_text())["null_score_diff_threshold"]
    assert isinstance(threshold, float)
    again = fasttune.evaluate(run.folder)
    assert again["eval_f1"] == pytest.approx(run.metrics["eval_f1"]), "the threshold travels with the model"
    asked = [(row["question"], row["context"]) for row in rows[:40]]
    found = fasttune.load(run.folder).predict(asked)
    assert sum(one["answer"] == (row["answers"]["text"] or [""])[0] for one, row in zip(found, rows, strict=False)) > 32
    from_file = fasttune.predict(run.folder, data=str(path))[:40]
    assert [one["answer"] for one in from_file] == [one["answer"] for one in found]
    # What was written is what the official scorer reads, and agrees with the metrics.
    written = json.loads((run.folder / "predictions" / "eval_predictions.json").read_text())
    lines = (run.folder / "predictions" / "validation.jsonl").read_text().splitlines()
    assert {one["id"]: one["answer"] for one in map(json.loads, lines)} == written
    silent = fasttune.predict(run.folder, data=str(path), overrides=["evaluation.null_score_diff_threshold=-1000"])
    assert all(one["answer"] == "" for one in silent)
    answered = next(row for row in rows if row["answers"]["text"])
    command = ["predict", str(run.folder), "--question", answered["question"], "--context", answered["context"]]
    assert cli.run(command) == 0
    assert capsys.readouterr().out.split("  ")[0].split(" 0.")[0] in ("great", "great food")


def test_the_saved_model_is_a_plain_one_with_the_same_answers(tiny_model: Path, tmp_path: Path) -> None:
    rows = make_questions(40, longest=30)
    recipe = recipe_of(write(rows, "jsonl", tmp_path), tiny_model, num_train_epochs=1)
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    asked = [(row["question"], row["context"]) for row in rows[:8]]
    found = fasttune.load(run.folder).predict(asked)
    encoded = tokenizer([list(pair) for pair in asked], padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**encoded)
    for index, (_, context) in enumerate(asked):
        parts = encoded.sequence_ids(index)
        spans = {
            (outputs.start_logits[index, start] + outputs.end_logits[index, end]).item(): (start, end)
            for start in range(len(parts))
            for end in range(start, min(start + 30, len(parts)))
            if parts[start] == parts[end] == 1
        }
        start, end = spans[max(spans)]
        text = context[encoded.token_to_chars(index, start).start : encoded.token_to_chars(index, end).end]
        assert found[index]["answer"] == text


def test_a_run_of_questions_goes_on_where_it_was_stopped(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(write(make_questions(40), "jsonl", tmp_path), tiny_model, num_train_epochs=2)
    whole = fasttune.fit(recipe, output=tmp_path / "whole", progress=False)

    def stop(event: Any) -> str | None:
        return "enough" if event.step == 7 else None

    part = fasttune.fit(recipe, output=tmp_path / "part", progress=False, observers=[stop])
    assert part.metrics["train_loss"] != whole.metrics["train_loss"]
    (tmp_path / "part" / "all_results.json").unlink()
    part = fasttune.fit(recipe, output=tmp_path / "part", progress=False, resume=True)
    assert part.metrics["train_loss"] == whole.metrics["train_loss"]
    assert part.metrics["eval_f1"] == whole.metrics["eval_f1"]


def test_other_splits_have_the_columns_of_the_training_rows(tmp_path: Path, tiny_model: Path) -> None:
    rows = make_questions(12)
    recipe = recipe_of(write(rows, "csv", tmp_path), tiny_model)
    recipe["data"]["validation"] = str(write(rows, "json", tmp_path))
    with pytest.raises(fasttune.Error, match=r"E202 data.columns.answers: found 'answer'"):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False)


def test_ids_that_stand_twice_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{**row, "id": "same"} for row in make_questions(8)]
    with pytest.raises(fasttune.Error, match=r"E249 .*several questions have the id 'same'"):
        fasttune.fit(recipe_of(write(rows, "jsonl", tmp_path), tiny_model), progress=False)


def test_answers_that_stand_nowhere_are_nothing_to_score(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{**row, "answers": {"text": ["nowhere"], "answer_start": [0]}} for row in make_questions(8, longest=20)]
    recipe = recipe_of(write(make_questions(20, longest=20), "jsonl", tmp_path), tiny_model)
    other = write_jsonl(tmp_path / "validation.jsonl", rows)
    recipe["data"] |= {"validation": str(other), "fix_spans": True}
    with pytest.raises(fasttune.Error, match=r"E256 .*the validation rows have nothing to learn or score"):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False)


def test_files_of_one_set_may_hold_unanswerable_questions_alone(tmp_path: Path, tiny_model: Path) -> None:
    for number, unanswered in enumerate([0.0, 1.0]):
        part = make_questions(10, unanswered, seed=number)
        rows = [{**row, "id": f"{number}-{row['id']}"} for row in part]
        (tmp_path / f"part-{number}.json").write_text(json.dumps(as_squad(rows)), encoding="utf-8")
    recipe = recipe_of(tmp_path / "part-*.json", tiny_model)
    assert len(read_splits(recipes.load(recipe), TASKS).train.rows) == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", "Who?"], "--context: found 1 questions and 0 contexts, expected one, or one for each question"),
        (["--context", "Ann."], "--context: found 0 questions and 1 contexts"),
        (["--question", "a", "--context", "b", "--context", "c"], "--context: found 1 questions and 2 contexts"),
        (["text", "--question", "a", "--context", "b"], "predict: found both texts and --question"),
    ],
)
def test_questions_and_contexts_that_do_not_match(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["predict", "run", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"answers": {"text": ["great"], "answer_start": [1]}}, "E240"),
        ({"answers": {"text": ["nowhere"], "answer_start": [1]}}, "E241"),
        ({"answers": {"text": ["great"], "answer_start": []}}, "E244"),
        ({"context": ""}, "E243"),
        ({"question": " "}, "E243"),
    ],
)
def test_wrong_rows_are_found_before_a_model_is_loaded(
    changes: Row, code: str, tmp_path: Path, tiny_model: Path
) -> None:
    rows = [{**row, "context": "so great"} for row in make_questions(4)]
    rows = [{**row, "answers": {"text": ["great"], "answer_start": [3]}} for row in rows]
    rows[2] |= changes
    with pytest.raises(fasttune.Error, match=code) as caught:
        fasttune.fit(recipe_of(write(rows, "jsonl", tmp_path), Path("nowhere")), progress=False)
    assert "row 3" in str(caught.value) and caught.value.exit_code == 4


def test_the_task_of_questions_is_hinted_at(tmp_path: Path, tiny_model: Path) -> None:
    recipe = {"data": {"train": str(write(make_questions(20), "json", tmp_path))}, "model": str(tiny_model)}
    with pytest.raises(fasttune.Error, match=r"E116 .*as in SQuAD(.|\n)*hint: task=question-answering"):
        fasttune.fit(recipe, progress=False)


def test_stride_and_length_that_cannot_work_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    recipe = recipe_of(write(make_questions(20), "jsonl", tmp_path), tiny_model)
    recipe["preprocessing"] = {"max_length": 20, "doc_stride": 20}
    with pytest.raises(fasttune.Error, match=r"E257 .*18 questions of up to 3 tokens \(id q"):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False)


@pytest.mark.real_data
def test_the_wrong_answers_of_cmrc_are_found_counted_and_set_right(real_data: Path) -> None:
    data = {"train": str(real_data / "cmrc2018" / "dev.json")}
    with pytest.raises(fasttune.Error, match="E241") as caught:
        read_splits(recipes.load({"task": "question-answering", "data": data}), TASKS)
    said = str(caught.value)
    assert "200 of 9,657 answers do not match their context at answer_start" in said
    assert "data.fix_spans=true repairs 7 of them" in said and "181 more problems" in said
    splits = read_splits(recipes.load({"task": "question-answering", "data": {**data, "fix_spans": True}}), TASKS)
    (note,) = (note for note in splits.notes if "fix_spans" in note)
    assert "moved 7 answers to " in note and "193 answers without exactly one occurrence" in note
    assert "without an answer to train on" not in note
    for split in splits.all():
        for answers, context in zip(split.rows.values["answers"], split.rows.values["context"], strict=True):
            assert all(answer.start == -1 or context.startswith(answer.text, answer.start) for answer in answers)
