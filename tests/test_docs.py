"""The documentation tells the truth: fresh pages, links that lead somewhere, commands and recipes that are accepted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from test_architecture import PACKAGE, ROWS

from fasttune import errors, recipe
from fasttune.cli.commands import app
from fasttune.recipe import yaml_text

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
ERROR_TABLE = ROOT / "docs/guides/own-data.md"


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of this language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for text in fence.findall(page.read_text(encoding="utf-8"))
    ]


def commands() -> list[tuple[str, str]]:
    lines = [(page, line) for page, text in blocks("bash") for line in text.splitlines()]
    return [(page, line) for page, line in lines if Path(line.split(" ")[0]).name == "fasttune"]


def arguments(line: str) -> list[str]:
    """What the shell would pass on: without the program, a comment, and what follows `>` or `|`."""
    words = shlex.split(line, comments=True)
    ends = [position for position, word in enumerate(words) if word in (">", "|")]
    return words[1 : min(ends, default=len(words))]


def parsed(line: str) -> tuple[str, dict]:
    """The name of the command and its parameters; an error of typer where the line would be refused."""
    root = typer.main.get_command(app)
    name, *rest = arguments(line)
    with root.make_context("fasttune", [], resilient_parsing=True) as context:
        command = root.get_command(context, name)
        assert command is not None, f"no command {name}"
        return name, command.make_context(name, rest, parent=context).params


def settings(line: str) -> list[str]:
    name, params = parsed(line)
    given = params["texts"] if name == "predict" else params.get("overrides")
    return [word for word in given or () if re.match(r"[a-z_.]+=", word)]


def run_docs(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "scripts/docs", *words], capture_output=True, text=True, check=False)


def test_reference_pages_are_fresh() -> None:
    done = run_docs("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_noticed_and_written_anew(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert run_docs("--folder", folder).returncode == 0
    assert run_docs("--folder", folder, "--check").returncode == 0
    page = tmp_path / "recipe.md"
    fresh = page.read_text(encoding="utf-8")
    page.write_text(fresh.replace("training.seed", "training.sed"), encoding="utf-8")
    assert run_docs("--folder", folder, "--check").returncode == 1
    assert run_docs("--folder", folder).returncode == 0
    assert page.read_text(encoding="utf-8") == fresh


def test_every_field_and_every_command_has_its_entry() -> None:
    fields_page = (ROOT / "docs/reference/recipe.md").read_text(encoding="utf-8")
    commands_page = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### `(.+)`$", fields_page, re.MULTILINE)
    assert sorted(entries) == sorted(".".join(path) for path, _ in recipe.fields())
    listed = re.findall(r"^## fasttune ([\w-]+)$", commands_page, re.MULTILINE)
    assert sorted(listed) == sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


def test_there_are_commands_to_check() -> None:
    pages = [page for page, _ in commands()]
    assert pages.count("README.md") == pages.count("README.zh-CN.md") > 10
    assert len(pages) > 40


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda part: part)
def test_a_documented_command_is_accepted(page: str, line: str) -> None:
    name, params = parsed(line)
    if name == "train":
        source = params["recipe"]
        start = source if source in recipe.shipped() else {"data": {"train": "reviews.csv"}}
        loaded = recipe.load(start, params["overrides"] or ())
    else:
        tasks = {"questions.md": "question-answering", "words.md": "token-classification"}
        task = tasks.get(Path(page).name, "text-classification")
        loaded = recipe.load({"task": task, "data": {"train": "reviews.csv"}}, settings(line))
    assert isinstance(loaded, recipe.Recipe)


@pytest.mark.parametrize("line", ["fasttune train reviews.csv --epochs 3", "fasttune tarin quickstart"])
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"No such option|no command"):
        parsed(line)


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_a_documented_recipe_is_accepted(page: str, text: str) -> None:
    values, problems = yaml_text.read(text, page)
    assert not problems
    recipe.load(values)


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_documented_python_compiles(page: str, text: str) -> None:
    assert compile(text, page, "exec").co_filename == page


def test_both_readmes_show_the_same_commands_and_quickstart() -> None:
    english, chinese = (
        (
            [arguments(line)[0] for name, line in commands() if name == page],
            next(part for name, part in blocks("python") if name == page),
        )
        for page in ("README.md", "README.zh-CN.md")
    )
    assert english == chinese


def test_every_error_code_is_in_the_table_and_no_other() -> None:
    in_code = {
        code for path in PACKAGE.rglob("*.py") for code in re.findall(r'"(E\d{3})"', path.read_text(encoding="utf-8"))
    }
    in_table = re.findall(r"^\| `(E\d{3})` \|", ERROR_TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert in_table == sorted(in_code)


def test_every_exit_code_is_in_the_guide() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Error)]
    guide = (ROOT / "docs/guides/resume.md").read_text(encoding="utf-8")
    listed = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", guide, re.MULTILINE) for number in row.split(",")}
    assert listed == {0, 130, 138, 143} | {kind.exit_code for kind in kinds}


def test_nobody_is_told_to_install_a_release_that_does_not_exist() -> None:
    files = [*PAGES, *(path for path in (ROOT / "src").rglob("*.py")), *(ROOT / "examples").rglob("*")]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.is_file()}
    assert not [path for path, text in texts.items() if re.search(r"(pip|uv)x? install [^\n]*'?fasttune(\[|\b)", text)]


def test_locks_hold_a_hash_of_each_package_and_no_torch() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(lines) > 60 and all("==" in line and "--hash=sha256:" in line for line in lines)
        assert not re.search(r"^(torch|triton|nvidia-cu\w+|cuda-\w+)==", text, re.MULTILINE)


def test_the_map_names_every_room_in_the_order_of_the_architecture_test() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = [(int(row), room) for row, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)]
    modules = (path for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py")))
    there = {path.name.removesuffix(".py") for path in modules}
    expected = {(number, room) for number, rooms in enumerate(ROWS, 1) for room in rooms & there}
    assert set(listed) == expected - {(len(ROWS), "__init__")}
    assert text.count("\n") <= 120
