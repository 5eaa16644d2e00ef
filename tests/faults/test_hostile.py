"""Hostile models, data and recipes: nothing in them runs, nothing outside is asked, and each refusal is clear."""

from __future__ import annotations

import json
from pathlib import Path

import forks
import pytest
from hostile import CANARY, CASES

# Runs in a process of its own, offline as all forks are: a hook of the interpreter stays for good.
GUARDED = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from hostile import CASES
from fasttune import api, cli
from fasttune.native import find
find()  # asks for the compiler
folder, current, alarms = Path(sys.argv[1]), Path("/nowhere"), []
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn", "pickle.find_class")
def hook(event, arguments):
    text = repr(arguments)[:300]
    if event in RUNS or event.startswith("socket.connect") or event == "socket.getaddrinfo":
        alarms.append([event, text])
    elif event == "open" and isinstance(arguments[0], str) and arguments[0].startswith("/etc/passwd"):
        alarms.append([event, text])
    elif event in ("import", "compile", "exec") and str(current) in text:
        alarms.append([event, text])
results = {}
made = {}
for name, case in CASES.items():
    place = folder / name.replace(": ", "-").replace(" ", "_")
    place.mkdir(parents=True)
    made[name] = place, case(place)
sys.addaudithook(hook)
for name, (place, arguments) in made.items():
    current, out = place, io.StringIO()
    alarms.clear()
    os.chdir(place)
    with redirect_stderr(out), redirect_stdout(out):
        code = cli.run(arguments)
    results[name] = {"code": code, "said": out.getvalue(), "alarms": list(alarms)}
(folder / "results.json").write_text(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("hostile")
    script = folder / "guarded.py"
    script.write_text(GUARDED)
    done = forks.run([folder], script=script, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "results.json").read_text())


# What is harmless because it is not looked at, or means nothing: the run goes on as if it were not there.
IGNORED = {
    "model: pickles beside",
    "model: auto_map",
    "model: auto_map that trusts itself",
    "model: torch_dtype that is code",
    "model: architecture that is code",
    "model: sub-configuration that trusts",
    "model: custom pipelines",
    "model: tokenizer's auto_map",
    "model: tokenizer's class",
    "model: tokenizer's chat template",
    "model: tokenizer's vocabulary elsewhere",
    "data: parquet with a pickled type",
    "data: parquet with pickled metadata",
    "data: a loading script beside",
    "data: labels that are code",
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_runs_and_the_refusal_is_clear(results: tuple[Path, dict], name: str) -> None:
    folder, found = results
    result = found[name]
    assert result["alarms"] == []
    assert not list(folder.rglob(CANARY))
    assert "Traceback" not in result["said"], result["said"]
    if name in IGNORED:
        assert result["code"] == 0, result["said"]
    else:
        assert result["code"] in (2, 3, 4, 5), result["said"]
        assert "error: " in result["said"]


def test_there_are_fifty() -> None:
    assert len(CASES) >= 50
