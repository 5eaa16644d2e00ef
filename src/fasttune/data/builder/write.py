"""A data set that was built -> a folder of Parquet files with a card, and the hub."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fasttune import __version__
from fasttune.data.formats.files import write_parquet
from fasttune.errors import EnvironmentProblem, Problem, UsageError
from fasttune.runs.folder import write_text

if TYPE_CHECKING:
    from fasttune.data.builder.making import Built
from fasttune.security.text import markdown

MOST_LABELS = 50  # that the card counts


def write(built: Built, folder: Path) -> None:
    """data/SPLIT-00000-of-00001.parquet and README.md; UsageError where the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "a folder that is not empty" if folder.is_dir() else "a file"
        raise UsageError(Problem(where=str(folder), found=found, expected="a new folder", hint="--output OTHER"))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in built.splits.items():
        write_parquet(rows, folder / "data" / f"{name}-00000-of-00001.parquet")
    write_text(folder / "README.md", card(built))


def card(built: Built) -> str:
    """What people and the hub read: metadata, description, where the rows are from, what was done, counts."""
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
        lines += ["No licence was named: ask its author before you use or pass it on.", ""]
    lines += [
        "| split | rows |",
        "|---|---|",
        *(f"| {name} | {rows.num_rows:,} |" for name, rows in built.splits.items()),
    ]
    lines += ["", *_labels(built), "## How it was made", "", *(f"- {markdown(step)}" for step in built.steps), ""]
    lines += [
        "| read from | sha256 |",
        "|---|---|",
        *(f"| {markdown(name)} | `{digest}` |" for name, digest in built.sources.items()),
    ]
    return "\n".join([*lines, "", f"Written by fasttune {__version__}.", ""])


def _labels(built: Built) -> list[str]:
    label = built.definition.label
    if any(label not in rows.column_names for rows in built.splits.values()):
        return []
    counts = {name: Counter(str(value) for value in rows[label]) for name, rows in built.splits.items()}
    names = sorted({name for own in counts.values() for name in own})
    if len(names) > MOST_LABELS:
        return []
    rows = [f"| {markdown(name)} | {' | '.join(f'{own[name]:,}' for own in counts.values())} |" for name in names]
    return [f"| label | {' | '.join(counts)} |", "|---" * (len(counts) + 1) + "|", *rows, ""]


def push(folder: Path, repository: str) -> str:
    """Upload a written folder as the data set `repository` of the hub; returns its address. The token is HF_TOKEN's."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=str(folder))
    except Exception as error:  # the library's own, those of its HTTP client, and of the disk
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentProblem(
            Problem(
                code="E511",
                where=f"data set {repository} of the hub",
                found=message,
                expected="a name such as user/reviews, a network, and a token in HF_TOKEN that may write",
            )
        ) from None
    return f"{api.endpoint}/datasets/{repository}"
