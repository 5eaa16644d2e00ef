"""Hostile models, data, recipes and texts: nothing in them runs, acts or is asked for, and each refusal is clear."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forks
import pytest
from hostile import CANARY, CASES, TRAINED, stand_ins
from loopback_hub import serve
from markdown_it import MarkdownIt

GUARD = Path(__file__).parents[1] / "guard.py"
ACTS = "\x1b\x07\x08\x9b\u202e\u2066\u200b\ufeff\u2028\U000e0065"
# Harmless because it is not read or has no meaning: the run behaves as if it were absent.
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
    "bound: data files by an absolute path",
    "bound: data files above",
    "bound: data files of the web",
    "bound: data files of a reference",
    *(name for name in CASES if name.endswith((" in a header", " in a file's name", " in a key of JSON"))),
}
REFUSED_ALONE = [name for name in CASES if not name.startswith("trained: ")]
# For two processes on a terminal with a hub in reach: whatever could fetch something or tell it to a person.
TWICE = [
    *("model: auto_map of the hub", "model: attention of the hub", "model: attention of the hub, public name"),
    *("model: experts of the hub", "model: adapter beside", "model: pickled weights", "bound: attention evil/kernels"),
    *(
        "bound: attention kernels-community/evil",
        "bound: an attention for each part",
        "bound: a tokenizer that doubles",
    ),
    *("data: pickle as .pkl", "data: parquet with pickled metadata", "data: a loading script beside"),
    *("address: reference://x::refs.json as data", "address: simplecache::http://127.0.0.1:1/rows.csv as data"),
    *("address: dask://127.0.0.1:1/rows.csv as mirror", "recipe: an object of Python", "text: a title in model_type"),
    *(
        "text: an override in a recipe's key",
        "text: a link in an unknown label",
        "trained: a title",
        "trained: a clear screen",
    ),
    *("trained: markup of rich", "trained: an override", "trained: markup of HTML"),
]


def guarded(folder: Path) -> dict[str, str]:
    """The environment for guard.py: stand-ins in reach, and every place where libraries write within the folder."""
    for name in ("tmp", "cache", "home"):
        (folder / name).mkdir()
    packages = stand_ins(folder / "packages", folder / CANARY)
    return {
        "PYTHONPATH": f"{packages}{os.pathsep}{GUARD.parent}",
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HOME": str(folder / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All that is refused, offline, in one fork: a hook of the interpreter stays for good."""
    folder = tmp_path_factory.mktemp("hostile")
    done = forks.run(
        [folder, folder / "results.json", *REFUSED_ALONE], script=GUARD, environment=guarded(folder), timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", REFUSED_ALONE)
def test_nothing_runs_and_the_refusal_is_clear(results: tuple[Path, dict[str, Any]], name: str) -> None:
    folder, found = results
    check(name, found[name])
    assert not list(folder.rglob(CANARY))


def check(name: str, result: dict[str, Any]) -> None:
    assert result["alarms"] == []
    assert "Traceback" not in result["said"], result["said"]
    assert not set(ACTS) & set(result["said"]), ascii(result["said"])
    assert not any(line.startswith("# Injected") for line in result["said"].splitlines())
    if name in IGNORED or name.startswith("trained: "):
        assert result["code"] == 0, result["said"]
    else:
        assert result["code"] in (2, 3, 4, 5), result["said"]
        assert "error: " in result["said"]


def check_artefacts(place: Path) -> None:
    run = place / "run"
    for path in run.glob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
            assert not set(ACTS) & set(path.read_text(encoding="utf-8")), path
    page = MarkdownIt().render((run / "README.md").read_text(encoding="utf-8").split("---", 2)[2])
    assert "<script" not in page and "<img" not in page and "<h1>Injected" not in page


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Runs that go through, with optional packages in reach from the first import on."""
    folder = tmp_path_factory.mktemp("trained")
    names = [f"trained: {name}" for name in TRAINED]
    words = [sys.executable, str(GUARD), str(folder), str(folder / "results.json"), *names]
    environment = {**os.environ, **guarded(folder), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"trained: {name}" for name in TRAINED])
def test_no_artefact_of_a_run_holds_text_that_acts(trained: tuple[Path, dict[str, Any]], name: str) -> None:
    folder, found = trained
    check(name, found[name])
    check_artefacts(Path(found[name]["place"]))
    assert not list(folder.rglob(CANARY))


@pytest.mark.slow
def test_two_processes_on_a_terminal_with_a_hub_in_reach(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**environment, **guarded(tmp_path), "TERM": "xterm-256color", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    (tmp_path / "hub").mkdir()
    with serve(tmp_path / "hub") as hub:
        environment |= {"MASTER_PORT": str(forks.free_port()), "HF_ENDPOINT": hub.address}
        processes, leaders = [], []
        for rank in ("0", "1"):
            leader, follower = pty.openpty()
            words = [sys.executable, str(GUARD), str(tmp_path), str(tmp_path / f"results-{rank}.json"), *TWICE]
            own = {**environment, "RANK": rank, "LOCAL_RANK": rank}
            processes.append(subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower, env=own))
            leaders.append(leader)
            os.close(follower)
        outputs = [b"", b""]

        def listen(number: int) -> None:
            outputs[number] = b"".join(parts(leaders[number]))

        threads = [threading.Thread(target=listen, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        codes = [process.wait(300) for process in processes]
        for thread in threads:
            thread.join()
        asked = set(hub.requests)
    assert codes == [0, 0], outputs[0].decode(errors="replace")[-3000:]
    said = outputs[0].decode()
    assert "owned" in said and "\x1b[" in said  # rich's own colours and bars
    for payload in ("\x1b]", "\x07", "\x1b[2J", "\x1b_", "\x1bP", "\u202e", "\x9b"):
        assert payload not in said + outputs[1].decode(), payload
    assert asked == set()
    assert not list(tmp_path.rglob(CANARY))
    for rank in ("0", "1"):
        results = json.loads((tmp_path / f"results-{rank}.json").read_text())
        assert len(results) == 25 and not [name for name, result in results.items() if result["alarms"]]
        assert [name for name, result in results.items() if result["code"] not in (0, 2, 3, 4, 5)] == []


def parts(leader: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            return
        if not part:
            return
        yield part


def test_there_are_250() -> None:
    assert len(CASES) >= 250
