"""SKILL.md and llms.txt: a program that follows them literally gets from a CSV to a served model."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from served import free_port

from fasttune.data.starter.reviews import generate

ROOT = Path(__file__).parents[1]
SKILL = (ROOT / "SKILL.md").read_text(encoding="utf-8")


def scripts() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", SKILL, re.MULTILINE | re.DOTALL)


def test_links_of_llms_txt_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / "llms.txt").read_text(encoding="utf-8"))
    assert len(targets) > 10 and all((ROOT / target).exists() for target in targets)
    assert all((ROOT / name).exists() for name in re.findall(r"`(docs/[\w/.-]+)`", SKILL))


def test_the_front_matter_says_when_to_use_it() -> None:
    assert SKILL.startswith("---\nname: fasttune\ndescription: ") and SKILL.index("\n---\n") < 600


@pytest.mark.slow
def test_the_commands_lead_from_a_file_to_a_served_model(tmp_path: Path) -> None:
    """All but the installation, in one shell, as they are written."""
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows({"text": row["text"], "label": row["label"]} for row in generate(3)["train"][:400])
    install, *steps = scripts()
    assert install.startswith("scripts/install")
    port = str(free_port())
    script = "set -e\n" + "\n".join(steps).replace("8000", port)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:  # pipes would wait for the server
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, (tmp_path / "err").read_text()
    served = json.loads((tmp_path / "out").read_text().splitlines()[-1])["predictions"][0]
    assert served["label"] in ("positive", "negative")
    assert json.loads((tmp_path / "check.json").read_text())["splits"]["train"]["num_rows"] > 300
    assert json.loads((tmp_path / "train.json").read_text())["run"] == "runs/reviews"
    assert "eval_accuracy_low" in json.loads((tmp_path / "scores.json").read_text())
    assert (tmp_path / "predictions.csv").read_text().startswith("id,text,label")
