"""Find the data files in a folder, and their splits by file name."""

from __future__ import annotations

import re
from pathlib import Path

from fasttune.data.formats.files import is_data_file
from fasttune.data.formats.storage import inner_name, suffix_of
from fasttune.data.formats.text_folders import SPLIT_WORDS
from fasttune.errors import Problem
from fasttune.recipe import yaml_text

# File names that people and `datasets` use: train.csv, reviews-train.jsonl, dev_2.tsv, test-00000-of-00002.parquet.
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # in names such as dev-00000-of-2.csv, TestData.csv
CARD = "README.md"
HEAD_OF_CARD = re.compile(r"---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
LONGEST_CARD = 1 << 16  # characters
DATA_FOLDER = "data"  # where hub repositories keep their files


def data_files(path: Path) -> list[str]:
    """Return the data files in a folder or, if it has none, in its `data` folder; hidden files are ignored."""
    for folder in (path, path / DATA_FOLDER):
        if folder.is_dir():
            files = sorted(str(child) for child in folder.iterdir() if child.is_file() and _is_wanted(child.name))
            if files:
                return files
    return []


def _is_wanted(name: str) -> bool:
    return is_data_file(name) and not name.startswith(".")


def splits_of(files: list[str]) -> dict[str, list[str]]:
    """Map each split to its files by the words in their names; files that name no split, or two, are left out.

    `train_noisy.csv` beside `train.csv` is left out too, because it is a different set.
    """
    splits: dict[str, list[str]] = {}
    exact: dict[str, list[str]] = {}  # files named after the split alone, or with a part number
    for name in files:
        file = Path(inner_name(name)).name
        words = {word.lower() for word in WORDS.findall(file.removesuffix(suffix_of(file)))}
        named = [split for split, known in SPLIT_WORDS.items() if not words.isdisjoint(known)]
        if len(named) == 1:
            splits.setdefault(named[0], []).append(name)
            if words - {"of"} <= set(SPLIT_WORDS[named[0]]):
                exact.setdefault(named[0], []).append(name)
    return splits | exact


def folder_problem(files: list[str], spec: str) -> Problem:
    kinds = {suffix_of(name): name for name in files}
    pattern = f"{Path(files[0]).parent}/*{suffix_of(files[0])}" if files else ""
    found = "a folder without data files"
    splits = splits_of(files)
    if splits and "train" not in splits:
        found, pattern = f"a folder with files for {' and '.join(splits)} but none for train", ""
    elif len(kinds) > 1:
        found = f"a folder with data files of several kinds ({', '.join(kinds)})"
    elif files:
        found = "a folder"
    return Problem(
        code="E102",
        where=spec,
        found=found,
        expected="a file, a glob, a folder with files of one kind or of splits, or a folder written by save_to_disk",
        hint=f"pass the files: '{pattern}'" if pattern else "",
    )


def licence_of(path: Path) -> str | None:
    """Return the licence in a folder's dataset card; empty if the card names none, None if there is no card."""
    try:
        with (path / CARD).open(encoding="utf-8") as file:
            head = HEAD_OF_CARD.match(file.read(LONGEST_CARD))
    except (OSError, UnicodeDecodeError):
        return None
    facts = (
        yaml_text.read(head.group(1), CARD)[0] if head else None
    )  # it refuses aliases, which could expand without limit
    if not isinstance(facts, dict):
        return None
    named = facts.get("license") or []
    return ", ".join(map(str, named if isinstance(named, list) else [named]))
