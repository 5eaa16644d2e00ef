"""Which rows are held out: by group, by time, together with their twins; and which are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasttune import recipe as recipes
from fasttune.data.pipeline import Splits, read_splits
from fasttune.errors import DataError, RecipeError
from fasttune.tasks import TASKS

ROWS = [(f"place {number} is {'fine' if number % 2 else 'dull'} and w{number}", number % 2) for number in range(60)]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, header: str, rows: list[tuple[Any, ...]]) -> None:
    Path(name).write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def splits_of(**data: Any) -> Splits:
    columns = {"text": "text", "label": "label", **data.pop("columns", {})}
    return read_splits(recipes.load({"data": {"train": "data.csv", "columns": columns, **data}}), TASKS)


def texts(split: Any) -> list[str]:
    return list(split.rows.values["text"])


def test_a_group_stays_on_one_side() -> None:
    users = [f"user{number // 4}" for number in range(60)]
    write("data.csv", "text,label,user", [(*row, user) for row, user in zip(ROWS, users, strict=True)])
    splits = splits_of(columns={"group": "user"}, validation_fraction=0.2, test_fraction=0.2)
    sides = [{users[int(row_id)] for row_id in split.rows.ids} for split in splits.all()]
    assert sorted(len(side) for side in sides) == [3, 3, 9]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert "rows that share the same 'user' stay together" in splits.notes[-1]


@pytest.mark.parametrize("written", ["2024-01-{:02}", "2024-01-01T{:02}:30:00", "{}", "{}.5"])
def test_the_latest_rows_are_held_out(written: str) -> None:
    times = [number * 7 % 20 for number in range(60)]
    write(
        "data.csv", "text,label,when", [(*row, written.format(time + 1)) for row, time in zip(ROWS, times, strict=True)]
    )
    splits = splits_of(columns={"time": "when"}, validation_fraction=0.2)
    assert splits.validation is not None
    late = {times[int(row_id)] for row_id in splits.validation.rows.ids}
    early = {times[int(row_id)] for row_id in splits.train.rows.ids}
    assert max(early) < min(late) and len(splits.validation.rows) == 12


def test_times_that_cannot_be_compared_are_named() -> None:
    write("data.csv", "text,label,when", [(*row, "2024-01-01" if place else "soon") for place, row in enumerate(ROWS)])
    with pytest.raises(
        DataError, match=r"E226 data.csv row 2, data.columns.time: found 'soon', expected a number, or a"
    ):
        splits_of(columns={"time": "when"})
    write("data.csv", "text,label,when", [(*row, "2024-01-01" if place else "7") for place, row in enumerate(ROWS)])
    with pytest.raises(DataError, match=r"found numbers \(row 2\) and dates \(row 3\)"):
        splits_of(columns={"time": "when"})
    write("data.csv", "text,label,when", [(*row, 7) for row in ROWS])
    with pytest.raises(DataError, match="E255"):
        splits_of(columns={"time": "when"})
    with pytest.raises(DataError, match="E202"):
        splits_of(columns={"time": "then"})


def test_group_and_time_exclude_each_other_and_fractions_leave_rows() -> None:
    with pytest.raises(RecipeError, match=r"columns\.group and columns\.time are both set"):
        splits_of(columns={"time": "a", "group": "b"})
    with pytest.raises(RecipeError, match="leave no rows for training"):
        splits_of(validation_fraction=0.5, test_fraction=0.5)


def test_held_out_test_rows_are_stratified_and_fixed_by_the_seed() -> None:
    write("data.csv", "text,label", ROWS)
    splits = splits_of(test_fraction=0.2, validation_fraction=0.2)
    assert [len(split.rows) for split in splits.all()] == [36, 12, 12]
    for split in splits.all():
        assert sum(label == "1" for label in split.rows.values["label"]) * 2 == len(split.rows)
    assert texts(splits_of(test_fraction=0.2, validation_fraction=0.2).test) == texts(splits.test)
    assert texts(splits_of(test_fraction=0.2, validation_fraction=0.2, seed=7).test) != texts(splits.test)


def test_rows_of_one_text_are_not_torn_apart() -> None:
    write("data.csv", "text,label", [row for row in ROWS for _ in range(3)])
    for seed in range(5):
        splits = splits_of(seed=seed)
        assert splits.validation is not None
        assert not {*texts(splits.train)} & {*texts(splits.validation)}
        assert len(splits.validation.rows) == 18


def test_a_text_of_most_rows_stays_in_training() -> None:
    write("data.csv", "text,label", [*ROWS, *[("again the same", 0)] * 60])
    splits = splits_of()
    assert splits.validation is not None
    assert 10 <= len(splits.validation.rows) <= 14 and "again the same" not in texts(splits.validation)
    write("data.csv", "text,label", [("one", 0), ("other", 1)] * 30)  # nothing else to draw from
    assert len(splits_of().validation.rows) == 6  # type: ignore[union-attr]


def test_a_few_empty_rows_are_left_out_unless_they_are_refused() -> None:
    write("data.csv", "text,label", [*ROWS, ("", 1), (" ", 0), ("well", ""), ("NA", 1)])
    with pytest.raises(DataError) as caught:
        splits_of(drop_empty=False)
    assert [problem.code for problem in caught.value.problems] == ["E210", "E211"], "both at once"
    splits = splits_of()
    assert sum(len(split.rows) for split in splits.all()) == 61
    assert "dropped 2 rows without a text and 1 row without a label (empty)" in " ".join(splits.notes)
    both = dict(zip(splits.train.rows.ids, map(splits.train.rows.place, range(len(splits.train.rows))), strict=True))
    assert all(place == f"row {int(row_id) + 2}" for row_id, place in both.items()), "ids are those of the file"
    assert "63" in {*splits.train.rows.ids, *splits.validation.rows.ids}  # type: ignore[union-attr]


def test_duplicates_are_left_out_where_that_is_asked_for() -> None:
    write("data.csv", "text,label", [*ROWS, ROWS[5], ROWS[6], (ROWS[7][0], 0)])
    long = "a very long walk through all of the old town and along the river to the sea"
    write("other.csv", "text,label", [ROWS[3], (f"{long} again", 1)])
    write("test.csv", "text,label", [(ROWS[4][0].upper(), 0), ("nothing alike", 1)])
    held_out = {"validation": "other.csv", "test": "test.csv"}
    assert len(splits_of(**held_out).train.rows) == 63
    splits = splits_of(**held_out, drop_duplicates=True)
    assert len(splits.train.rows) == 63 - 2 - 2
    assert [note for note in splits.notes if "drop_duplicates" in note] == [
        "data.drop_duplicates: dropped 2 training rows that repeat the text and label of another row",
        "data.drop_duplicates: dropped 2 training rows that repeat or nearly repeat a held-out row",
    ]


def test_a_class_of_one_text_does_not_tear_the_others_apart() -> None:
    write("data.csv", "text,label", [row for row in ROWS for _ in range(4)] + [("always the same", 2)] * 5)
    splits = splits_of()
    assert splits.validation is not None
    assert {*texts(splits.train)} & {*texts(splits.validation)} == {"always the same"}
    write("data.csv", "text,label", [(f"text {number // 6}", number // 6 % 2) for number in range(60)])
    splits = splits_of()
    assert not {*texts(splits.train)} & {*texts(splits.validation)}  # type: ignore[arg-type]


def test_a_repeated_row_does_not_change_how_many_are_held_out() -> None:
    for rows in (ROWS, [*ROWS, ROWS[0]]):
        write("data.csv", "text,label", rows)
        assert len(splits_of(validation_fraction=0.7).validation.rows) in (42, 43)  # type: ignore[union-attr]


def test_rows_without_a_group_are_not_one() -> None:
    users = [f"u{number // 3}" if number < 30 else "" for number in range(60)]
    write("data.csv", "text,label,user", [(*row, user) for row, user in zip(ROWS, users, strict=True)])
    splits = splits_of(columns={"group": "user"}, validation_fraction=0.2)
    assert 11 <= len(splits.validation.rows) <= 13  # type: ignore[union-attr]
    held_out = {users[int(row_id)] for row_id in splits.validation.rows.ids}  # type: ignore[union-attr]
    assert not (held_out & {users[int(row_id)] for row_id in splits.train.rows.ids}) - {""}


def test_questions_about_one_context_stay_together_also_by_group() -> None:
    rows = [
        {
            "question": f"Who {number}?",
            "context": f"Ann came to place {number // 3}.",
            "answers": {"text": ["Ann"], "answer_start": [0]},
            "user": f"u{number // 3 % 10}" if number % 3 else f"v{number // 3}",
        }
        for number in range(90)
    ]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": "data.jsonl", "columns": {"group": "user"}}
    splits = read_splits(recipes.load({"task": "question-answering", "data": data}), TASKS)
    for column in ("context", "user"):
        sides = [{rows[int(row_id)][column] for row_id in split.rows.ids} for split in splits.all()]
        assert not sides[0] & sides[1]


def test_nothing_left_to_train_on_is_told() -> None:
    write("data.csv", "text,label", ROWS)
    write("test.csv", "text,label", ROWS)
    with pytest.raises(DataError, match=r"E104 data.csv: all 54 training rows repeat a held-out row"):
        splits_of(test="test.csv", drop_duplicates=True)


@pytest.mark.parametrize(("num_rows", "expected"), [(30, 3), (60, 6), (400, 40)])
def test_few_rows_with_numbers_are_held_out_in_the_share_that_was_asked_for(num_rows: int, expected: int) -> None:
    write("data.csv", "text,label", [(f"place {number} is fine", number / 8) for number in range(num_rows)])
    recipe = {"problem": "regression", "data": {"train": "data.csv", "validation_fraction": 0.1}}
    splits = read_splits(recipes.load(recipe), TASKS)
    assert splits.validation is not None and len(splits.validation.rows) == expected
