"""Datasets built from a definition: their content, how their folder loads, and what is refused."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from fasttune.api import build
from fasttune.cli import commands as cli
from fasttune.data.sources import load_source
from fasttune.errors import Error

ROWS = [(f"place {number} was {'fine' if number % 5 > 2 else 'dull'}", number % 5 + 1) for number in range(100)]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "raw"
    folder.mkdir()
    lines = [f"{text},{stars},u{number // 10},{number}" for number, (text, stars) in enumerate(ROWS)]
    header = "Review,Stars,User,Day"
    (folder / "a.csv").write_text("\n".join([header, *lines[:60]]) + "\n")
    (folder / "b.csv").write_text("\n".join([header, *lines[60:]]) + "\n")


def define(name: str, **content: Any) -> Path:
    path = Path(f"{name}.yaml")
    path.write_text(yaml.safe_dump({"dataset": name, **content}, sort_keys=False))
    return path


def base(**content: Any) -> Path:
    columns = {"text": "Review", "label": "Stars", "user": "User", "day": "Day"}
    return define("base", **{"files": {"train": "raw/*.csv"}, "columns": columns, **content})


def test_a_definition_becomes_a_folder_that_loads_anywhere() -> None:
    built = build(base(version="2.1.0", description="Places.", licence="cc-by-4.0", language="en"), "out")
    assert built.splits["train"]["label"][:3] == ["1", "2", "3"]
    loaded = datasets.load_dataset("out")
    assert loaded["train"].column_names == ["text", "label", "user", "day"] and loaded["train"].num_rows == 100
    source = load_source("out")
    assert source.dataset.num_rows == 100 and source.dataset["text"][0] == ROWS[0][0]
    card = Path("out/README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc-by-4.0" and head["language"] == "en"
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert "# base 2.1.0" in card and "Places." in card and "| 1 | 20 |" in card and "| raw/\\*.csv |" in card


def test_changes_are_made_in_order_and_told_in_the_card() -> None:
    base()
    path = define(
        "changed",
        **{"from": "base.yaml"},
        add_labels=[{"label": "odd", "column": "text", "matches": "^place 7 "}],
        drop_labels=[3],
        map_labels={1: "bad", 2: "bad", 4: "good", 5: "good"},
        filters=[
            {"column": "text", "min_characters": 17},
            {"column": "user", "one_of": [f"u{number}" for number in range(9)]},
        ],
    )
    rows = build(path, "out").splits["train"].to_list()
    assert {row["label"] for row in rows} == {"bad", "good"}, "the odd one is too short"
    assert [row["text"] for row in rows] == [
        text for number, (text, stars) in enumerate(ROWS) if stars != 3 and 9 < number < 90
    ]
    card = Path("out/README.md").read_text()
    for line in ("from base 1.0.0", "1 to bad, 2 to bad", "removed 19 rows labelled 3", "added label 'odd'"):
        assert line in card
    assert "No licence is specified" in card


@pytest.mark.parametrize("how", [{}, {"group": "user"}, {"time": "day"}])
def test_new_splits(how: dict) -> None:
    path = base(resplit={"test_fraction": 0.2, "seed": 1, **how})
    splits = build(path, "out").splits
    assert list(splits) == ["train", "validation", "test"]
    assert [rows.num_rows for rows in splits.values()] == [70, 10, 20]
    assert len(set().union(*(rows["text"] for rows in splits.values()))) == 100
    train, validation, test = splits.values()
    if how.get("group"):
        assert not set(train["user"]) & ({*validation["user"]} | {*test["user"]})
    elif how.get("time"):
        first, second, third = ([int(day) for day in rows["day"]] for rows in splits.values())
        assert max(first) < min(second) <= max(second) < min(third)
    else:
        assert [test["label"][:].count(str(stars)) for stars in range(1, 6)] == [4] * 5
    assert build(path, "again").splits["test"]["text"][:] == test["text"][:]


def test_repeated_rows_stay_where_they_are_scored() -> None:
    Path("train.csv").write_text("text,label\na,1\nb,0\na,1\n")
    Path("test.csv").write_text("text,label\nb,0\nc,1\n")
    path = define("once", files={"train": "train.csv", "test": "test.csv"}, drop_duplicates=True)
    splits = build(path, "out").splits
    assert splits["train"]["text"][:] == ["a"] and splits["test"]["text"][:] == ["b", "c"]


def test_names_may_be_swapped_and_shifted() -> None:
    Path("swap.csv").write_text("text,Review\ngood,a fine place\nbad,a dull place\n")
    path = define("swap", files={"train": "swap.csv"}, columns={"text": "Review", "label": "text", "copy": "Review"})
    assert build(path, "out").splits["train"][0] == {"text": "a fine place", "label": "good", "copy": "a fine place"}


def test_labels_are_those_that_runs_see() -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet("classes.parquet")
    path = define("classes", files={"train": "classes.parquet"}, map_labels={"neg": "bad"})
    assert build(path, "classes").splits["train"]["label"][:] == ["bad", "pos", None], "no label stays none"
    Path("many.jsonl").write_text(
        '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": ["z"]}\n{"text": "c", "label": []}\n'
    )
    path = define("many", files={"train": "many.jsonl"}, drop_labels=["z"], map_labels={"y": "x"})
    assert build(path, "many").splits["train"]["label"][:] == [["x"], []]
    Path("numbers.jsonl").write_text('{"text": "a", "label": 1.0}\n{"text": "b", "label": 2.5}\n')
    path = define("numbers", files={"train": "numbers.jsonl"}, map_labels={1: "one"})
    assert build(path, "numbers").splits["train"]["label"][:] == ["one", "2.5"]


def test_of_added_labels_the_first_that_fits() -> None:
    added = [
        {"label": name, "column": "text", "matches": what} for name, what in (("one", "place 1"), ("any", "place"))
    ]
    rows = build(base(add_labels=added), "out").splits["train"]
    assert [rows["label"][number] for number in (0, 1, 2, 10)] == ["any", "one", "any", "one"]


def test_new_splits_do_not_tear_repeated_rows_apart() -> None:
    Path("repeated.csv").write_text("text,label\n" + "".join(f"place {n % 25},{n % 25 % 2}\n" for n in range(100)))
    splits = build(define("again", files={"train": "repeated.csv"}, resplit={}), "out").splits
    sides = [set(rows["text"]) for rows in splits.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_repeated_rows_are_found_whatever_the_order_of_columns() -> None:
    Path("one.csv").write_text("text,label\nw1,good\nw2,bad\n")
    Path("two.csv").write_text("label,text\ngood,w1\n")
    path = define("order", files={"train": "one.csv", "test": "two.csv"}, drop_duplicates=True)
    assert build(path, "out").splits["train"]["text"][:] == ["w2"]


FILES = {"files": {"train": "raw/a.csv"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "neither files nor from"),
        ({**FILES, "from": "x.yaml"}, "both files and from"),
        ({"files": {"tran": "raw/a.csv"}}, "found 'tran', expected one of train, validation, test"),
        ({"files": {"test": "raw/a.csv"}}, "the split train is required"),
        ({"files": {"train": "raw/z.csv"}}, "E101"),
        ({**FILES, "colums": {}}, "did you mean columns?"),
        ({**FILES, "columns": {"text": "Revew"}}, "did you mean Review?"),
        ({**FILES, "label": "Stars", "drop_labels": [9]}, "label '9', which occurs in no row"),
        ({**FILES, "label": "Stras", "drop_labels": [1]}, "did you mean Stars?"),
        ({**FILES, "label": "Stars", "map_labels": {"x": "y"}}, "label 'x', which occurs in no row"),
        ({**FILES, "filters": [{"column": "Review", "matches": "("}]}, "a valid regular expression"),
        ({**FILES, "filters": [{"column": "Review", "min_chars": 3}]}, "mean min_characters?"),
        ({**FILES, "filters": [{"column": "Review", "min_characters": 999}]}, "no rows are left in train"),
        ({**FILES, "resplit": {"group": "Usr"}}, "did you mean User?"),
        ({**FILES, "version": 1.0}, 'hint: version: "1.0"'),
        ({**FILES, "encoding": "nosuch"}, "wrong.yaml: encoding"),
        (
            {**FILES, "filters": [{"column": "Review"}]},
            "the filter needs min_characters, max_characters, matches or one_of",
        ),
        ({**FILES, "resplit": {"group": "User", "time": "Day"}}, "group and time cannot be combined"),
        (
            {"from": "base.yaml", "encoding": "utf-16"},
            "encoding and header belong in the definition that names the files",
        ),
        ({"files": {"train": "raw/a.csv", "test": "other.jsonl"}, "resplit": {}}, "E128"),
        ({"from": "wrong.yaml"}, "definitions form a cycle: wrong.yaml from wrong.yaml"),
        ({"from": "nowhere.yaml"}, "no such file"),
    ],
)
def test_what_cannot_be_built(content: dict, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = define("wrong", **content)
    Path("other.jsonl").write_text('{"Review": "a", "Stars": 1, "User": "u", "Day": 2}\n')
    assert cli.run(["build", str(path), "--output", "out"]) in (3, 4)
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not Path("out").exists()


def test_other_files_are_no_definitions_and_full_folders_stay() -> None:
    Path("recipe.yaml").write_text("task: text-classification\n")
    with pytest.raises(Error, match=r"E317 recipe.yaml: a dataset definition needs the entry 'dataset'"):
        build("recipe.yaml", "out")
    with pytest.raises(Error, match="a folder that is not empty"):
        build(base(), "raw")


def test_the_command_tells_what_was_done_and_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", str(base()), "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert "train: 100 rows from raw/*.csv" in said and "fasttune train out" in said


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server of this machine that takes uploads as the hub does, for small files; what it was sent."""
    sent: dict[str, Any] = {"files": {}, "tokens": set()}

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent["tokens"].add(self.headers["Authorization"])
            answer: dict[str, Any] = {"url": f"{endpoint}/datasets/ann/places", "name": "ann/places"}
            if "/preupload/" in self.path:
                names = [one["path"] for one in json.loads(body)["files"]]
                answer = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        sent["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                answer = {
                    "commitUrl": f"{endpoint}/datasets/ann/places/commit/1",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            elif self.path == "/api/validate-yaml":
                answer = {"warnings": [], "errors": []}
            else:
                sent["created"] = json.loads(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield sent
    server.shutdown()
    server.server_close()


def test_a_folder_is_pushed_to_the_hub(hub: dict[str, Any]) -> None:
    build(base(), "out", "ann/places")
    assert hub["created"]["name"] == "places" and hub["created"]["type"] == "dataset"
    assert set(hub["files"]) == {"README.md", "data/train-00000-of-00001.parquet"}
    assert hub["files"]["README.md"] == Path("out/README.md").read_bytes()
    assert hub["tokens"] == {"Bearer hf_secret"}
    assert not any(b"hf_secret" in path.read_bytes() for path in Path("out").rglob("*") if path.is_file())


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Error, match="E511 hub dataset ann/places"):
        build(base(), "out", "ann/places")
    with pytest.raises(Error, match="E511"):
        build(base(), "other", "no name at all")
