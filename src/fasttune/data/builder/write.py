"""Write a built dataset as Parquet files with a dataset card, and upload it to the hub."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fasttune import __version__
from fasttune.data.formats.files import write_parquet
from fasttune.errors import Problem, UsageError
from fasttune.runs import hub
from fasttune.runs.folder import write_text

if TYPE_CHECKING:
    from fasttune.data.builder.making import Built
from fasttune.security.text import markdown

MOST_LABELS = 50  # the card has no table of more labels than this


def write(built: Built, folder: Path) -> None:
    """Write data/SPLIT-00000-of-00001.parquet and README.md; UsageError if the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "a folder that is not empty" if folder.is_dir() else "a file"
        raise UsageError(
            Problem(where=str(folder), found=found, expected="a new or empty folder", hint="--output OTHER")
        )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in built.splits.items():
        write_parquet(rows, folder / "data" / f"{name}-00000-of-00001.parquet")
    write_text(folder / "README.md", card(built))


def card(built: Built) -> str:
    """Return the dataset card: metadata for the hub, description, counts, how it was built, sources."""
    definition = built.definition
    facts = {
        "license": definition.licence,
        "language": definition.language,
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"data/{name}-*"} for name in built.splits],
            }
        ],
    }
    head = yaml.safe_dump({name: value for name, value in facts.items() if value}, sort_keys=False, allow_unicode=True)
    lines = ["---", head.rstrip(), "---", "", f"# {definition.dataset} {definition.version}", ""]
    if definition.description:
        lines += [definition.description, ""]
    if definition.licence is None:
        lines += ["No licence is specified: ask the author before you use or share this dataset.", ""]
    lines += [
        "| split | rows |",
        "|---|---|",
        *(f"| {name} | {rows.num_rows:,} |" for name, rows in built.splits.items()),
    ]
    lines += ["", *_labels(built), "## How it was built", "", *(f"- {markdown(step)}" for step in built.steps), ""]
    lines += [
        "| source | sha256 |",
        "|---|---|",
        *(f"| {markdown(name)} | `{digest}` |" for name, digest in built.sources.items()),
    ]
    return "\n".join([*lines, "", f"Written by fasttune {__version__}.", ""])


def _labels(built: Built) -> list[str]:
    label = built.definition.label
    if any(label not in rows.column_names for rows in built.splits.values()):
        return []
    counts = {name: Counter(str(value) for value in rows[label]) for name, rows in built.splits.items()}
    names = sorted({name for split_counts in counts.values() for name in split_counts})
    if len(names) > MOST_LABELS:
        return []
    rows = []
    for name in names:
        numbers = [f"{split_counts[name]:,}" for split_counts in counts.values()]
        rows.append(f"| {markdown(name)} | {' | '.join(numbers)} |")
    return [f"| label | {' | '.join(counts)} |", "|---" * (len(counts) + 1) + "|", *rows, ""]


def push(folder: Path, repository: str) -> str:
    """Upload a written folder to the hub with the token in HF_TOKEN, and return the address of the dataset."""
    files = hub.files_of(folder, ["**/*"])
    return hub.upload(files, repository, kind="dataset", is_public=True, message="Upload by fasttune")
