"""The commands as a person types them: what lands on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pytest
import transformers
from tiny import make_rows, save_tiny_model, tiny_tokenizer, write_csv, write_jsonl

import fasttune
from fasttune.cli import commands as cli

SETTINGS = ["model=tiny", "training.max_steps=4", "training.precision=fp32", "training.device=cpu"]
CONTROL = "\x1b[31m\x07\x85"
CHINESE = [("菜很好吃", "正面"), ("房间又小又脏", "负面"), ("服务员很热情", "正面"), ("再也不会来了", "负面")]


def model_with(folder: Path, **changes: object) -> Path:
    """A copy of the tiny model with these fields in its config.json."""
    shutil.copytree(folder.with_name("tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def make_models(folder: Path) -> None:
    save_tiny_model(folder / "tiny")
    (folder / "folder.jsonl").mkdir()
    leaves_a_trace = "from pathlib import Path\nPath('code_of_the_model_ran').touch()\n"
    own_code = model_with(folder / "own_code", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (own_code / "mine.py").write_text(leaves_a_trace)
    known = model_with(folder / "known", auto_map={"AutoModelForSequenceClassification": "mine.Model"})
    (known / "mine.py").write_text(leaves_a_trace)
    transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8).save_pretrained(folder / "gpt2")
    transformers.T5Config(num_layers=1).save_pretrained(folder / "t5")
    (model_with(folder / "no_weights") / "model.safetensors").unlink()
    pickled = model_with(folder / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (model_with(folder / "damaged") / "model.safetensors").write_bytes(b"no safetensors")
    for file in model_with(folder / "no_tokenizer").glob("token*"):
        file.unlink()
    model_with(folder / "other_width", hidden_size=64)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data, models and a run of four steps."""
    folder = tmp_path_factory.mktemp("cli")
    make_models(folder)
    write_csv(folder / "reviews.csv", make_rows(80))
    write_csv(folder / "chinese.csv", [{"text": text * 3, "label": label} for text, label in CHINESE * 5])
    two_errors = "model: tiny\ndata: {train: reviews.csv}\ntraining:\n  lerning_rate: 1\n  batch_size: 0\n"
    (folder / "two_errors.yaml").write_text(two_errors)
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> subprocess.CompletedProcess:
    token = {"HF_TOKEN": "hf_" + "s3cr3t" * 6}
    return forks.run(["train", "reviews.csv", *SETTINGS, "--output", "run"], cwd=place, environment=token)


@pytest.fixture
def here(place: Path, trained: subprocess.CompletedProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert trained.returncode == 0, trained.stderr
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what works -----------------------------------------------------------------------------------------------------


def test_train_shows_scores_files_and_what_to_type_next(trained: subprocess.CompletedProcess, place: Path) -> None:
    results = json.loads((place / "run" / "all_results.json").read_text())
    out = trained.stdout.splitlines()
    assert f"eval_accuracy            {results['eval_accuracy']:.4f}   95 % interval 0." in "\n".join(out)
    *lines, others = out[out.index("run/") + 1 : out.index("next:") - 1]
    shown = {line.split()[0].rstrip("/") for line in lines}
    names = {path.name for path in (place / "run").iterdir() if not path.name.startswith(".")}
    assert {"README.md", "model.safetensors", "checkpoints"} <= shown <= names
    assert others.split()[0] == str(len(names - shown)), "what is not listed is counted"
    assert out[out.index("next:") + 1] == '  fasttune predict run "a text of your own"'
    said = trained.stderr.splitlines()
    assert "training: 72 examples, 4 steps of 8" in said
    assert "scoring the weights of step 4, the best by accuracy" in said
    assert "Traceback" not in trained.stderr and "Warning" not in trained.stderr


def test_the_token_of_the_environment_is_in_no_file_of_the_run(
    trained: subprocess.CompletedProcess, place: Path
) -> None:
    assert b"s3cr3t" not in b"".join(contents(place / "run").values())


def test_train_json_is_one_object_and_quiet_says_nothing(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["train", "reviews.csv", *SETTINGS, "--output", "other", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    expected = json.loads((here / "other" / "all_results.json").read_text())
    assert json.loads(out) == {"run": "other", "reason": "all 4 steps done", **expected}
    assert err == ""


def test_evaluate_repeats_what_training_found(here: Path, capsys: pytest.CaptureFixture) -> None:
    expected = json.loads((here / "run" / "eval_results.json").read_text())
    assert cli.run(["evaluate", "run", "training.precision=fp32", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["eval_accuracy"], found["eval_loss"]) == (expected["eval_accuracy"], expected["eval_loss"])
    assert not [line for line in err.splitlines() if "every prediction is" not in line]
    assert cli.run(["evaluate", "run"]) == 0
    assert f"eval_loss                {expected['eval_loss']:.4f}\n" in capsys.readouterr().out


def test_evaluate_names_the_metrics_of_a_split_by_the_split(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["evaluate", "run", "--split", "train", "--json"]) == 0
    assert {"train_loss", "train_accuracy", "train_f1"} <= json.loads(capsys.readouterr().out).keys()


def test_predict_gives_one_json_line_a_text_and_nothing_else(here: Path, capsys: pytest.CaptureFixture) -> None:
    texts = ["good food", "the room was bad"]
    assert cli.run(["predict", "run", *texts, "training.precision=fp32", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == fasttune.predict("run", texts)
    assert err == ""


def test_predict_shows_label_score_and_text(here: Path, capsys: pytest.CaptureFixture) -> None:
    expected = fasttune.predict("run", ["good food"])[0]
    assert cli.run(["predict", "run", "good food"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{expected['label']} {expected['score']:.3f} #####") and line.endswith(".  good food\n")
    assert line.count("#") + line.count(".") - 1 == 20, "the bar, and the point of the score"


def test_predict_takes_as_many_second_texts_as_texts_and_only_of_a_run_of_pairs(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.run(["predict", "run", "good food", "bad food", "--text-pair", "fine"]) == 2
    assert "found 2 texts and 1 second texts, expected one for each text" in capsys.readouterr().err
    assert cli.run(["predict", "run", "good food", "--text-pair", "fine"]) == 4
    assert "text 1: found" in capsys.readouterr().err


def test_predict_reads_lines_of_stdin(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("good food\nbad food"))
    assert cli.run(["predict", "run", "-", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == fasttune.predict("run", ["good food", "bad food"])


def test_predict_reads_a_file_and_writes_one(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["predict", "run", "--data", "reviews.csv", "--output", "found.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "wrote 80 predictions to found.jsonl\n")
    found = [json.loads(line) for line in (here / "found.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in make_rows(80)]
    predicted = fasttune.predict("run", data="reviews.csv")
    assert found == [{**one, "text": text} for one, text in zip(predicted, texts, strict=True)]
    assert cli.run(["predict", "run", "--data", "reviews.csv", "--json"]) == 0
    assert capsys.readouterr().out == (here / "found.jsonl").read_text()


def test_show_gives_rows_of_the_file(here: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [(row["text"], row["label"]) for row in make_rows(80)]
    assert cli.run(["show", "reviews.csv", "--sample", "3", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 3 and all((row["text"], row["label"]) in rows for row in found)
    assert cli.run(["show", "reviews.csv", "--sample", "3"]) == 0
    table = capsys.readouterr().out
    assert table.startswith("reviews.csv: 80 rows, columns text, label\n")
    assert all(row["text"] in table for row in found), "the same seed draws the same rows"


def test_show_knows_the_built_in_reviews(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["show", "starter", "--split", "test", "-n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"].startswith("test-")


def test_recipes_are_listed_and_a_printed_one_is_a_recipe(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"quickstart", "yelp"} <= {line.split()[0] for line in lines}
    assert cli.run(["recipes", "quickstart"]) == 0
    (here / "mine.yaml").write_text(capsys.readouterr().out)
    changes = [*SETTINGS, "data.train=reviews.csv", "training.max_steps=1"]
    assert cli.run(["train", "mine.yaml", *changes, "--output", "mine"]) == 0
    assert "preset: fast" in (here / "mine" / "recipe.yaml").read_text(), "of the printed recipe"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_env_tells_versions_and_no_secret(
    options: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cr3t")
    assert cli.run(["env", *options]) == 0
    out, err = capsys.readouterr()
    assert "s3cr3t" not in out + err and "HF_TOKEN" in out
    assert transformers.__version__ in out
    if options:
        assert json.loads(out)["variables"]["HF_TOKEN"] == "set"


def test_version_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"{fasttune.__version__}\n"


def test_known_architectures_load_without_the_code_in_their_folder(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(["train", "reviews.csv", *SETTINGS, "model=known", "--output", "of_known"]) == 0
    assert "auto_map" not in json.loads((here / "of_known" / "config.json").read_text())
    assert not list(here.rglob("code_of_the_model_ran"))


# --- data that wants to be markup or to steer the terminal ----------------------------------------------------------


def test_markup_and_control_characters_are_only_text(here: Path, capsys: pytest.CaptureFixture) -> None:
    core = "[/red] [bold] good food " + "w1 " * 45
    rows = [{"text": f"{core}{CONTROL} w{n}", "label": label} for n in range(10) for label in ("[red]a", "b[/]\x1b")]
    write_jsonl(here / "markup.jsonl", rows)
    assert cli.run(["show", "markup.jsonl", "-n", "20"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("[/red] [bold] good food") == 20 and "\\x1b[31m\\x07\\x85 w3" in shown
    assert cli.run(["train", "markup.jsonl", *SETTINGS, "--output", "run [red]"]) == 0
    assert "run [red]/\n" in capsys.readouterr().out
    assert cli.run(["predict", "run [red]", f"{core}\n{CONTROL}"]) == 0
    line = capsys.readouterr().out
    assert line.endswith(f"  {core}\\n\\x1b[31m\\x07\\x85\n"), "one line a text"
    assert line.startswith(("[red]a 0.", "b[/]\\x1b 0."))
    assert cli.run(["predict", "run [red]", "--data", "markup.jsonl"]) == 0
    assert "\x1b" not in shown + line + capsys.readouterr().out


def test_long_texts_are_cut_and_said_to_be(here: Path, capsys: pytest.CaptureFixture) -> None:
    write_jsonl(here / "long.jsonl", [{"text": "x" * 1403, "label": "a"}])
    assert cli.run(["show", "long.jsonl", "-n", "1"]) == 0
    assert "... (1,003 more characters)" in " ".join(capsys.readouterr().out.replace("┃", " ").split())


# --- what is refused ------------------------------------------------------------------------------------------------

CONVERT_HINT = (
    "\n  hint: if you trust their author: python -c "
    + shlex.quote(
        "from transformers import AutoModel as M, AutoTokenizer as T; "
        "[C.from_pretrained('pickled').save_pretrained('converted') for C in (M, T)]"
    )
    + ", then model=converted"
)
HUB_HINT = "\n  hint: model=embedded needs no download; offline, use the path of a model folder"
REFUSED = {
    "a missing recipe": (
        ["train", "two_error.yaml"],
        3,
        "E311 two_error.yaml: no such file; the shipped recipes are "
        "chnsenticorp, cmrc, goemotions, imdb, mrpc, ner, pairs-starter, quickstart, "
        "squad, squad-starter, squad-v2, stsb, yelp, yelp-full\n"
        "  hint: did you mean two_errors.yaml?",
    ),
    "a shipped recipe that there is not": (
        ["recipes", "quikstart"],
        3,
        "E311 quikstart: no such file; the shipped recipes are "
        "chnsenticorp, cmrc, goemotions, imdb, mrpc, ner, pairs-starter, quickstart, "
        "squad, squad-starter, squad-v2, stsb, yelp, yelp-full\n"
        "  hint: did you mean quickstart?",
    ),
    "a typo in an override": (
        ["train", "reviews.csv", "training.lerning_rate=1"],
        3,
        "E300 override training.lerning_rate=1: unknown name in section training\n"
        "  hint: did you mean 'learning_rate'?",
    ),
    "two errors in a recipe": (
        ["train", "two_errors.yaml"],
        3,
        "2 problems\n"
        "E300 two_errors.yaml: training.lerning_rate: unknown name in section training\n"
        "  hint: did you mean 'learning_rate'?\n"
        "E303 two_errors.yaml: training.batch_size: found 0, expected a whole number above 0",
    ),
    "missing data": (
        ["train", "review.csv"],
        4,
        "E101 review.csv: no such file or folder\n  hint: did you mean reviews.csv?",
    ),
    "a typo in a column": (
        ["train", "reviews.csv", *SETTINGS, "data.columns.label=lable", "--output", "new"],
        4,
        "E202 data.columns.label: found 'lable', expected a column of reviews.csv: 'text', 'label'\n"
        "  hint: data.columns.label=label\n"
        f"  type: fasttune train reviews.csv {' '.join(SETTINGS)} --output new data.columns.label=label",
    ),
    "an output that holds a run": (
        ["train", "reviews.csv", *SETTINGS, "--output", "run"],
        2,
        "output folder run: it already holds a run\n"
        "  hint: continue that run with --resume, or start a new one with --output NEW_NAME",
    ),
    "no run": (
        ["predict", "nowhere", "good"],
        5,
        "run nowhere: no such folder\n  hint: train one first: fasttune train quickstart",
    ),
    "a folder that is no run": (
        ["evaluate", "tiny"],
        5,
        "run tiny: the folder is not a run: it has no recipe.yaml\n  hint: train one first: fasttune train quickstart",
    ),
    "an unknown split": (
        ["evaluate", "run", "--split", "nope"],
        2,
        "--split: found 'nope', expected one of train, validation\n  hint: --data FILE",
    ),
    "an unknown split to show": (
        ["show", "starter", "--split", "nope"],
        2,
        "--split: found 'nope', expected one of train, validation, test",
    ),
    "a split of a plain file": (
        ["show", "reviews.csv", "--split", "test"],
        4,
        "E131 reviews.csv: the data has no splits, so 'test' cannot be selected\n  hint: leave the split out",
    ),
    "more rows than there are": (
        ["show", "reviews.csv", "--sample", "81"],
        2,
        "the number of rows to show: found 81, expected 1 to 80",
    ),
    "a setting that a finished run cannot change": (
        ["predict", "run", "training.learning_rate=1", "good"],
        2,
        "training.learning_rate: a finished run cannot change this setting, only "
        "training.precision, training.device, training.tokens_per_microbatch, data.fix_spans, "
        "data.encoding, data.header, data.max_bytes, data.sheet, data.total_row, data.no_label, data.drop_empty, "
        "preprocessing.doc_stride, "
        "preprocessing.word_boundaries, evaluation.n_best_size, evaluation.max_answer_length, "
        "evaluation.null_score_diff_threshold, data.columns.ROLE\n"
        "  hint: training.precision=fp32",
    ),
    "a second column of texts for a run of single texts": (
        ["predict", "run", "--data", "reviews.csv", "data.columns.text_pair=label"],
        2,
        "data.columns.text_pair: a finished run cannot change this setting, only "
        "training.precision, training.device, training.tokens_per_microbatch, data.fix_spans, "
        "data.encoding, data.header, data.max_bytes, data.sheet, data.total_row, data.no_label, data.drop_empty, "
        "preprocessing.doc_stride, "
        "preprocessing.word_boundaries, evaluation.n_best_size, evaluation.max_answer_length, "
        "evaluation.null_score_diff_threshold, data.columns.ROLE\n"
        "  hint: training.precision=fp32",
    ),
    "nothing to predict": (
        ["predict", "run"],
        2,
        "predict: found neither texts nor data, expected one of them\n"
        '  hint: fasttune predict RUN "some text", or --data FILE',
    ),
    "bytes that are not UTF-8": (
        ["predict", "run", "good", "b\udcffd"],
        4,
        "text 2: found 'b\\udcffd', expected text in UTF-8",
    ),
    "a folder where a file should go": (
        ["predict", "run", "good", "--output", "folder.jsonl"],
        5,
        "E510 folder.jsonl: found Is a directory, expected a path that can be read and written",
    ),
    "predictions in a form that is not written": (
        ["predict", "run", "good", "--output", "found.docx"],
        2,
        "--output found.docx: found the extension '.docx', expected one of .csv, .tsv, .jsonl, .json, "
        ".parquet, .xlsx, .conll, .doccano.jsonl\n  hint: --output found.jsonl",
    ),
    "a missing model folder": (
        ["train", "reviews.csv", *SETTINGS, "model=./nowhere", "--output", "new"],
        5,
        "E401 model ./nowhere: found no such folder, expected a folder with a Hugging Face model" + HUB_HINT,
    ),
    "a model without weights": (
        ["train", "reviews.csv", *SETTINGS, "model=no_weights", "--output", "new"],
        5,
        "E404 model no_weights: found Error no file named model.safetensors found in directory no_weights, "
        "expected weights in model.safetensors; fasttune never reads pickled weights, which can run any code"
        + HUB_HINT,
    ),
    "a model of pickled weights": (
        ["train", "reviews.csv", *SETTINGS, "model=pickled", "--output", "new"],
        5,
        "E404 model pickled: found Error no file named model.safetensors found in directory pickled, "
        "expected weights in model.safetensors; fasttune never reads pickled weights, which can run any code"
        + CONVERT_HINT,
    ),
    "weights that are damaged": (
        ["train", "reviews.csv", *SETTINGS, "model=damaged", "--output", "new"],
        5,
        "E404 model damaged: found Error while deserializing header: header too large, "
        "expected an intact model.safetensors" + HUB_HINT,
    ),
    "weights of another size": (
        ["train", "reviews.csv", *SETTINGS, "model=other_width", "--output", "new"],
        5,
        "E406 model other_width: the weights lack 35 tensors that config.json asks for, such as "
        "bert.embeddings.LayerNorm.bias\n  hint: use config.json and model.safetensors of the same model",
    ),
    "a model without tokenizer": (
        ["train", "reviews.csv", *SETTINGS, "model=no_tokenizer", "--output", "new"],
        5,
        "E403 model no_tokenizer: the tokenizer has no vocabulary\n"
        "  hint: copy tokenizer.json, or the vocabulary files, of the original model beside config.json",
    ),
    "texts in another language": (
        ["train", "chinese.csv", *SETTINGS, "--output", "new"],
        4,
        "E254 chinese.csv: 89% of the tokens are unknown to the model's tokenizer: it does not know the language "
        "(the embedded model reads English)\n"
        "  hint: model=FacebookAI/xlm-roberta-base (100 languages), model=google-bert/bert-base-chinese (Chinese)",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "text"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_told_in_these_words(
    here: Path, capsys: pytest.CaptureFixture, arguments: list[str], code: int, text: str
) -> None:
    before = contents(here / "run")
    assert cli.run(arguments) == code
    out, err = capsys.readouterr()
    wanted = "train: "  # the log of good data before a later check fails is not part of the error
    error = err[err.index("error: ") :] if err.startswith(wanted) else err
    assert (out, error) == ("", f"error: {text}\n")
    assert contents(here / "run") == before, "byte for byte"
    assert not (here / "new" / "recipe.yaml").exists()


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_model_that_is_no_encoder_is_refused(here: Path, capsys: pytest.CaptureFixture, family: str) -> None:
    tiny_tokenizer().save_pretrained(here / family)
    assert cli.run(["train", "reviews.csv", *SETTINGS, f"model={family}", "--output", "new"]) == 5
    assert capsys.readouterr().err == (
        f"error: E402 model {family}: found {family}, which is not an encoder, expected an encoder such as "
        "BERT, DistilBERT, RoBERTa, ELECTRA, DeBERTa or ModernBERT\n"
        "  hint: model=embedded, or a hub id such as model=google-bert/bert-base-uncased\n"
    )


def test_a_model_that_brings_its_own_code_is_refused_and_the_code_not_run(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.run(["train", "reviews.csv", *SETTINGS, "model=own_code", "--output", "new"]) == 5
    err = capsys.readouterr().err
    assert err.startswith("error: E405 model own_code: found ") and "Traceback" not in err
    assert "fasttune never runs code from a model folder" in err
    assert not list(here.rglob("code_of_the_model_ran"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "No such command 'trian'."),
        (["train"], "Missing argument 'RECIPE|DATA'."),
        (["train", "reviews.csv", "--outptu", "x"], "No such option: --outptu"),
        (["show", "reviews.csv", "--sample", "many"], "valid integer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_command_line_is_told(here: Path, capsys: pytest.CaptureFixture, arguments: list, words: str) -> None:
    """The words are the command line library's, so only their core is held."""
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and "Try 'fasttune" in err and "Traceback" not in err


def test_a_bug_of_ours_shows_its_traceback_and_asks_for_a_report(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasttune.training.environment.describe", lambda: 1 / 0)
    assert cli.run(["env"]) == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and err.endswith("Please report it with the output of: fasttune env\n")


def test_the_module_passes_the_exit_code_on(place: Path) -> None:
    command = [sys.executable, "-m", "fasttune", "train", "review.csv"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: E101 review.csv: no such file")
