"""Hub ids: how they are parsed, and that every failure becomes one clear problem."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from fasttune.data.formats import hub
from fasttune.data.sources import load_source
from fasttune.errors import DataError

SOURCE_FOLDER = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A folder of the form of a hub repository with two configs, which load_dataset reads by the same code."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: small\n  data_files:\n"
        "  - {split: train, path: train.csv}\n  - {split: test, path: test.csv}\n"
        "- config_name: large\n  data_files:\n  - {split: train, path: train.csv}\n---\n"
    )
    (folder / "train.csv").write_text("text,label\na,1\nb,0\n")
    (folder / "test.csv").write_text("text,label\nc,1\n")
    redirect(monkeypatch, folder)
    return folder


REAL = {name: getattr(datasets, name) for name in ("load_dataset", "load_dataset_builder")}


def redirect(monkeypatch, folder):
    """Whatever repository is asked for is the folder; returns what was asked for."""
    asked = []

    def redirected(real):
        def function(name, config, revision):
            asked.append((name, config, revision))
            return real(str(folder), config)

        return function

    for name, real in REAL.items():
        monkeypatch.setattr(datasets, name, redirected(real))
    monkeypatch.setattr(hub, "is_of", lambda file, repository: file.startswith(str(folder)))
    return asked


def refused(spec):
    with pytest.raises(DataError) as caught:
        load_source(spec)
    (problem,) = caught.value.problems
    return problem


def raising(error):
    def load_dataset(*arguments, **options):
        raise error

    return load_dataset


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("imdb", ("imdb", None, "")),
        ("stanfordnlp/imdb:test", ("stanfordnlp/imdb", None, "test")),
        ("nyu-mll/glue:sst2:validation", ("nyu-mll/glue", "sst2", "validation")),
        ("nyu-mll/glue@main:sst2:validation", ("nyu-mll/glue@main", "sst2", "validation")),
        ("imdb@refs/convert/parquet", ("imdb@refs/convert/parquet", None, "")),
    ],
)
def test_the_parts_of_a_hub_id(spec, expected):
    assert hub.is_hub_id(spec) and hub.parse(spec) == expected


@pytest.mark.parametrize("spec", ["a/b/c", "../a", "a b", "a::", "a:b:c:d", "", "/a", "-a", "a/"])
def test_what_is_no_hub_id(spec):
    assert not hub.is_hub_id(spec)


def test_all_splits_are_loaded_by_the_real_library(hub_folder):
    splits = hub.load("someone/reviews", "small", "someone/reviews:small:train")
    assert {name: list(split["text"]) for name, split in splits.items()} == {"train": ["a", "b"], "test": ["c"]}


def test_a_hub_id_leads_to_config_and_split(hub_folder, monkeypatch):
    asked = redirect(monkeypatch, hub_folder)
    source = load_source("someone/reviews:small:test")
    assert source.dataset["text"][:] == ["c"] and source.split_names == ("train",)
    assert source.description == "someone/reviews:small:test: 1 row, columns text, label"
    assert source.fingerprint
    assert load_source("someone/reviews@v2:small:test").dataset["text"][:] == ["c"]
    assert set(asked) == {("someone/reviews", "small", None), ("someone/reviews", "small", "v2")}
    problem = refused("someone/reviews:small:tets")
    assert (problem.code, problem.hint) == ("E131", "someone/reviews:small:test")
    problem = refused("someone/reviews")
    assert (problem.code, problem.expected, problem.hint) == (
        "E134",
        "one of small, large",
        "someone/reviews:small:train",
    )
    problem = refused("someone/reviews:lage:train")
    assert (problem.code, problem.found, problem.hint) == ("E134", "no config 'lage'", "someone/reviews:large:train")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub"), "E130"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "E133"),
        (ConnectionError("Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)"), "E132"),
        (TimeoutError("timed out"), "E132"),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "E135"),
        (datasets.exceptions.DatasetGenerationError("An error occurred"), "E135"),
        (ValueError(""), "E135"),
    ],
)
def test_failures_of_the_hub_become_one_problem(error, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(error))
    assert refused("a/b").code == code


def test_a_data_set_that_is_a_script_has_a_copy_in_files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    error = RuntimeError("Dataset scripts are no longer supported, but found conll2003.py")
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(error))
    problem = refused("eriktks/conll2003:test")
    assert problem.hint.startswith("eriktks/conll2003@refs/convert/parquet:test, if the hub has a Parquet copy")


def test_a_file_name_with_a_wrong_ending_is_not_only_looked_up_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text\na\n")
    monkeypatch.setattr(datasets, "load_dataset_builder", raising(datasets.exceptions.DatasetNotFoundError("none")))
    assert refused("reviews.cvs").hint == "did you mean reviews.csv?"


def test_an_unknown_id_without_network_is_a_data_error(tmp_path):
    program = (
        "from fasttune.data.sources import load_source\n"
        "from fasttune.errors import DataError\n"
        "try:\n    load_source('someone/no-such-data')\n"
        "except DataError as error:\n    print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(SOURCE_FOLDER)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "E132 someone/no-such-data: no such local file and no such dataset in the cache, and HF_HUB_OFFLINE is set\n"
        "  hint: for a file, give its path; for a hub dataset, unset HF_HUB_OFFLINE once to download it to the cache\n"
    )
    assert "Traceback" not in done.stderr


def builder_of(files):
    """As `datasets` makes one for a repository whose card names these files."""
    kind = type("Csv", (), {"__module__": "datasets.packaged_modules.csv.csv"})
    builder = kind()
    builder.config = SimpleNamespace(data_files={"train": files})
    return builder


@pytest.mark.parametrize(
    "path",
    ["/etc/hosts.csv", "../secret.csv", "http://169.254.169.254/latest.csv", "reference://x::memory://refs.json"],
)
def test_a_card_names_files_of_its_own_repository_alone(monkeypatch, tmp_path, path):
    """The card of a repository may say where its data are; `datasets` would open whatever stands there."""
    monkeypatch.chdir(tmp_path)
    files = ["hf://datasets/someone/reviews@0123/train.csv", path]
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *arguments, **how: builder_of(files))
    monkeypatch.setattr(datasets, "load_dataset", raising(AssertionError("nothing is read")))
    problem = refused("someone/reviews:train")
    assert problem.code == "E141" and problem.found == f"data at {path!r}"


def test_files_are_read_at_the_commit_that_was_looked_at(hub_folder, monkeypatch):
    files, asked = ["hf://datasets/someone/reviews@0123abcd/train.csv"], []
    monkeypatch.setattr(hub, "is_of", lambda file, repository: True)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *arguments, **how: builder_of(files))
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **how: asked.append(how) or real(*given, **how))
    load_source("someone/reviews:small:train")
    assert asked == [{"revision": "0123abcd"}]


@pytest.mark.parametrize("name", ["webdataset", "text", "imagefolder", "pandas"])
def test_kinds_of_files_are_no_datasets(monkeypatch, tmp_path, name):
    """`datasets` would read whatever lies in the working folder, pickles in .tar files among it."""
    monkeypatch.chdir(tmp_path)
    assert refused(name).code == "E141"


def test_a_folder_with_a_config_is_not_taken_for_a_repository(hub_folder):
    assert refused("repository:small:train").code == "E141"
    assert load_source("repository:train").dataset["text"][:] == ["a", "b"]
