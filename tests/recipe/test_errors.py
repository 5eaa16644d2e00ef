"""Errors of wrong recipes: the exact messages, all problems at once, and no secret in any of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttune.errors import RecipeError
from fasttune.recipe import Recipe, aliases, load
from fasttune.recipe.messages import FIELDS
from fasttune.recipe.schema import METRICS
from fasttune.security import secrets

DATA = {"data": {"train": "reviews.csv"}}
TOKEN = "hf_" + "a1B2" * 8


def error_text(source, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load(source, overrides)
    assert caught.value.exit_code == 3
    return str(caught.value)


def expected_errors():
    """Blocks of `> override` with the message below it; a blank line ends a block."""
    blocks = Path(__file__).with_name("expected_errors.txt").read_text().strip().split("\n\n")
    return [tuple(block.removeprefix("> ").split("\n", 1)) for block in blocks]


def test_the_table_is_not_empty():
    assert len(expected_errors()) == 78


@pytest.mark.parametrize(("override", "text"), expected_errors(), ids=lambda value: value.split("\n")[0][:50])
def test_one_wrong_override(override, text):
    assert error_text(DATA, [override]) == text


@pytest.fixture
def write_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(content):
        file = Path("r.yaml")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


FILES = {
    "a field": (
        "data: {train: a}\ntraining:\n  learning_rate: 5e-5x\n",
        "E301 r.yaml: training.learning_rate: found '5e-5x', expected a number above 0 and at most 1 (typically 1e-6 "
        "to 1e-3)\n  hint: write training.learning_rate, in the file as 'learning_rate: 5.0e-05' below 'training:'",
    ),
    "a column that is a number": (
        "data: {train: a, columns: {text: 2024}}\n",
        "E303 r.yaml: data.columns.text: found 2024, expected a column name, or null (detected)\n"
        "  hint: write data.columns.text, in the file as \"text: '2024'\" below 'data: columns:'",
    ),
    "an empty file": (
        "# nothing yet\n",
        "E315 r.yaml: data.train: required, but not set (a path, a glob such as 'data/*.csv', a hub id, or a list of "
        "them, or 'starter')\n  hint: write data.train, in the file as 'train: reviews.csv' below 'data:'",
    ),
    "no sections": (
        "- a\n- b\n",
        "E312 r.yaml: found ['a', 'b'], expected sections with names and values, such as 'data:' followed by "
        "'  train: reviews.csv'",
    ),
    "a dotted name": (
        "data.train: a.csv\ndata: {test: b}\n",
        "2 problems\n"
        "E300 r.yaml: 'data.train': this name belongs in section data\n"
        "  hint: write data.train, in the file as 'train: a.csv' below 'data:'\n"
        "E315 r.yaml: data.train: required, but not set (a path, a glob such as 'data/*.csv', a hub id, or a list of "
        "them, or 'starter')\n  hint: write data.train, in the file as 'train: reviews.csv' below 'data:'",
    ),
    "a tag": (
        "data: {train: a}\ntask: !!python/object/apply:os.system [ls]\n",
        "E305 r.yaml:2: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed\n"
        "  hint: write the plain value without a tag; quote it if it begins with '!'",
    ),
    "tabs": (
        "data:\n\ttrain: a\n\ttest: b\n",
        "E306 r.yaml:2: found a tab, expected spaces\n  hint: indent with two spaces per level",
    ),
    "a tab after the colon": (
        "data:\n  train:\ta\n",
        "E306 r.yaml:2: found a tab, expected spaces\n  hint: indent with two spaces per level",
    ),
    "a name twice": (
        "data: {train: a}\ntraining:\n  seed: 1\n  batch_size: 2\n  seed: 3\n",
        "E307 r.yaml:5: the name 'seed' already appears in line 3\n  hint: remove one of the two",
    ),
    "an alias": (
        "data: {train: &x a, test: *x}\n",
        "E308 r.yaml:1: the alias *x is not allowed\n"
        "  hint: write the value itself, or quote it if it begins with a star: '*x'",
    ),
    "bad YAML": (
        "data:\n  train: a: b\n",
        "E312 r.yaml:2:11: invalid YAML (mapping values are not allowed here)\n"
        "  hint: quote values that contain ': ' or ' #', or begin with one of @ ` % & * ! | > [ {",
    ),
    "two documents": (
        "data: {train: a}\n---\ndata: {train: b}\n",
        "E312 r.yaml:2:1: invalid YAML (expected a single document in the stream, but found another document)\n"
        "  hint: quote values that contain ': ' or ' #', or begin with one of @ ` % & * ! | > [ {",
    ),
    "a list as a name": (
        "data: {train: a}\n? [a, b]\n: c\n",
        "E312 r.yaml:2: a list or a table is used as a name\n  hint: write a word before the colon",
    ),
    "a control character": (
        b"data: {train: a\x07}\n",
        "E312 r.yaml: the character '\\x07' is not allowed in YAML",
    ),
    "not UTF-8": (
        b"data: {train: caf\xe9.csv}\n",
        "E312 r.yaml: found byte 0xE9 at offset 17, expected UTF-8\n  hint: save the file as UTF-8",
    ),
    "many levels": (
        "data: " + "[" * 5000,
        "E312 r.yaml: too many nested levels",
    ),
    "a large file": (
        "#" * 1_000_001,
        "E312 r.yaml: the file has 1,000,001 bytes; a recipe may have at most 1,000,000",
    ),
    "both precisions": (
        "data: {train: a}\nfp16: true\nbf16: true\n",
        "E310 r.yaml: fp16: fp16 and bf16 are both set\n"
        "  hint: write training.precision, in the file as 'precision: bf16' below 'training:'",
    ),
    "early stopping without evaluation": (
        "data: {train: a}\nevaluation: {eval_strategy: no, early_stopping_patience: 2}\n",
        "E313 r.yaml: evaluation.early_stopping_patience: early_stopping_patience 2 requires evaluations, but "
        "eval_strategy is 'no'\n  hint: write evaluation.eval_strategy, in the file as "
        "'eval_strategy: epoch' below 'evaluation:'; or evaluation.early_stopping_patience=null",
    ),
    "a best metric that is not computed": (
        "data: {train: a}\nevaluation: {metrics: [f1], metric_for_best_model: accuracy}\n",
        "E304 r.yaml: evaluation.metric_for_best_model: found metric_for_best_model 'accuracy', which "
        "is not in evaluation.metrics, expected one of f1, loss\n  hint: write evaluation.metrics, in the file as "
        "'metrics: [f1, accuracy]' below 'evaluation:'",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_one_wrong_file(case, write_recipe):
    content, text = FILES[case]
    assert error_text(write_recipe(content)) == text


def test_all_problems_at_once(write_recipe):
    file = write_recipe(
        "data: {train: a, colums: {text: t}}\n"
        "epochs: 3\n"
        "training: {learning_rate: 1000, batch_size: 8.5, precision: fp99}\n"
        "evaluation: {metrics: [f1, acuracy], eval_steps: 10}\n"
        "output: {save_strategy: steps}\n"
        "hub_token: x\n"
    )
    with pytest.raises(RecipeError) as caught:
        load(file, ["training.seed=-1", "lr=1", "nothing", "data.train=[a"])
    assert [(problem.code, problem.where) for problem in caught.value.problems] == [
        ("E300", "r.yaml: data.colums"),
        ("E300", "r.yaml: epochs"),
        ("E309", "r.yaml: hub_token"),
        ("E316", "override nothing"),
        ("E312", "override data.train=[a"),
        ("E300", "override lr=1"),
        ("E303", "r.yaml: training.batch_size"),
        ("E302", "r.yaml: training.learning_rate"),
        ("E310", "r.yaml: training.precision"),
        ("E303", "override training.seed=-1"),
        ("E304", "r.yaml: evaluation.metrics"),
        ("E313", "r.yaml: evaluation.eval_steps"),
        ("E313", "r.yaml: output.save_strategy"),
    ]
    assert str(caught.value).startswith("13 problems\n")


def test_all_problems_of_yaml_at_once_in_the_order_of_lines(write_recipe):
    with pytest.raises(RecipeError) as caught:
        load(write_recipe("a: 1\na: 2\nmodel: !x y\ntask: *z\ndata:\n  train: 1\n  train: 2\n"), ["lr=1"])
    found = [(problem.code, problem.where) for problem in caught.value.problems]
    assert found == [
        ("E307", "r.yaml:2"),
        ("E305", "r.yaml:3"),
        ("E308", "r.yaml:4"),
        ("E307", "r.yaml:7"),
        ("E300", "r.yaml: a"),
        ("E300", "override lr=1"),
    ]


def test_an_alias_bomb_is_not_expanded(write_recipe):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert "E308" in error_text(write_recipe("\n".join(lines)))


def test_mappings_and_their_overrides_name_their_place():
    assert error_text({"data": {"train": "a"}, "training": {"seed": -1}}).startswith(
        "E303 recipe: training.seed: found -1,"
    )
    assert error_text(DATA, {"training": {"seed": -1}}).startswith("E303 override training.seed: found -1,")
    assert error_text(load(DATA), {"learning_rate": 3e-5}) == (
        "E300 override learning_rate: this name belongs in section training\n"
        "  hint: write training.learning_rate=3.0e-05"
    )


def test_the_override_is_named_when_it_contradicts_the_file(write_recipe):
    file = write_recipe("data: {train: a}\nevaluation: {eval_strategy: steps, eval_steps: 5}\n")
    assert error_text(file, ["evaluation.eval_strategy=epoch"]) == (
        "E313 override evaluation.eval_strategy=epoch: eval_steps 5 requires eval_strategy 'steps', but "
        "eval_strategy is 'epoch'\n  hint: write evaluation.eval_strategy=steps; or evaluation.eval_steps=null"
    )
    assert load(file, ["evaluation.eval_strategy=epoch", "evaluation.eval_steps=null"]).evaluation.eval_steps is None


def test_missing_files(write_recipe, tmp_path):
    write_recipe("data: {train: a}\n").rename("reviews.yaml")
    shipped = (
        "the shipped recipes are chnsenticorp, cmrc, goemotions, imdb, mrpc, ner, pairs-starter, quickstart, "
        "squad, squad-starter, squad-v2, stsb, yelp, yelp-full\n  hint: "
    )
    assert error_text("reveiws.yaml") == f"E311 reveiws.yaml: no such file; {shipped}did you mean reviews.yaml?"
    assert error_text("yelp-ful") == f"E311 yelp-ful: no such file; {shipped}did you mean yelp-full?"
    listed = "'fasttune recipes' lists the shipped recipes"
    assert error_text("no/such/thing.yaml") == f"E311 no/such/thing.yaml: no such file; {shipped}{listed}"
    assert error_text("a\0b") == f"E311 'a\\x00b': embedded null byte; {shipped}{listed}"
    (tmp_path / "folder").mkdir()
    assert error_text("folder") == f"E311 folder: it is a folder; {shipped}{listed}"


@pytest.mark.parametrize(
    "override",
    [
        f"token={TOKEN}",
        f"hub_token={TOKEN}",
        "training.api_key=" + TOKEN[3:],
        f"model={TOKEN}",
        f"data.train=[a, '{TOKEN}']",
        f"training.learning_rate={TOKEN}",
        f"{TOKEN}=1",
        f"lr={TOKEN}",
        f"training={TOKEN}",
        f"learning_rate={TOKEN}",
        f"nonsense {TOKEN}",
        f"data.train=[{TOKEN}",
        f"data.train=https://me:{TOKEN[3:]}@host/rows.csv",
        f"data.label_names={{{TOKEN}: a, b: c}}",
    ],
)
def test_secrets_are_refused_and_never_shown(override, write_recipe):
    assert TOKEN[3:] not in error_text(DATA, [override])
    name, _, value = override.partition("=")
    if value and "[" not in value:
        values = value
        for key in reversed(name.split(".")):
            values = {key: values}
        assert TOKEN[3:] not in error_text(DATA, values)


def test_secrets_have_their_own_code():
    assert error_text(DATA, [f"token={TOKEN}"]).startswith("E309 override token=***: a recipe must not contain secrets")
    assert error_text(DATA | {"model": TOKEN}).startswith("E309 recipe: model: a recipe must not contain secrets")
    assert "HF_TOKEN" in error_text(DATA, [f"data.test={TOKEN}"])


def test_terminal_controls_are_escaped():
    evil = "\x1b[31mred\nline"
    for text in (
        error_text(DATA, {evil: 1}),
        error_text(DATA, {"training": {"device": evil}}),
        error_text(DATA, [f"{evil}=1"]),
        error_text(evil),
    ):
        assert "\x1b" not in text
        assert all(line.startswith(("E3", "  hint: ")) for line in text.splitlines())


def test_long_values_are_cut():
    assert len(error_text(DATA, {"training": {"device": "x" * 10_000}})) < 300
    assert len(error_text(DATA, ["training.device=" + "x" * 10_000])) < 400


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*METRICS, "auto", "no"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAME = (
    st.sampled_from([".".join(path) for path in FIELDS] + list(Recipe.model_fields) + list(aliases.NAMES)) | st.text()
)


@given(st.dictionaries(NAME, VALUE, max_size=4))
def test_any_mapping_loads_or_is_refused_in_words(values):
    given_values = {}
    for name, value in values.items():
        section = given_values
        *parents, last = name.split(".")
        for key in parents:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                return
        section[last] = value
    try:
        load(DATA, given_values)
    except RecipeError as error:
        assert "pydantic" not in str(error) and "Input should" not in str(error)
        assert all(problem.code and problem.where and problem.found for problem in error.problems)


@given(NAME, st.text(max_size=20))
def test_any_override_loads_or_is_refused(name, value):
    try:
        load(DATA, [f"{name}={value}"])
    except RecipeError as error:
        assert all(problem.where.startswith("override ") for problem in error.problems)


@given(st.text(alphabet="abc:-[]{}&*!|>'\"#%@`,? \t\n\r\x85\u2028", max_size=40) | st.text(max_size=40))
def test_any_text_in_a_file_loads_or_is_refused(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("text") / "r.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RecipeError):
        load(file)


@pytest.mark.parametrize(
    ("address", "is_secret"),
    [
        ("https://host/data.csv?tokenizer=bert", False),
        ("https://host/data.csv?max_tokens=512&tokenized=true", False),
        ("https://host/data.csv?signature_version=4", False),
        ("data/HF_TextClassificationDataset2024.csv", False),
        ("https://host/data.csv?token=abc", True),
        ("https://host/data.csv?page=2&X-Amz-Signature=abc", True),
        ("https://account.blob/data.csv?sv=2024&sig=abc", True),
        ("https://me:word@host/data.csv", True),
        ("https://host:8080/data.csv?download=1", False),
        ("s3://bucket/part-?.csv", False),
        ("sk-wikipedia-reviews-2024-train.csv", False),
        ("hf://datasets/ann/reviews@main/train.csv", False),
        ("https://ghp_0123456789abcdefghij@host/data.csv", True),
        ("https://:word@host/data.csv", True),
        ("s3://AKIAKEY:ab/cd@bucket/data.csv", True),
        *(
            (f"https://host/data.csv?{name}=abc", True)
            for name in ("key", "auth", "authToken", "accesstoken", "code", "jwt", "pwd")
        ),
        ("https://host/data.csv#token=abc", True),
        ("https://host/data.csv?other=0123456789abcdefABCDEF01", True),
        ("glpat-0123456789abcdefghij", True),
        ("sk-0123456789abcdefghijk", True),
        ("sk-proj-0123456789abcdefghijk", True),
    ],
)
def test_addresses_that_hold_a_secret(address: str, is_secret: bool) -> None:
    assert secrets.holds_secret(address) == is_secret
