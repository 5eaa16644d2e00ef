"""Untrusted files: nothing in them is executed, nothing outside is opened or written, no secret is kept."""

from __future__ import annotations

import json
import os
import pty
import shlex
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import fsspec
import psutil
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from loopback_hub import COMMIT, Hub, serve
from tiny import make_rows, save_tiny_model, write_csv

import fasttune
from fasttune.cli import commands as cli
from fasttune.data.builder.write import card as dataset_card
from fasttune.data.formats.folders import licence_of
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.sources import load_source
from fasttune.errors import Problem
from fasttune.runs.folder import RunFolder, locked, write_text
from fasttune.runs.mirror import Mirror
from fasttune.security import addresses, cache, model_folder, paths, secrets, text
from fasttune.training import launch
from fasttune.unpadding.native import build

JOINED = "naïve 我 👩\u200d🔬 \u0646\u0645\u06cc\u200c\u062e\u0648"  # the emoji and the Persian word need joiners
ESCAPE = "\x1b]0;owned\x07"
SETTINGS = ["training.max_steps=2", "training.device=cpu", "training.precision=fp32", "tracking.report_to=none"]


def fit(model: Path, data: Path, folder: Path, **sections: Any) -> fasttune.Run:
    training = {"max_steps": 2, "precision": "fp32", "device": "cpu"}
    recipe = {"model": str(model), "data": {"train": str(data)}, "training": training}
    return fasttune.fit(recipe, output=folder, progress=False, tracking={"report_to": "none"}, **sections)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("secure")
    return fit(save_tiny_model(folder / "model"), write_csv(folder / "rows.csv", make_rows(40)), folder / "run")


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (ESCAPE, "\\x1b]0;owned\\x07"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("c1 \x9b", "c1 \\x9b"),
        ("line\u2028end", "line\\u2028end"),
        ("half \ud800", "half \\ud800"),
        (JOINED, JOINED),
        ("a\u200db", "a\\u200db"),
    ],
)
def test_hidden_characters_are_shown(raw: str, shown: str) -> None:
    assert text.printable(raw) == shown
    assert str(Problem(where=raw, found=raw, expected="x", hint=raw)).count(shown) == 3
    as_json = text.json_text({"cell": raw})
    assert json.loads(as_json) == {"cell": raw}
    assert not any(hidden in as_json for hidden in ("\x1b", "\u202e", "\u200b", "\x9b", "\U000e0041"))


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_spreadsheet_computes_no_cell(cell: str) -> None:
    assert text.spreadsheet_cell(cell) == f"'{cell}" and text.spreadsheet_cell("a=1") == "a=1"


def acts(output: str) -> bool:
    """Whether the output contains anything a terminal would act on."""
    return any(character in output for character in "\x1b\x07\x9b\u202e\u200b")


def hostile_model(folder: Path) -> list[str]:
    model = save_tiny_model(folder / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": f"bert{ESCAPE}"}))
    return ["train", str(write_csv(folder / "rows.csv", make_rows(40))), f"model={model}", *SETTINGS]


def hostile_name(folder: Path) -> list[str]:
    (folder / "set").mkdir()
    write_csv(folder / "set" / f"train{ESCAPE}.csv", make_rows(9))
    write_csv(folder / "set" / f"odd{ESCAPE}.csv", make_rows(9))
    return ["show", str(folder / "set")]


def hostile_header(folder: Path) -> list[str]:
    (folder / "rows.csv").write_text(f"text,label,{ESCAPE}\na,b,c\nd,e,f\n")
    return ["show", str(folder / "rows.csv")]


def hostile_licence(folder: Path) -> list[str]:
    (folder / "set").mkdir()
    write_csv(folder / "set" / "rows.csv", make_rows(40))
    (folder / "set" / "README.md").write_text('---\nlicense: "cc-by-nc-4.0\\e]0;owned\\a\\u202e"\n---\n')
    model = save_tiny_model(folder / "model")
    return ["train", str(folder / "set"), f"model={model}", *SETTINGS, "--output", str(folder / "run")]


@pytest.mark.parametrize("case", [hostile_model, hostile_name, hostile_header, hostile_licence])
def test_nothing_acts_on_the_terminal(case: Any, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    cli.run(case(tmp_path))
    out, err = capfd.readouterr()
    assert out + err and not acts(out + err), out + err


@pytest.mark.slow
def test_nothing_acts_on_a_real_terminal(tmp_path: Path) -> None:
    """With rich's colours and bars, only its own control sequences reach the terminal: no title, no bell."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    words = [sys.executable, "-m", "fasttune", *hostile_licence(tmp_path)]
    process = subprocess.Popen(words, stdout=follower, stderr=follower, stdin=follower, env=environment)
    os.close(follower)
    output = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    assert process.wait() == 0, output.decode(errors="replace")
    assert b"owned" in output and b"\x1b]0;" not in output and b"\x07" not in output


def test_markdown_of_strangers_is_text() -> None:
    label = "b`\n\n# Injected\n<script>alert(2)</script>![](http://evil/p.png)|x"
    assert "\n" not in text.markdown(label) and "<script" not in text.markdown(label)
    assert text.markdown(label).replace("\\|", "").count("|") == 0 and "![](" not in text.markdown(label)
    fence = text.markdown_code("a ``` b")
    assert fence == "```` a ``` b ````"
    from fasttune.data.builder import Built
    from fasttune.data.builder.definition import Definition

    rows = datasets.Dataset.from_list([{"text": "a", "label": label}, {"text": "b", "label": "c"}])
    made = dataset_card(Built(Definition(dataset="d", files={"train": "x.csv"}), {"train": rows}))
    assert "<script" not in made and "\n# Injected" not in made
    (line,) = [line for line in made.splitlines() if "Injected" in line]
    assert line.replace("\\|", "").count("|") == 3


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "reference://x",
        "dask://x/a.csv",
        "zip://a::b.zip",
        "ftp://host/a.csv",
        "simplecache::s3://b/a.csv",
        "jupyter://x",
    ],
)
def test_no_other_address_is_opened(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *given, **how: pytest.fail("opened"))
    assert addresses.refusal(address) is not None
    with pytest.raises(fasttune.Error) as caught:
        load_source(address)
    assert caught.value.exit_code == 4
    with pytest.raises(fasttune.Error, match="E514"):
        Mirror(address, RunFolder(Path("run"))).fetch()


def test_offline_means_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (addresses.OFFLINE, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    assert addresses.refusal("s3://bucket/a.csv") is None
    assert cli.run(["--offline", "recipes"]) == 0
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    assert addresses.refusal("s3://bucket/a.csv") and addresses.refusal("rows.csv") is None
    with pytest.raises(fasttune.Error, match=r"E140 .*--offline"):
        load_source("https://127.0.0.1:9/rows.csv")


def test_addresses_of_a_run_from_elsewhere_are_not_opened_unasked(
    run: fasttune.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    foreign = shutil.copytree(run.folder, tmp_path / "foreign")
    recipe = (foreign / "recipe.yaml").read_text()
    train = json.dumps(str(run.folder.parent / "rows.csv")).strip('"')
    (foreign / "recipe.yaml").write_text(recipe.replace(train, "http://169.254.169.254/latest.csv"))
    environment = json.loads((foreign / "environment.json").read_text())
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *given, **how: pytest.fail("opened"))
    for run_id in ("another-run", ".", "..", "/", "../tokens"):
        (foreign / "environment.json").write_text(json.dumps({**environment, "run_id": run_id}))
        with pytest.raises(fasttune.Error, match=r"its recipe comes from another machine and reads http"):
            fasttune.evaluate(foreign)


def test_metadata_of_a_table_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Parquet file whose metadata declares `id` as an image at another address."""
    rows = make_rows(40)
    table = pa.table({
        "id": [{"path": f"hf://datasets/attacker/x/{number}.png", "bytes": None} for number in range(40)],
        "text": [row["text"] for row in rows],
        "label": [row["label"] for row in rows],
    })  # fmt: skip
    features = {
        "id": {"_type": "Image"},
        **{name: {"dtype": "string", "_type": "Value"} for name in ("text", "label")},
    }
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
        tmp_path / "rows.parquet",
    )
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *given, **how: pytest.fail("decoded"))
    found = fit(save_tiny_model(tmp_path / "model"), tmp_path / "rows.parquet", tmp_path / "run")
    ids = [
        json.loads(line)["id"] for line in (found.folder / "predictions" / "validation.jsonl").read_text().splitlines()
    ]
    assert all("hf://datasets/attacker" in one for one in ids)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local hub for the commands of this test, with the model org/tiny and the data set org/rows."""
    save_tiny_model(tmp_path / "hub" / "org" / "tiny")
    rows = tmp_path / "hub" / "datasets" / "org" / "rows"
    rows.mkdir(parents=True)
    write_csv(rows / "train.csv", make_rows(40))
    for name in [name for name in os.environ if name.startswith("HF_") or "OFFLINE" in name]:
        monkeypatch.delenv(name)
    with serve(tmp_path / "hub") as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield found


def ended(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fasttune", *map(str, words)], capture_output=True, text=True)


@pytest.mark.slow
def test_models_and_data_of_the_hub_are_pinned_and_nothing_else_is_asked(hub: Hub, tmp_path: Path) -> None:
    words = ["train", "org/rows:train", "model=org/tiny", *SETTINGS, "--output", tmp_path / "run"]
    done = ended(*words)
    assert done.returncode == 0, done.stderr
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert f"model: org/tiny@{COMMIT}" in recipe and f"train: org/rows@{COMMIT}:train" in recipe
    # After the first file, the others are requested at its commit.
    asked = {request.partition(" ")[2] for request in hub.requests}
    strangers = {path for path in asked if not path.startswith(("/org/tiny/", "/datasets/org/", "/api/datasets/org/"))}
    assert not {path for path in strangers if "telemetry" in path or "agent" in path}, strangers
    # The cards of data sets are read at `main` first, to learn the commit.
    firsts = {"/org/tiny/resolve/main/config.json", "/datasets/org/rows/resolve/main/README.md"}
    assert {path for path in asked if "/main/" in path} == firsts
    # The same command finds the run finished; another revision is another run.
    assert ended(*words, "--resume").returncode == 0
    other = ended(*("model=org/tiny@v2" if word == "model=org/tiny" else word for word in words), "--resume")
    assert other.returncode == 3 and "E530" in other.stderr


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "", "a\\b", "c:x", "a\x00b", "a\nb", "."])
def test_names_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"leads out|characters"):
        paths.inside(tmp_path, name)
    assert paths.inside(tmp_path, "predictions/test.jsonl") == tmp_path / "predictions" / "test.jsonl"
    (tmp_path / "link").symlink_to(tmp_path.parent)
    with pytest.raises(ValueError, match="is a link"):
        paths.inside(tmp_path, "link/x")


@pytest.mark.parametrize(
    "key", ["../../CANARY", "predictions/../../CANARY", ".ssh/CANARY", "a/b/CANARY", "tensorboard/x/CANARY"]
)
def test_a_mirror_writes_into_the_run_alone(key: str, run: fasttune.Run, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in ("recipe.yaml", "environment.json"):
        memory.pipe(f"/bucket/run/{name}", (run.folder / name).read_bytes())
    memory.store[f"/bucket/run/{key}"] = memory.open(f"/bucket/run/{key}", "wb")
    try:
        with pytest.raises(fasttune.Error, match="E514"):
            Mirror("memory://bucket/run", RunFolder(tmp_path / "a" / "b" / "run")).fetch()
    finally:
        memory.store.clear()
    assert not list(tmp_path.rglob("CANARY"))


def test_writing_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".recipe.yaml.staged").symlink_to(victim)
    (tmp_path / "recipe.yaml").symlink_to(victim)
    write_text(tmp_path / "recipe.yaml", "format: 1\n")
    assert victim.read_text() == "precious" and not (tmp_path / "recipe.yaml").is_symlink()
    folder = tmp_path / "run"
    (folder / "sub").mkdir(parents=True)
    write_text(folder / "recipe.yaml", "format: 1\n")
    (folder / "sub" / "predictions").symlink_to(tmp_path)
    with pytest.raises(fasttune.Error, match="E515"), locked(RunFolder(folder)):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners are POSIX")
def test_a_cache_that_others_can_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "fasttune").mkdir(mode=0o777)
    (tmp_path / "fasttune").chmod(0o777)
    assert cache.cache_folder("native") == tmp_path / "fasttune" / "native"
    assert (tmp_path / "fasttune").stat().st_mode & 0o077 == 0, "our own folder is closed to others"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # as if it belonged to another user
    assert not cache.cache_folder("native").is_relative_to(tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/place")
    assert cache.cache_folder("native").is_absolute()
    library = tmp_path / "kernels.so"
    library.write_bytes(b"")
    library.chmod(0o666)
    assert not paths.is_ours(library), "anybody could have written it"


def test_a_planted_kernel_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = build.compile_kernels(compiler)
    assert path.is_relative_to(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(b"planted")
    path.chmod(0o666)
    assert build.compile_kernels(compiler).read_bytes()[:4] == whole[:4]


@pytest.mark.slow
def test_code_of_the_working_folder_is_not_imported(tmp_path: Path) -> None:
    """`python -m` searches the working directory first, and commands that read data import psutil."""
    (tmp_path / "psutil.py").write_text("open('CANARY', 'w')\n")
    words = [sys.executable, "-m", "fasttune", "check", "missing.csv"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert not (tmp_path / "CANARY").exists()


def test_children_do_not_look_into_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def refuse(*given: object, env: dict[str, str], **how: object) -> None:
        seen.append(env)
        raise OSError

    monkeypatch.setattr(launch.subprocess, "Popen", refuse)
    with pytest.raises(OSError), launch.Child(lambda *given: None) as child:
        child.run(["x"])
    assert seen[0]["PYTHONSAFEPATH"] == "1"


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 20_000_000},
        {"num_hidden_layers": 1_000_000},
        {"num_attention_heads": 0},
        {"hidden_size": 10**9},
        {"vocab_size": 10**7, "hidden_size": 10**6},
        {"id2label": {str(number): "x" for number in range(100_001)}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_config_beyond_all_bounds(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny_model(tmp_path / "model")
    config = {**json.loads((model / "config.json").read_text()), **changes}
    (model / "config.json").write_text(json.dumps(config))
    from fasttune.training import model as pretrained

    monkeypatch.setattr(
        pretrained.AutoConfig, "from_pretrained", lambda *given, **how: pytest.fail("read by transformers")
    )
    with pytest.raises(fasttune.Error, match="E409") as caught:
        pretrained.load_config(str(model))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_experts_implementation_internal"])
@pytest.mark.parametrize("value", ["kernels-community/evil", "flash_attention_2", {"": "evil/kernels"}])
def test_implementations_of_the_hub_are_refused_before_they_are_looked_for(key: str, value: Any) -> None:
    assert model_folder.foreign_implementation({key: value}) is not None
    assert model_folder.foreign_implementation({key: "sdpa"}) is None
    assert model_folder.foreign_implementation({"quantization_config": {"quant_method": "x"}}) is not None


def test_a_tokenizer_that_explodes(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    content = json.loads((model / "tokenizer.json").read_text())
    bomb = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    content["normalizer"] = {"type": "Sequence", "normalizers": [bomb] * 4}
    (model / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(fasttune.Error, match=r"E409 .*produces 100,000,000 characters per character"):
        fit(model, write_csv(tmp_path / "rows.csv", make_rows(40)), tmp_path / "run")


BACKTRACKING = {"type": "Replace", "pattern": {"Regex": "(a+)+$c"}, "content": "b"}
MANY = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 2_000 + [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}},
}


@pytest.mark.parametrize(
    ("part", "value", "found"),
    [
        ("normalizer", BACKTRACKING, r"a tokenizer that crashes \(.*retry-limit"),
        ("post_processor", MANY, "a tokenizer that produces 43 characters or tokens per character"),
    ],
)
def test_a_tokenizer_is_tried_in_a_process_of_its_own(part: str, value: Any, found: str, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    file = model / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {part: value}))
    with pytest.raises(fasttune.Error, match=f"E409 .*found {found}"):
        fit(model, write_csv(tmp_path / "rows.csv", make_rows(40)), tmp_path / "run")


def test_a_line_to_copy_runs_nothing_of_a_folder_s_name(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "m$(touch owned)'\"")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(fasttune.Error, match="E404") as caught:
        fit(model, write_csv(tmp_path / "rows.csv", make_rows(40)), tmp_path / "run")
    line = caught.value.problems[0].hint.partition(": ")[2].rpartition(", then")[0]
    words = shlex.split(line)
    assert words[:2] == ["python", "-c"] and len(words) == 3 and repr(str(model)) in words[2]


def test_a_damaged_model_is_noticed(run: fasttune.Run, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(run.folder, tmp_path / "copy")
    assert fasttune.load(copy).predict(["good"])
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-7] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(fasttune.Error, match=r"E516 .*model.safetensors has changed or is damaged"):
        fasttune.load(copy)
    (copy / "checksums.json").unlink()  # runs of 0.1.0 have none
    assert fasttune.load(copy).predict(["good"])


# --- secrets --------------------------------------------------------------------------------------------------------


def test_no_secret_of_a_program_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "hunter2canary"
    monkeypatch.setattr(sys, "argv", ["my.py", "--hf-token", f"hf_{canary}0123456789abc", f"--db-password={canary}"])
    monkeypatch.setenv("MY_PASSWORD", canary)
    found = fit(save_tiny_model(tmp_path / "model"), write_csv(tmp_path / "rows.csv", make_rows(40)), tmp_path / "run")
    for path in found.folder.rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_no_secret_of_this_user_is_in_any_file_output_or_command_line(hub: Hub, tmp_path: Path) -> None:
    """Tokens from the environment, netrc and the hub's file, with two processes and a mirror."""
    canary = "hf_canaryCanary0123456789canary"
    home, cached = tmp_path / "user", tmp_path / "home"
    for folder in (home, cached):
        folder.mkdir(exist_ok=True)
    (home / ".netrc").write_text(f"machine 127.0.0.1 login me password {canary}1\n")
    (home / ".netrc").chmod(0o600)
    (cached / "token").write_text(f"{canary}2")
    variables = {"FASTTUNE_ALERTS": f"json://me:{canary}3@127.0.0.1:9/", "FASTTUNE_LAUNCH_KEY": f"{canary}4"}
    variables |= {"MY_SECRET": f"{canary}5", "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ["train", "org/rows:train", "model=org/tiny", *SETTINGS, f"output.mirror={tmp_path / 'mirror'}"]
    words += ["--output", str(tmp_path / "run"), "--processes", "2"]
    command_lines = set()
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "fasttune", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **variables})
        while process.poll() is None:
            for one in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    command_lines.add(" ".join(one.cmdline()))
            time.sleep(0.1)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert len(command_lines) >= 4 and not [line for line in command_lines if canary in line]
    assert len(hub.authorizations) > 0  # the token was used, so it could have been leaked
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (home / ".netrc", cached / "token")]
    assert len(files) > 30 and not [path for path in files if canary.encode() in path.read_bytes()]


def test_a_stored_command_line_has_no_secrets() -> None:
    words = [
        "train",
        "a.csv",
        "--token",
        "abc",
        "--db-password=abc",
        "data.test=https://me:abc@host/x",
        "k=hf_abc0123456789abcdefghi",
    ]
    secrets.note_command(words)
    kept = secrets.noted_command()
    assert kept is not None and kept[:3] == ["fasttune", "train", "a.csv"] and not any("abc" in word for word in kept)
    assert secrets.public_address("https://me:hunter2@mirror:8080/api?key=x") == "https://mirror:8080/api"


def test_an_alert_holds_no_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[str] = []
    monkeypatch.setattr("fasttune.training.alerts.alert", lambda title, body: sent.append(title + body))
    (tmp_path / "rows.csv").write_text("text,label\nprivate words,a\nother private words,\n")
    with pytest.raises(fasttune.Error):
        fasttune.fit(str(tmp_path / "rows.csv"), progress=False, output=tmp_path / "run")
    assert sent and "E212" in sent[0] and "private" not in sent[0]


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_tables_hold_no_more_than_they_may(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 1000] * 20_000, "label": ["a", "b"] * 10_000})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_file(
        tmp_path / "rows.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(table)
    for name in ("rows.parquet", "rows.arrow"):
        assert (tmp_path / name).stat().st_size < 1_000_000
        with pytest.raises(fasttune.Error, match="E107"):
            load_source(str(tmp_path / name), reading=ReadOptions(max_bytes=1_000_000))
        assert load_source(str(tmp_path / name)).dataset.num_rows == 20_000


def test_readers_take_time_in_proportion(tmp_path: Path) -> None:
    """Each of these once took minutes; here they only need to be refused."""
    keys = ", ".join(f'"k{number}": 1' for number in range(50_000))
    (tmp_path / "twice.jsonl").write_text("{" + keys + ', "k49999": 2}\n')
    (tmp_path / "own.jsonl").write_text("".join(f'{{"k{number}": 1}}\n' for number in range(20_000)))
    for name, code in (("twice.jsonl", "E113"), ("own.jsonl", "E117")):
        with pytest.raises(fasttune.Error, match=code):
            load_source(str(tmp_path / name))


def test_a_card_with_aliases_that_grow(tmp_path: Path) -> None:
    levels = ["a: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"b{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 10)]
    (tmp_path / "README.md").write_text("---\n" + "\n".join(levels) + "\nlicense: *a9\n---\n")
    assert len(licence_of(tmp_path) or "") < 1000


def write_texts(path: Path, content: bytes) -> None:
    """Two texts of one byte each, with any bytes: Arrow does not validate them when it writes."""
    offsets = pa.py_buffer(struct.pack("<3i", 0, 1, 2))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(content)])
    table = pa.Table.from_batches([pa.record_batch([texts, pa.array(["a", "b"])], ["text", "label"])])
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_texts_of_a_table_that_are_no_utf_8(name: str, tmp_path: Path) -> None:
    """Found by benchmarks/fuzz.py: such a text raised a Python error wherever it was first read."""
    write_texts(tmp_path / name, b"\xb4\xff")
    with pytest.raises(fasttune.Error, match="E127"):
        load_source(str(tmp_path / name))


def test_places_of_a_table_beyond_its_file(tmp_path: Path) -> None:
    """Found by benchmarks/fuzz.py: Arrow followed such offsets beyond its memory, and the process crashed."""
    path = tmp_path / "rows.arrow"
    write_texts(path, b"ab")
    good, bad = struct.pack("<3i", 0, 1, 2), struct.pack("<3i", 0, 1 << 29, 1 << 30)
    assert path.read_bytes().count(good) >= 1
    path.write_bytes(path.read_bytes().replace(good, bad))
    with pytest.raises(fasttune.Error, match="E127"):
        load_source(str(path))


@pytest.mark.parametrize("name", [b"la\0el", b"la\xbeel"], ids=["NUL", "no UTF-8"])
def test_names_of_columns_that_are_no_text(name: bytes, tmp_path: Path) -> None:
    """Found by benchmarks/fuzz.py, for columns and their nested types."""
    path = tmp_path / "rows.arrow"
    table = pa.table({"text": ["a", "b"], "label": [{"label": 1}, {"label": 2}]})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes().replace(b"label", name))
    with pytest.raises(fasttune.Error, match="E127"):
        load_source(str(path))
