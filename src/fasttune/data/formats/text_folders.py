"""Read folders of text files: one folder per class, as IMDB is unpacked, or brat's .txt files with their .ann files.

`train/pos/0_9.txt` is a text of class pos. The folders of the classes lie in the folder itself or in one folder per
split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttune.data.formats.storage import ReadOptions, read_bytes
from fasttune.data.formats.text_file import FileRows, text_of
from fasttune.data.problems import Problems, counted, some_of
from fasttune.errors import DataError, Problem, shown

TEXT_SUFFIXES = (".txt", ".text", "")
UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")  # IMDB's texts without a class
ANNOTATIONS = ".ann"
# Names of splits, of files and of folders.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
BRAT_ENTITY = re.compile(r"T\d+\t(\S+) (\d+) (\d+)((?:;\d+ \d+)*)\t")


@dataclass(frozen=True)
class TextFolder:
    """A folder whose text files are the rows. `files`: each with its class, or None if an .ann file is beside it."""

    files: tuple[tuple[Path, str | None], ...]
    note: str


def text_folder(folder: Path) -> TextFolder | None:
    """The texts in a folder; None if it has neither .ann files nor at least two folders of text files."""
    annotated = sorted(path.with_suffix(".txt") for path in folder.glob(f"*{ANNOTATIONS}"))
    if annotated:
        note = f"{folder}: {counted(len(annotated), 'text')} with entities in .ann files, as brat writes them"
        alone = [path.name for path in sorted(folder.glob("*.txt")) if path not in annotated]
        if alone:
            note += f"; left out {some_of(alone)} without such a file"
        return TextFolder(tuple((path, None) for path in annotated), note)
    folders = [child for child in sorted(folder.iterdir()) if _is_visible_folder(child)]
    classes = {child.name: _texts(child) for child in folders}
    if any(name.lower() in names for name in classes for names in SPLIT_WORDS.values()):
        return None  # splits of texts without classes
    left_out = [name for name, files in classes.items() if name.lower() in UNLABELLED and files]
    classes = {name: files for name, files in classes.items() if files and name not in left_out}
    if len(classes) < 2 or any(len(files) < 2 for files in classes.values()):
        return None
    note = f"{folder}: one folder of text files per class ({', '.join(classes)})"
    if left_out:
        note += f"; left out {', '.join(left_out)}, which has no labels"
    used = {path for files in classes.values() for path in files}
    strays = [f"{name}/{path.name}" for name in classes for path in _files(folder / name) if path not in used]
    if strays:
        note += f"; left out {some_of(strays)}, which {'are no texts' if len(strays) > 1 else 'is no text'}"
    return TextFolder(tuple((path, name) for name, files in classes.items() for path in files), note)


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]


def _texts(folder: Path) -> list[Path]:
    """The texts of a class: .txt, or without an extension (or a number) as in 20 Newsgroups; none if few files are."""
    files = _files(folder)
    texts = [path for path in files if path.suffix.lower() in TEXT_SUFFIXES or path.suffix[1:].isdecimal()]
    return texts if 2 * len(texts) > len(files) else []


def read_text_folder(folder: TextFolder, where: str, reading: ReadOptions) -> FileRows:
    """One row per file: its name as `id`, its text, and its class as `label` or its entities as `spans`."""
    import pyarrow as pa

    problems = Problems(where)
    digest = hashlib.sha256()
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    num_parts = 0
    for path, label in folder.files:
        with problems.collected():
            text = _text(path, reading, digest.update)
            name = str(Path(*path.parts[-3:])) if label is not None else path.name
            if label is not None:
                rows.append({"id": name, "text": text, "label": label})
                continue
            annotations = _text(path.with_suffix(ANNOTATIONS), reading, digest.update)
            spans, in_parts = _brat_spans(annotations, text, str(path.with_suffix(ANNOTATIONS)))
            num_parts += in_parts
            rows.append({"id": name, "text": text, "spans": spans})
    problems.raise_if_any()
    if num_parts:
        notes.append(f"{where}: left out {counted(num_parts, 'entity in several parts')}, which no tags can express")
    return FileRows(pa.Table.from_pylist(rows), None, digest.hexdigest(), tuple(notes))


def _text(path: Path, reading: ReadOptions, digest: Callable[[bytes], None]) -> str:
    if not path.is_file():
        raise DataError(Problem(code="E101", where=str(path), found="no such file, but there is one with its entities"))
    data = read_bytes(str(path), reading)
    digest(f"{path.name}\0{len(data)}\0".encode() + data)
    return text_of(data, str(path), reading.encoding).text if data else ""


def _brat_spans(annotations: str, text: str, where: str) -> tuple[list[dict[str, Any]], int]:
    """The entities (lines T1, T2 ...) of an .ann file, and how many were left out because they are in several parts."""
    spans: list[dict[str, Any]] = []
    num_parts, problems = 0, Problems(where)
    for number, line in enumerate(annotations.splitlines(), start=1):
        if not line.startswith("T"):
            continue  # relations, events, attributes and notes
        match = BRAT_ENTITY.match(line)
        if match is None:
            expected = "T1, a tab, the type, start and end, a tab and the text"
            problems.add(Problem(code="E262", where=f"{where} line {number}", found=shown(line), expected=expected))
            continue
        label, start, end, more = match.groups()
        covered = line[match.end() :]
        if more:
            num_parts += 1
        elif _plain(text[int(start) : int(end)]) != _plain(covered):
            found = f"{shown(covered)} at {start} to {end}, where the text has {shown(text[int(start) : int(end)])}"
            hint = "save both files together: the text has changed since, or its line ends have"
            problems.add(Problem(code="E262", where=f"{where} line {number}", found=found, hint=hint))
        else:
            spans.append({"start": int(start), "end": int(end), "label": label})
    problems.raise_if_any()
    return spans, num_parts


def _plain(text: str) -> Sequence[str]:
    """brat writes a space for a line break within an entity."""
    return text.split()
