"""What a cell is: the same in memory and streamed, whatever its neighbours in other files or blocks hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from tiny import make_rows, write_csv, write_jsonl

import fasttune
from fasttune import recipe as recipes
from fasttune.data.file_stream import open_stream
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.pipeline import read_splits
from fasttune.data.sources import load_source
from fasttune.tasks import TASKS
from fasttune.tasks.metrics import squad


def fit(model: Path, folder: Path, data: dict[str, Any], **sections: Any) -> fasttune.Run:
    training = {"max_steps": 3, "precision": "fp32", "device": "cpu", **sections.pop("training", {})}
    recipe = {"model": str(model), "data": data, "training": training, "tracking": {"report_to": "none"}}
    return fasttune.fit(recipe, output=folder / "run", progress=False, **sections)


# --- values of several types ----------------------------------------------------------------------------------------


def test_blocks_of_a_stream_may_hold_values_of_different_types(tiny_model: Path, tmp_path: Path) -> None:
    """Whole numbers in one block and fractions in another, empty lists, objects with other keys: as in memory."""
    rows = [
        {
            **row,
            "price": 5 if number < 1500 else 5.5,
            "tags": [] if number < 1500 else ["a"],
            "meta": {"n": 1} if number < 1500 else {"n": 2, "m": "x"},
        }
        for number, row in enumerate(make_rows(3000))
    ]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    validation = str(write_jsonl(tmp_path / "dev.jsonl", rows[:40]))
    for streaming in (True, False):
        (tmp_path / str(streaming)).mkdir()
        data = {"train": path, "validation": validation, "streaming": streaming}
        data |= {"shuffle_buffer_size": 3000, "max_bad_rows": 3} if streaming else {}
        training = {"max_steps": 50, "batch_size": 64}
        run = fit(tiny_model, tmp_path / str(streaming), data, training=training)
        events = (run.folder / "events.jsonl").read_text()
        assert "row_skipped" not in events, "every row is a good one"


def test_files_of_one_set_may_hold_values_of_different_types(tmp_path: Path) -> None:
    for number, price in enumerate((5, 5.5, None)):
        rows = [{**row, "price": price, "tags": ["a"] if number else []} for row in make_rows(5, seed=number)]
        write_jsonl(tmp_path / f"part-{number}.jsonl", rows)
    found = load_source(str(tmp_path / "part-*.jsonl")).dataset
    assert found["price"][:] == [5.0] * 5 + [5.5] * 5 + [None] * 5
    write_jsonl(tmp_path / "part-3.jsonl", [{**row, "price": "cheap", "tags": []} for row in make_rows(5)])
    with pytest.raises(fasttune.Error, match="E128"):
        load_source(str(tmp_path / "part-*.jsonl"))


def test_a_whole_number_of_400_digits_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good", "label": ' + "7" * 400 + "}\n" + '{"text": "bad", "label": 1}\n')
    with pytest.raises(fasttune.Error) as caught:
        read_splits(recipes.load({"data": {"train": str(path)}}), TASKS)
    assert caught.value.exit_code == 4


# --- quotes of files with tabs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("far_down", ['the "good" room', '"The Wire" was good', '"all of it"'])
def test_quotes_far_down_a_file_mean_the_same_when_it_is_streamed(tmp_path: Path, far_down: str) -> None:
    lines = [f"good w{number % 60} w{number // 60}\tpos" for number in range(6000)]
    lines[5500] = f"{far_down}\tpos"
    lines[5600] = '"The Wire"\tneg'
    path = tmp_path / "rows.tsv"
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    assert path.read_text().index('"') > 2**16
    in_memory = sorted(load_source(str(path)).dataset["text"])
    stream = open_stream(str(path), "train", ReadOptions(), 500, 0)
    streamed = [text for number in range(stream.num_windows) for text in stream.window(0, number).dataset["text"]]
    assert sorted(streamed) == in_memory


# --- settings -------------------------------------------------------------------------------------------------------


def test_a_blank_may_separate_labels_on_the_command_line_too() -> None:
    for change in ("data.label_separator= ", "data.label_separator=\t"):
        assert recipes.load({"data": {"train": "rows.csv"}}, [change]).data.label_separator == change[-1]
    assert recipes.load({"data": {"train": "rows.csv"}}, ["output.dir=~"]).output.dir == "~"
    assert recipes.load({"data": {"train": "rows.csv"}}, ["output.dir=null"]).output.dir is None


def test_labels_with_blanks_between_them(tiny_model: Path, tmp_path: Path) -> None:
    labels = ["joy", "love", "joy love"]
    rows = [{"text": row["text"], "label": labels[number % 3]} for number, row in enumerate(make_rows(60))]
    recipe = {"model": str(tiny_model), "data": {"train": str(write_csv(tmp_path / "rows.csv", rows))}}
    splits = read_splits(recipes.load(recipe, ["data.label_separator= ", "problem=multi-label"]), TASKS)
    assert splits.task.state()["label2id"] == {"joy": 0, "love": 1}


def test_a_text_file_without_delimiters_is_one_text_a_line(tiny_model: Path, tmp_path: Path) -> None:
    """Its first line is a text like the others, whatever the run's own column is called."""
    rows = [{"review": row["text"], "stars": row["label"]} for row in make_rows(40)]
    data = {"train": str(write_csv(tmp_path / "rows.csv", rows)), "columns": {"text": "review", "label": "stars"}}
    run = fit(tiny_model, tmp_path, data)
    lines = ["good food w1", 'bad "staff" w2', "the room, w3"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    predicted = list(fasttune.predict(run.folder, data=str(tmp_path / "lines.txt")))
    direct = fasttune.load(run.folder).predict(lines)
    assert [one["probabilities"] for one in predicted] == [pytest.approx(one["probabilities"]) for one in direct]


@pytest.mark.parametrize(
    ("first", "reading", "texts"),
    [
        ("great food", ReadOptions(), ["great food", "a", "b"]),
        ("text", ReadOptions(), ["a", "b"]),
        ("utterance", ReadOptions(columns=("utterance",)), ["a", "b"]),
        ("great food", ReadOptions(header=True), ["a", "b"]),
        ("text", ReadOptions(header=False), ["text", "a", "b"]),
    ],
)
def test_the_first_line_of_a_text_file(tmp_path: Path, first: str, reading: ReadOptions, texts: list[str]) -> None:
    path = tmp_path / "lines.txt"
    path.write_text(f"{first}\na\nb\n")
    source = load_source(str(path), reading=reading)
    (name,) = source.dataset.column_names
    stream = open_stream(str(path), "train", reading, 10, 1)
    streamed = [row for number in range(stream.num_windows) for row in stream.window(0, number).dataset]
    assert source.dataset[name][:] == texts and sorted(row[name] for row in streamed) == sorted(texts)


def test_a_header_that_is_also_a_value_is_the_header_where_the_recipe_says_so(tmp_path: Path) -> None:
    rows = [{"email": row["text"], "spam": ["spam", "ham"][number % 2]} for number, row in enumerate(make_rows(40))]
    path = str(write_csv(tmp_path / "rows.csv", rows))
    with pytest.raises(fasttune.Error, match=r"E114(.|\n)*data.header=true if this is the header"):
        read_splits(recipes.load({"data": {"train": path}}), TASKS)
    columns = {"text": "email", "label": "spam"}
    for data in ({"train": path, "columns": columns}, {"train": path, "columns": {"text": "email"}, "header": True}):
        splits = read_splits(recipes.load({"data": data}), TASKS)
        assert sum(len(split.rows) for split in splits.all()) == 40 and splits.columns == columns


def test_settings_for_a_split_that_is_not_drawn_are_said(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{**row, "who": str(number % 9)} for number, row in enumerate(make_rows(60))]
    path = str(write_csv(tmp_path / "rows.csv", rows))
    data = {"train": path, "validation": path, "test": path, "test_fraction": 0.2, "columns": {"group": "who"}}
    recipe = {"model": str(tiny_model), "data": data, "training": {"max_steps": 1, "device": "cpu"}}
    fasttune.fit(recipe, output=tmp_path / "run")
    said = capsys.readouterr().err
    assert "no effect: data.test_fraction, because data.test is set" in said
    assert "no effect: data.columns.group, because data.validation is set and no rows are held out" in said


# --- scores of answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("“战国无双”", "战国无双", 1.0),
        ("战国·无双…", "战国无双", 1.0),
        ("《战国》～无双", "战国无双", 1.0),  # noqa: RUF001
        ("战国无双", "战国无双2", 0.0),
        ("it’s", "its", 0.0),  # noqa: RUF001  the official script of SQuAD drops ASCII's marks alone
        ("it's", "its", 1.0),
    ],
)
def test_marks_that_do_not_count(answer: str, right: str, expected: float) -> None:
    assert squad.exact_match(answer, [right]) == expected


# --- fasttune build ---------------------------------------------------------------------------------------


def built(folder: Path, **definition: Any) -> dict[str, datasets.Dataset]:
    from fasttune.data.builder.making import build

    path = folder / "definition.yaml"
    facts = {"dataset": "mine", "version": "1.0.0", "description": "rows of mine"}
    path.write_text(yaml.safe_dump({**facts, **definition}))
    return build(path).splits


def test_new_splits_keep_copies_together_whatever_their_ids(tmp_path: Path) -> None:
    rows = [{"id": str(n), **make_rows(30)[n % 30]} for n in range(300)]
    write_csv(tmp_path / "rows.csv", rows)
    splits = built(tmp_path, files={"train": "rows.csv"}, label="label", resplit={"test_fraction": 0.2})
    assert not set(splits["train"]["text"]) & set(splits["test"]["text"]) and len(splits["test"]) > 30


@pytest.mark.parametrize("kind", ["numbers", "lists"])
def test_new_splits_of_other_targets_than_classes(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(make_rows(120)):
        label = number / 7 if kind == "numbers" else [["a"], ["b"], ["a", "b"], []][number % 4]
        rows.append({"text": row["text"], "label": label})
    if kind == "lists":
        rows[3]["label"] = ["once"]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    splits = built(tmp_path, files={"train": "rows.jsonl"}, label="label", resplit={"test_fraction": 0.2})
    assert len(splits["test"]) == 24


def test_labels_are_added_to_rows_without_any(tmp_path: Path) -> None:
    rows = [
        {"text": "buy now", "label": None},
        {"text": "good food", "label": ["food"]},
        {"text": "bad food", "label": ["food", "bad"]},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    add = [{"label": "spam", "column": "text", "matches": "buy"}]
    splits = built(tmp_path, files={"train": "rows.jsonl"}, label="label", add_labels=add)
    assert splits["train"]["label"][:] == [["spam"], ["food"], ["food", "bad"]]


def test_filters_compare_values_as_labels_are_written(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["news", "spam"]),
            "is_new": datasets.Value("bool"),
            "stars": datasets.Value("float64"),
            "label": datasets.Value("string"),
        }
    )
    rows = [
        {"text": f"w{n}", "kind": n % 2, "is_new": n % 3 == 0, "stars": float(n % 5), "label": "ab"[n % 2]}
        for n in range(30)
    ]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    for column, value, expected in (("kind", "spam", 15), ("is_new", "true", 10), ("stars", "1", 6)):
        filters = [{"column": column, "one_of": [value]}]
        splits = built(tmp_path, files={"train": "rows.parquet"}, label="label", filters=filters)
        assert len(splits["train"]) == expected, column


# --- answers --------------------------------------------------------------------------------------------------------


def test_an_answer_in_another_unicode_form_is_found_in_a_long_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one comparison for each place, not one for each place and length."""
    from fasttune.data import answers

    calls = 0
    real = answers.unicodedata.normalize

    def counted(form: str, text: str) -> str:
        nonlocal calls
        calls += 1
        return real(form, text)

    words = [f"clause {number} of the agreement" for number in range(1200)]
    answer = " ".join(words[1000:1010])
    context = " ".join(words[:1000]) + " " + answer.replace(" ", "\u00a0") + " " + " ".join(words[1010:])
    monkeypatch.setattr(answers.unicodedata, "normalize", counted)
    form, found = answers._in_other_unicode_form(answer, context) or ("", None)
    assert form == "NFKC" and found is not None and found.text == answer.replace(" ", "\u00a0")
    assert len(context) > 30_000 and calls < 2 * len(context)


def test_starts_that_count_a_line_end_as_one_are_named(tmp_path: Path) -> None:
    context = "first line\r\nsecond line\r\nAnn came at noon"
    start = context.replace("\r\n", "\n").index("Ann")
    rows = [
        {
            "id": str(n),
            "question": "who came",
            "context": context,
            "answers": {"text": ["Ann"], "answer_start": [start]},
        }
        for n in range(4)
    ]
    rows[3]["answers"] = {"text": ["Ann"], "answer_start": [context.index("Ann")]}  # a file of two units has none
    recipe = {"task": "question-answering", "data": {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows))}}
    with pytest.raises(fasttune.Error, match=r"E245 .*counted with \\r\\n as one character"):
        read_splits(recipes.load(recipe), TASKS)


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_file_whose_name_begins_like_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "[a].csv", make_rows(40))
    assert recipes.load({"data": {"train": "x.csv"}}, ["data.train=[a].csv"]).data.train == "[a].csv"
    assert recipes.load({"data": {"train": "x.csv"}}, ["data.train=[a.csv, b.csv]"]).data.train == ["a.csv", "b.csv"]


def test_a_label_whose_accents_are_written_otherwise_is_named(tiny_model: Path, tmp_path: Path) -> None:
    import unicodedata

    rows = [{"text": row["text"], "label": ["café", "bar"][number % 2]} for number, row in enumerate(make_rows(40))]
    train = str(write_csv(tmp_path / "rows.csv", rows))
    other = [{**row, "label": unicodedata.normalize("NFD", row["label"])} for row in rows]
    validation = str(write_csv(tmp_path / "other.csv", other))
    with pytest.raises(fasttune.Error, match=r"E214 (.|\n)*normalize\('NFC', label\)"):
        read_splits(recipes.load({"data": {"train": train, "validation": validation}}), TASKS)


def test_rows_in_memory_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(fasttune.Error, match="XDG_CACHE_HOME") as caught:
        fasttune.fit(make_rows(20), progress=False)
    assert caught.value.exit_code == 5
