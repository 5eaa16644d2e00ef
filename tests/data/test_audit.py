"""Warnings about rows, each on rows that deserve it and on rows that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fasttune import recipe as recipes
from fasttune.data.audit import audit_rows
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


def test_there_is_nothing_to_say_of_good_rows() -> None:
    write("data.csv", ROWS)
    assert warnings() == {}


def test_rare_labels() -> None:
    write(
        "data.csv", [*[(f"text number {number} here", "common") for number in range(300)], ("a", "rare"), ("b", "rare")]
    )
    assert warnings()["W262"].startswith("1 row of 'rare' beside ")
    write("data.csv", [*[(f"text number {number} here", number % 3 > 0) for number in range(300)]])
    assert warnings() == {}


def test_letters_and_accents_apart() -> None:
    write("data.csv", [*ROWS, ("cafe\u0301 here", 1), ("na\u00efve there", 0)])
    assert warnings() == {"W263": "1 text with letters and accents written apart (row 62)"}


def test_personal_data() -> None:
    write("data.csv", [*ROWS, ("ask ann@example.org", 1)])
    assert warnings() == {"W264": "e-mail addresses in 1 row (row 62)"}


def test_numbers_that_rise_with_every_row() -> None:
    write("data.csv", [(text, f"{number}.5") for number, (text, _) in enumerate(ROWS)])
    assert warnings()["W219"].startswith("labels that rise or fall with every row: ")
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
    assert warning.code == "W250" and warning.found.startswith("1 row whose text is in train too")


@pytest.mark.parametrize(
    ("card", "found"),
    [
        (None, None),
        ("---\nlicense: cc-by-4.0\n---\n# Rows\n", None),
        ("---\nlicense: cc-by-nc-4.0\n---\n", "licence cc-by-nc-4.0"),
        ("---\nlicense: 'other'\r\n---\n", "licence other"),
        ("---\nlanguage: en\n---\nlicense: mit\n", "a card that names no licence"),
        ("---\nlicense:\n  - mit\n  - other\n---\n", "licence mit, other"),
        ("---\nlicense: mit # fine\n---\n", None),
        ("# My project, with no head as the hub has it", None),
    ],
)
def test_licences_of_cards(card: str | None, found: str | None) -> None:
    write("folder/rows.csv", ROWS)
    if card is not None:
        Path("folder/README.md").write_text(card)
    assert warnings("folder").get("W265") == found


def test_a_label_that_only_held_out_rows_have() -> None:
    write(
        "data.csv",
        [(*row, number) for number, row in enumerate(ROWS)] + [("late", 2, 99), ("later", 2, 100)],
        "text,label,day",
    )
    columns = {"columns": {"time": "day"}}
    assert warnings(data=columns)["W266"] == "labels that no training row has: '2' in 2 rows"
    assert "W266" not in warnings()
    write("data.csv", [(text, 2 * label) for text, label in ROWS])
    write("dev.csv", [("late", 1), ("later", 3)])
    merged = {"0": "bad", "1": "bad", "2": "good", "3": "good"}
    assert "W266" not in warnings(data={"label_names": merged, "validation": "dev.csv"}), "other values, the same names"
