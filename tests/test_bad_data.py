"""Every case of bad data: errors have a code, place, value, hint and exit code 4; other data is read, with a note."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_data import CASES, Case

from fasttune.cli import commands as cli

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "data-problems.md"
INTRODUCTION = """<!-- Made by tests/test_bad_data.py from its cases: run it with --write-golden to write it again. -->

# Data problems and their messages

Each row is a test: it shows what `fasttune check` prints for such a file. `E` is an error: no training starts, and the
exit code is 4. `W` is a warning and `N` a note: the data is used unchanged. All codes are listed in
[own data](../guides/own-data.md#error-codes).

| | the data | code | message |
|---|---|---|---|
"""


def as_bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


def run(case: Case, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(as_bytes(content))
    code = cli.run(["check", *case.arguments, f"model={model}", "training.precision=fp32"])
    said = capsys.readouterr()
    return code, said.err + said.out


@pytest.fixture(scope="module")
def said_of() -> dict[str, str]:
    """Filled by the tests below, and made the page of at the end."""
    return {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.what}")
def test_what_is_said(
    case: Case,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said_of: dict[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(case, tmp_path, tiny_model, capsys)
    after = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written = {name: as_bytes(content) for name, content in case.files.items()}
    assert after == written, "no file is made or changed"
    assert code == (0 if case.is_read else 4), said
    assert "Traceback" not in said
    for part in case.says:
        assert part in said
    if not case.is_read:
        assert f"error: {case.code} " in said, said
        assert "\n  hint: " in said, said
        assert len(said.splitlines()) <= 12
    elif case.code.startswith("W"):
        assert f"warning: {case.code} " in said, said
    said_of[case.number] = message_of(case, said)


def message_of(case: Case, said: str) -> str:
    """The lines of its problem, or those of its note."""
    if case.code == "right":
        return "none: the data is read"
    found = said.splitlines()
    mark = {"E": "error: ", "W": f"warning: {case.code}", "N": case.says[0]}[case.code[0]]
    first = next(number for number, line in enumerate(found) if mark in line)
    own = [found[first].strip().removeprefix("error: ").removeprefix("warning: ")]
    if found[first + 1 : first + 2] and found[first + 1].startswith("  hint: "):
        own.append(found[first + 1].strip())
    return "<br>".join(f"`` {line} ``".replace("|", "\\|") for line in own)


def test_all_of_the_list_are_here() -> None:
    assert [case.number for case in CASES] == [f"D{number}" for number in range(1, 58)]


def test_the_page_is_made_of_these(said_of: dict[str, str], pytestconfig: pytest.Config) -> None:
    if set(said_of) != {case.number for case in CASES}:
        pytest.skip("needs the results of all cases")
    rows = [f"| {case.number} | {case.what} | {case.code} | {said_of[case.number]} |" for case in CASES]
    page = INTRODUCTION + "\n".join(rows) + "\n"
    if pytestconfig.getoption("--write-golden"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page
