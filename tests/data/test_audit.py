"""Warnings about rows: each appears for rows that deserve it, and only for those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fasttune import recipe as recipes
from fasttune.data.audit import Audit, _is_noise, audit_rows
from fasttune.data.pipeline import read_splits
from fasttune.tasks import TASKS

ROWS = [
    (f"place {number} is {'fine' if number % 2 else 'dull'} and w{number * 31 % 97}", number % 2)
    for number in range(60)
]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[tuple[Any, ...]], header: str = "text,label") -> None:
    Path(name).parent.mkdir(exist_ok=True)
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    Path(name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def warnings(train: str = "data.csv", data: Any = None) -> dict[str, str]:
    """Code -> what was found."""
    recipe = recipes.load({"data": {"train": train, **(data or {})}})
    splits = read_splits(recipe, TASKS)
    return {one.code: one.found for one in audit_rows(splits.all(), splits.task).warnings}


def test_good_rows_have_no_warnings() -> None:
    write("data.csv", ROWS)
    assert warnings() == {}


def test_rare_labels() -> None:
    write(
        "data.csv", [*[(f"text number {number} here", "common") for number in range(300)], ("a", "rare"), ("b", "rare")]
    )
    assert warnings()["W262"].startswith("label 'rare' has 1 row, the most frequent label ")
    assert warnings()["W262"].endswith(": the model may never predict 'rare'")
    write("data.csv", [*[(f"text number {number} here", number % 3 > 0) for number in range(300)]])
    assert warnings() == {}


def test_letters_and_accents_apart() -> None:
    write("data.csv", [*ROWS, ("cafe\u0301 here", 1), ("na\u00efve there", 0)])
    consequence = "the tokenizer may read a letter and its accent as two characters"
    assert warnings() == {"W263": f"1 text is not in Unicode form NFC (row 62): {consequence}"}


def test_personal_data() -> None:
    write("data.csv", [*ROWS, ("ask ann@example.org", 1)])
    consequence = "a model can reveal personal data that it was trained on"
    assert warnings() == {"W264": f"e-mail addresses in 1 row (row 62): {consequence}"}


def test_numbers_that_rise_with_every_row() -> None:
    write("data.csv", [(text, f"{number}.5") for number, (text, _) in enumerate(ROWS)])
    assert warnings()["W219"].startswith("labels rise or fall with every row (0.5, ")
    write("data.csv", [(text, f"{number * 7 % 60}.5") for number, (text, _) in enumerate(ROWS)])
    assert warnings() == {}


def test_leaks_between_all_splits_with_the_places_of_both() -> None:
    long = "all of the old town and along the river to the sea and back again on foot"
    write("data.csv", [*ROWS, (f"we walked through {long}", 1)])
    write("dev.csv", [ROWS[3], ("nothing of the kind", 0)])
    write("test.csv", [(f"They walked through {long.upper()}!", 1), ("Nothing of the KIND", 0)])
    recipe = recipes.load({"data": {"train": "data.csv", "validation": "dev.csv", "test": "test.csv"}})
    splits = read_splits(recipe, TASKS)
    entries = [entry for entry in audit_rows(splits.all(), splits.task).entries if entry["code"] == "W250"]
    found = [(entry["where"], entry["num_exact"], entry["num_near"], entry["rows"]) for entry in entries]
    assert found == [
        ("validation (dev.csv)", 1, 0, [("row 2", "row 5")]),
        ("test (test.csv)", 0, 1, [("row 2", "row 62")]),
        ("test (test.csv)", 1, 0, [("row 3", "row 3")]),
    ]


def opinions(number: int, first: int = 0) -> list[tuple[str, int]]:
    """Rows without near-duplicates."""
    return [
        (" ".join(f"word{row * 7 % 211}{place}" for place in range(12)), row % 2)
        for row in range(first, first + number)
    ]


def audited(train: list[tuple[str, int]], validation: list[tuple[str, int]]) -> Audit:
    write("train.csv", train)
    write("dev.csv", validation)
    splits = read_splits(recipes.load({"data": {"train": "train.csv", "validation": "dev.csv"}}), TASKS)
    return audit_rows(splits.all(), splits.task)


def near_duplicate(row: tuple[str, int]) -> tuple[str, int]:
    return (row[0] + " indeed", row[1])


@pytest.mark.parametrize("number", [4, 5])
def test_near_duplicates_are_a_warning_from_a_twentieth_of_the_rows(number: int) -> None:
    train = opinions(110)
    validation = [*map(near_duplicate, train[:number]), *opinions(100 - number, 110)]
    audit = audited(train, validation)
    found = f"{number} rows are near-duplicates of train rows (row 2 of row 2, row 3 of row 3, row 4 of row 4, ...)"
    if number == 4:
        assert audit.warnings == []
        (entry,) = audit.observations
        assert entry["found"] == found and (entry["num_exact"], entry["num_near"]) == (0, 4)
        assert entry["rows"] == [(f"row {row}", f"row {row}") for row in range(2, 6)], "all of them"
    else:
        assert audit.observations == []
        (warning,) = audit.warnings
        assert (warning.code, warning.hint) == ("W250", "data.drop_duplicates=true")
        assert warning.found == f"{found}: the score may be optimistic"


def test_the_limit_for_near_duplicates_falls_with_the_number_of_rows() -> None:
    """Of 500 rows 22 are 4.4 % and lie within the sampling error, 1 / sqrt(500) = 4.47 %; of 5,000 rows 1.4 %."""
    assert _is_noise(22, 500) and not _is_noise(23, 500)
    assert _is_noise(70, 5000) and not _is_noise(71, 5000)
    assert not _is_noise(1, 20) and not _is_noise(1, 1)


def test_one_exact_copy_is_a_warning_however_small_its_share() -> None:
    train = opinions(105)
    (warning,) = audited(train, [*opinions(95, 110), train[9], near_duplicate(train[3])]).warnings
    assert warning.found == (
        "1 row repeats a text of train and 1 row is a near-duplicate of train rows "
        "(row 97 of row 11, row 98 of row 5): the score may be optimistic"
    )


@pytest.mark.parametrize("name", ["starter", "starter:questions"])
def test_generated_rows_have_no_warnings(name: str) -> None:
    task = "question-answering" if name == "starter:questions" else "text-classification"
    splits = read_splits(recipes.load({"task": task, "data": {"train": name}}), TASKS)
    assert audit_rows(splits.all(), splits.task).warnings == []


def test_a_warning_is_one_readable_line() -> None:
    train = opinions(110)
    audit = audited(train, [*train[:60], *map(near_duplicate, train[60:90]), *opinions(10, 110)])
    assert [warning.code for warning in audit.warnings] == ["W250"]
    assert len(str(audit.warnings[0]).splitlines()[0]) < 200


def test_no_held_out_pair_of_the_starter_nearly_repeats_an_earlier_one() -> None:
    splits = read_splits(recipes.load({"data": {"train": "starter:pairs"}}), TASKS)
    audit = audit_rows(splits.all(), splits.task)
    assert audit.warnings == [] and audit.entries == []


def test_questions_may_share_a_context_within_a_split_and_not_between_two() -> None:
    context = "Ann met Bob in the old market hall of Paris on a rainy day in May."
    rows = [
        {
            "question": f"Who {number}?",
            "context": f"{context} {number // 2}",
            "answers": {"text": ["Ann"], "answer_start": [0]},
        }
        for number in range(16)
    ]
    recipe = recipes.load({"task": "question-answering", "data": {"train": "starter:questions"}})
    splits = read_splits(recipe, TASKS)
    assert audit_rows(splits.all(), splits.task).warnings == []
    import json

    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("test.jsonl").write_text(json.dumps({**rows[0], "question": "Another?"}) + "\n")
    settings = {"train": "train.jsonl", "validation": "test.jsonl"}
    splits = read_splits(recipes.load({"task": "question-answering", "data": settings}), TASKS)
    (warning,) = audit_rows(splits.all(), splits.task).warnings
    assert warning.code == "W250" and warning.found.startswith("1 row repeats a text of train (row 1 of row 1)")


@pytest.mark.parametrize(
    ("card", "found"),
    [
        (None, None),
        ("---\nlicense: cc-by-4.0\n---\n# Rows\n", None),
        ("---\nlicense: cc-by-nc-4.0\n---\n", "licence cc-by-nc-4.0: "),
        ("---\nlicense: 'other'\r\n---\n", "licence other: "),
        ("---\nlanguage: en\n---\nlicense: mit\n", "the dataset card names no licence: "),
        ("---\nlicense:\n  - mit\n  - other\n---\n", "licence mit, other: "),
        ("---\nlicense: mit # fine\n---\n", None),
        ("# My project, with no head as the hub has it", None),
    ],
)
def test_licences_of_cards(card: str | None, found: str | None) -> None:
    write("folder/rows.csv", ROWS)
    if card is not None:
        Path("folder/README.md").write_text(card)
    warning = warnings("folder").get("W265")
    assert warning is None if found is None else warning is not None and warning.startswith(found)


def test_a_label_that_only_held_out_rows_have() -> None:
    write(
        "data.csv",
        [(*row, number) for number, row in enumerate(ROWS)] + [("late", 2, 99), ("later", 2, 100)],
        "text,label,day",
    )
    columns = {"columns": {"time": "day"}}
    assert warnings(data=columns)["W266"] == "label '2' (2 rows) without training rows: the model cannot predict it"
    assert "W266" not in warnings()
    write("data.csv", [(text, 2 * label) for text, label in ROWS])
    write("dev.csv", [("late", 1), ("later", 3)])
    merged = {"0": "bad", "1": "bad", "2": "good", "3": "good"}
    assert "W266" not in warnings(data={"label_names": merged, "validation": "dev.csv"}), "other values, the same names"
