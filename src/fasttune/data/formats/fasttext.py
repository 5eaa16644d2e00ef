"""Read fastText's files: one text per line, with its labels as words that begin with __label__."""

from __future__ import annotations

from itertools import islice

from fasttune.data.formats.storage import ReadOptions
from fasttune.data.formats.text_file import FileRows, lines_of, read_text
from fasttune.data.problems import Problems
from fasttune.errors import Problem, shown

PREFIX = "__label__"
FASTTEXT_SUFFIXES = (".ft",)
LINES_LOOKED_AT = 1000
RECOGNISED_SHARE = 0.95


def looks_like_fasttext(text: str) -> bool:
    """Whether nearly all lines begin with a label."""
    lines = [line for line in islice(lines_of(text), LINES_LOOKED_AT) if line.strip()]
    labelled = sum(line.lstrip().startswith(PREFIX) for line in lines)
    return labelled >= RECOGNISED_SHARE * len(lines) > 0


def read_fasttext(name: str, suffix: str, reading: ReadOptions) -> FileRows:
    """One row per line: its text, and its label or, if any line has several, its list of labels."""
    import pyarrow as pa

    file = read_text(name, reading)
    texts, labels, numbers, problems = [], list[list[str]](), list[int](), Problems(name)
    for number, line in enumerate(lines_of(file.text), start=1):
        words = line.split()
        if not words:
            continue
        found = [word.removeprefix(PREFIX).rstrip(",") for word in words if word.startswith(PREFIX)]
        if "" in found:
            problems.add(Problem(code="E211", where=f"{name} line {number}", found=f"{PREFIX} without a name"))
        texts.append(" ".join(word for word in words if not word.startswith(PREFIX)) if found else line.strip())
        labels.append(found)
        numbers.append(number)
    problems.raise_if_any()
    is_single = all(len(found) <= 1 for found in labels)
    cells = (
        pa.array([found[0] if found else None for found in labels], pa.string())
        if is_single
        else pa.array(labels, pa.list_(pa.string()))
    )
    notes = (*file.notes, f"{name}: labels are the words that begin with {shown(PREFIX)}, as in fastText")
    return FileRows(pa.table({"text": pa.array(texts, pa.string()), "label": cells}), numbers, file.sha256, notes)
