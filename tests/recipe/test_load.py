"""Load recipes, apply overrides, and dump recipes."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fasttune.errors import RecipeError
from fasttune.recipe import differences, dump, fields, is_recipe, load, shipped, shipped_text
from fasttune.recipe.yaml_text import read, write

DATA = {"data": {"train": "reviews.csv"}}


@pytest.fixture
def recipe_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  train: reviews.csv\ntraining:\n  learning_rate: 3e-5\n  seed: 7\n")
    return file


def test_a_file_as_text_and_as_path(recipe_file):
    recipe = load(recipe_file)
    assert recipe == load(str(recipe_file))
    assert (recipe.data.train, recipe.training.learning_rate, recipe.training.seed) == ("reviews.csv", 3e-5, 7)


def test_paths_stay_as_written(recipe_file):
    assert load(recipe_file).data.train == "reviews.csv"


def test_byte_order_mark_windows_lines_and_empty_sections(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbfdata:\r\n  train: a.csv\r\ntraining:\r\n  # learning_rate: 1e-5\r\n")
    assert load(file) == load({"data": {"train": "a.csv"}})


def test_words_of_yaml_1_1_stay_words(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "data:\n  train: 2024-01-01\n  label_names: {01: no, off: yes}\nevaluation: {eval_strategy: no}\n"
        "output: {save_strategy: off}\n".replace("save_strategy: off", "save_strategy: no")
    )
    recipe = load(file)
    assert recipe.data.train == "2024-01-01"
    assert recipe.data.label_names == {"01": "no", "off": "yes"}
    assert (recipe.evaluation.eval_strategy, recipe.output.save_strategy) == ("no", "no")


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("training.learning_rate=2e-5", ("training", "learning_rate"), 2e-5),
        ("training.learning_rate= 1 ", ("training", "learning_rate"), 1.0),
        ("data.train=*.csv", ("data", "train"), "*.csv"),
        ("data.train=[a.csv, b.csv]", ("data", "train"), ["a.csv", "b.csv"]),
        ("data.train=C:\\data: new #2.csv", ("data", "train"), "C:\\data: new #2.csv"),
        ("data.train=a=b.csv", ("data", "train"), "a=b.csv"),
        ("data.train=2024", ("data", "train"), "2024"),
        ("data.label_names={0: bad, 1: good}", ("data", "label_names"), {"0": "bad", "1": "good"}),
        ("data.columns.text='null'", ("data", "columns", "text"), "null"),
        ("data.columns={text: Review}", ("data", "columns", "text"), "Review"),
        ("output.save_total_limit=null", ("output", "save_total_limit"), None),
        ("output.save_total_limit=", ("output", "save_total_limit"), None),
        ("evaluation.eval_strategy=no", ("evaluation", "eval_strategy"), "no"),
        ("evaluation.metrics=[f1]", ("evaluation", "metrics"), ["f1"]),
        ("training={seed: 3, batch_size: 2}", ("training", "seed"), 3),
    ],
)
def test_overrides(override, field, value):
    recipe = load(DATA, [override])
    for name in field:
        recipe = getattr(recipe, name)
    assert recipe == value


def test_overrides_replace_one_field_and_the_last_wins(recipe_file):
    recipe = load(recipe_file, ["training.learning_rate=1e-5", "training.learning_rate=2e-5"])
    assert differences(load(recipe_file), recipe) == {"training.learning_rate": (3e-5, 2e-5)}
    assert load(recipe_file, {"training": {"learning_rate": 2e-5}}) == recipe
    assert load(load(recipe_file), ["training.learning_rate=2e-5"]) == recipe


def test_an_override_repairs_the_file(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("data: {train: a.csv}\ntraining: {learning_rate: 1000}\n")
    assert load(file, ["training.learning_rate=1e-4"]).training.learning_rate == 1e-4


def test_a_table_of_label_names_is_replaced_whole():
    recipe = load({"data": {"train": "a", "label_names": {"0": "a", "1": "b"}}}, ["data.label_names={2: c, 3: d}"])
    assert recipe.data.label_names == {"2": "c", "3": "d"}


def test_what_is_given_is_not_changed():
    values = {"data": {"train": "a.csv"}}
    load(values, ["data.train=b.csv", "training.seed=1"])
    assert values == {"data": {"train": "a.csv"}}


def test_a_single_text_of_overrides_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="not a single string"):
        load(DATA, "training.seed=1")


TEXT = st.text(min_size=1, max_size=20)
TRICKY = st.sampled_from(
    ["no", "2e-5", "01", "1_000", "~", "null", "*a", "a: b", "#", "\u2028", "\x85", "1:30", "0x1F", ".5", "="]
)
WORD = TEXT | TRICKY


@given(
    train=WORD | st.lists(WORD, min_size=1, max_size=3),
    names=st.none()
    | st.lists(WORD, min_size=2, max_size=4, unique=True)
    | st.dictionaries(WORD, WORD, min_size=2, max_size=4),
    column=st.none() | WORD,
    rate=st.floats(0, 1, exclude_min=True),
    epochs=st.floats(0, 1e6, exclude_min=True),
    warmup=st.floats(0, 1) | st.integers(1, 10**9),
    seed=st.integers(0, 2**32 - 1),
    limit=st.none() | st.integers(1, 100),
    report=st.sampled_from(["auto", "none", ["tensorboard"]]),
)
def test_what_is_dumped_loads_as_the_same(
    tmp_path_factory, train, names, column, rate, epochs, warmup, seed, limit, report
):
    recipe = load(
        {
            "data": {"train": train, "validation": train, "label_names": names, "columns": {"text": column}},
            "training": {"learning_rate": rate, "num_train_epochs": epochs, "warmup_steps": warmup, "seed": seed},
            "output": {"save_total_limit": limit},
            "tracking": {"report_to": report},
        }
    )
    file = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    file.write_bytes(dump(recipe).encode())
    assert load(file) == recipe
    assert differences(load(file), recipe) == {}
    # A YAML 1.1 reader must read the same values.
    assert load(yaml.safe_load(dump(recipe))) == recipe
    assert load(recipe) == recipe


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | WORD, st.lists
    )
)
def test_yaml_that_is_written_reads_back(value):
    assert read(write(value), "text") == (value, [])


@pytest.mark.parametrize("task", ["text-classification", "question-answering", "token-classification"])
def test_a_dump_holds_every_field_of_its_task_and_no_other(task):
    recipe = load({"task": task, **DATA})
    written = yaml.safe_load(dump(recipe))
    every = {".".join(path) for path, _ in fields()}
    found = {".".join(path) for path, _ in fields() if _has(written, path)}
    columns = {name.removeprefix("data.columns.") for name in found if name.startswith("data.columns.")}
    assert columns == {
        "text-classification": {"text", "text_pair", "label"},
        "question-answering": {"question", "context", "answers", "answer_start"},
        "token-classification": {"tokens", "tags"},
    }[task] | {"group", "time"}
    for name in every - found - {"search.num_trials", "search.max_time", "search.ranges"}:
        with pytest.raises(RecipeError, match=f"only, but the task is {task}"):
            load(recipe, [f"{name}={OTHER_VALUES.get(name, 'x')}"])
    assert load(written) == recipe


OTHER_VALUES = {  # valid values that differ from the default
    "problem": "regression",
    "model_head": "mean",
    "evaluation.baselines": "false",
    "evaluation.calibrate": "false",
    "evaluation.tune_threshold": "true",
    "evaluation.min_precision": "0.9",
    "data.label_range": "[0, 1]",
    "data.label_names": "[a, b]",
    "data.fix_spans": "true",
    "preprocessing.long_text": "windows",
    "preprocessing.window_pooling": "max",
    "preprocessing.doc_stride": "64",
    "preprocessing.word_boundaries": "whitespace",
    "training.label_smoothing_factor": "0.1",
    "training.class_weights": "balanced",
    "evaluation.n_best_size": "3",
    "evaluation.max_answer_length": "15",
    "evaluation.null_score_diff_threshold": "1",
}


def _has(written, path):
    for part in path:
        if part not in written:
            return False
        written = written[part]
    return True


def test_shipped_recipes_load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    purposes = shipped()
    assert list(purposes) == [
        "chnsenticorp",
        "cmrc",
        "goemotions",
        "imdb",
        "mrpc",
        "ner",
        "pairs-starter",
        "quickstart",
        "squad",
        "squad-starter",
        "squad-v2",
        "stsb",
        "yelp",
        "yelp-full",
    ]
    for name, purpose in purposes.items():
        text = shipped_text(name)
        assert text.startswith(f"# {purpose}\n") and len(purpose) > 30
        assert f"#   fasttune train {name}\n" in text
        assert "\n# Measured" in text or "\n# Not measured yet" in text
        recipe = load(name)
        assert load(name, {"data": {"train": "rows.csv"}}).data.train == "rows.csv"
        written = tmp_path / f"{name}-copy.yaml"
        written.write_text(text)
        assert load(written) == recipe


def test_what_the_shipped_recipes_say():
    quick, small, full = load("quickstart"), load("yelp"), load("yelp-full")
    assert differences(load({"data": {"train": "starter"}}), quick) == {
        "training.preset": ("auto", "fast"),
        "training.logging_steps": (10, 50),
    }
    stars = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    assert differences(load({"data": {"train": "yelp_review_full"}}), small) == {
        "data.label_names": (None, stars),
        "data.max_train_samples": (None, 1000),
        "data.max_eval_samples": (None, 1000),
        "training.preset": ("auto", "tutorial"),
        "training.batch_size": (8, 16),
        "training.logging_steps": (10, 30),
    }
    assert differences(load({"data": {"train": "yelp_review_full"}}), full) == {
        "model": ("embedded", "google-bert/bert-base-cased"),
        "data.label_names": (None, stars),
        "training.preset": ("auto", "tutorial"),
        "training.num_train_epochs": (3.0, 2.0),
        "training.batch_size": (8, 24),
        "training.learning_rate": (5e-5, 2e-5),
        "training.weight_decay": (0.0, 0.05),
        "training.lr_scheduler_type": ("linear", "cosine"),
        "training.warmup_steps": (0.0, 0.1),
        "evaluation.metric_for_best_model": (None, "accuracy"),
    }


def test_is_recipe(recipe_file, tmp_path):
    assert is_recipe(recipe_file) and is_recipe(str(recipe_file)) and is_recipe("quickstart")
    (tmp_path / "folder.yaml").mkdir()
    for other in (tmp_path / "none.yaml", tmp_path / "folder.yaml", "reviews.csv", "a\0.yaml", {"data": {}}, None):
        assert not is_recipe(other)


def test_shipped_text_of_an_unknown_name():
    with pytest.raises(RecipeError, match="did you mean quickstart"):
        shipped_text("quikstart")


@pytest.mark.parametrize("best", [None, "loss", "f1"])
def test_the_best_metric_may_be_left_out_or_the_loss_or_listed(best):
    recipe = load(DATA, {"evaluation": {"metrics": ["f1"], "metric_for_best_model": best}})
    assert recipe.evaluation.metric_for_best_model == best
