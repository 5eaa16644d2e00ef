"""The shape of the package: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "fasttune"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a room may import its own files and rooms of lower rows. Rooms of one row do not know each other.
ROWS = [
    {"security"},
    {"errors"},
    {"parallel", "recipe", "runs"},
    {"data", "unpadding"},
    {"tasks"},
    {"analysis"},
    {"training"},
    {"evaluation"},
    {"export", "report", "search", "serving", "start_models"},
    {"api"},
    {"cli", "testing"},
    {"__main__", "__init__"},
]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def row_of(room: str) -> int:
    return next(number for number, rooms in enumerate(ROWS) if room in rooms)


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """As ast.walk, without what only a type checker reads: `data` names the type of the task that it is given."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from walk(child)


def imported_rooms(tree: ast.AST) -> set[str]:
    rooms = set()
    for node in walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "fasttune" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("fasttune.")}
    return {room for room in rooms if room != "__version__"}


def test_every_room_has_a_row() -> None:
    assert {room_of(path) for path in MODULES} <= set().union(*ROWS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the public names, imported lazily
    tree = ast.parse(path.read_text(encoding="utf-8"))
    too_high = {other for other in imported_rooms(tree) if other != room and row_of(other) >= row_of(room)}
    assert not too_high


def test_no_pickle_and_no_remote_code() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute | ast.Name):
                name = ast.unparse(node)
                assert name not in ("torch.load", "pickle.load", "pickle.loads", "eval", "exec"), path
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", path


def test_nothing_prints_but_the_gate_of_text() -> None:
    """Else a title, a colour or a hidden character of the data reaches the terminal."""
    for path in MODULES:
        if room_of(path) == "security":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("print", "typer.echo", "typer.secho", "Console", "rich.print"), path
                assert not name.startswith(("sys.stdout.write", "traceback.print")), path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--help"], "Usage"),
        (["train", "missing.csv"], "E101 missing.csv"),
        (["train", "missing.csv", "--processes", "2"], "E101 missing.csv"),
        (["train", "quikstart"], "did you mean quickstart?"),
        (["check", "quickstart", "training.learning_rate=fast"], "E301"),
        (["check", "quickstart", "data.validation=missing.csv"], "E101 missing.csv"),
        (["train", "rows.csv", "data.colums.text=a"], "did you mean 'columns'?"),
        (["predict", "runs/none", "a text"], "no such folder"),
        (["evaluate", "runs/none"], "no such folder"),
    ],
)
def test_help_and_typing_errors_import_nothing_heavy(command: list[str], message: str, tmp_path: Path) -> None:
    imported, output = heavy_imports(command, tmp_path)
    assert imported == "[]" and message in output


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_misnamed_column_is_refused_before_torch_is_imported(ending: str, tmp_path: Path) -> None:
    imported, output = heavy_imports(["train", f"rows.{ending}", "data.columns.text=txt"], tmp_path)
    assert imported == "['numpy']"
    assert f"E202 data.columns.text: found 'txt', expected a column of rows.{ending}: 'text', 'label'" in output


def heavy_imports(command: list[str], folder: Path) -> tuple[str, str]:
    """The heavy modules that a command imports, and what it prints."""
    for ending, delimiter in (("csv", ","), ("tsv", "\t")):
        (folder / f"rows.{ending}").write_text("text,label\na,b\nc,d\n".replace(",", delimiter))
    code = (
        f"import sys; from fasttune.cli import run; run({command!r}); "
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_public_names_are_there() -> None:
    import fasttune

    assert {name for name in fasttune.__all__ if not callable(getattr(fasttune, name))} == set()
    assert set(fasttune.__all__) <= set(dir(fasttune))
