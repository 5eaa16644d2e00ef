"""A run that makes no progress ends with a report and an alert."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import forks
import pytest
from faulty import events, make_recipe

import fasttune
from fasttune.errors import DataError
from fasttune.training import watchdog
from fasttune.training.alerts import VARIABLE
from fasttune.training.watchdog import Watchdog

HANGING = """
import sys, time
import fasttune
from fasttune.training import trainer
from fasttune.training import watchdog
watchdog.MIN_SECONDS, watchdog.TICK = 1.0, 0.1
def stuck_in_a_rank(event):
    if event.name == "step" and event.step == 6:
        trainer.PATIENCE = 1.5
    if event.name == "step" and event.step == 7:
        time.sleep(600)
fasttune.fit(sys.argv[1], output=sys.argv[2], progress=False, observers=[stuck_in_a_rank])
"""


def test_a_hang_is_ended_with_what_every_thread_did(tmp_path: Path) -> None:
    recipe, run = make_recipe(tmp_path), tmp_path / "run"
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    done = forks.run([recipe, run], script=script)
    assert done.returncode == 5
    assert ", after step 7" in done.stderr and "resume with the same command" in done.stderr
    report = (run / "hang-0.txt").read_text()
    assert "in stuck_in_a_rank" in report and "in _watch" in report, "all threads"
    rows = report.partition("rows of the next step: ")[2].splitlines()[0].split(", ")
    assert len(rows) == 4, "the last of an epoch of 60"
    resumed = fasttune.fit(recipe, output=run, progress=False, resume=True)
    assert [event["step"] for event in events(resumed.folder) if event["event"] == "step"] == list(range(1, 13))


def test_the_limit_follows_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    dog = Watchdog()
    assert dog.limit == watchdog.PATIENCE, "the first step compiles and allocates"
    for seconds in (1.0, 1.0, 30.0):
        dog.step(
            fasttune.training.events.StepDone(
                step=1, epoch=0, loss=0, learning_rate=0, grad_norm=0, num_tokens=1, num_microbatches=1, seconds=seconds
            )
        )
    assert dog.limit == watchdog.MIN_SECONDS, "ten times the median, or a minute"
    dog.recent.extend([30.0] * 10)
    dog.alive()
    assert dog.limit == 300


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A local service that receives alerts, and the alerts it received."""
    messages: list[dict[str, Any]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv(VARIABLE, f"json://user:canary@127.0.0.1:{server.server_port}/")
        yield messages
        server.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_person_is_told_of_end_and_failure(
    recipe: Path, tmp_path: Path, told: list[dict[str, Any]], capfd: pytest.CaptureFixture
) -> None:
    pytest.importorskip("apprise")
    run = fasttune.fit(recipe, output=tmp_path / "run")
    assert [message["title"] for message in told] == ["fasttune: run ended"]
    assert told[0]["message"].startswith("all 12 steps done") and "eval_accuracy" in told[0]["message"]
    with pytest.raises(DataError):
        fasttune.fit(recipe, output=tmp_path / "other", data={"train": "nowhere.csv"})
    assert told[1]["title"] == "fasttune: recipe failed" and "nowhere.csv" in told[1]["message"]
    written = [path.read_bytes() for path in run.folder.rglob("*") if path.is_file()]
    assert not any(b"canary" in content for content in written) and "canary" not in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise, when it is first imported
def test_an_alert_that_fails_is_said_and_ends_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("apprise")
    monkeypatch.setenv(VARIABLE, "nonsense://canary")
    assert fasttune.fit(recipe, output=tmp_path / "run", training={"max_steps": 1}).is_complete
    said = capsys.readouterr().err
    assert "warning: apprise does not know 1 of 1 addresses in FASTTUNE_ALERTS" in said and "canary" not in said
