"""Datasets of the Hugging Face hub: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`, each with `NAME@REVISION`.

Reads through datasets.load_dataset, which runs no code of the dataset, respects HF_HUB_OFFLINE and uses its own cache.
Its errors (no network, no such dataset, no access, no such config) become a single problem with a remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fasttune.errors import DataError, Problem, nearest, require_safe, shown

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?(:[^:/\s]+){0,2}", re.ASCII)
MESSAGE_CHARACTERS = 200
PLAIN_KINDS = ("parquet", "csv", "json", "arrow", "text", "cache")  # of builders; others decode images or pickles
CONFIGS = re.compile(r"(?:Available|available configs): (\[[^\]]*\])")

_commits: dict[str, str] = {}  # NAME or NAME@REVISION -> the commit at which this process reads it


def is_hub_id(spec: str) -> bool:
    return bool(HUB_ID.fullmatch(spec)) and not spec.startswith((".", "-"))


def parse(spec: str) -> tuple[str, str | None, str]:
    """Split a spec into name, config and split."""
    name, *rest = spec.split(":")
    if len(rest) == 2:
        return name, rest[0], rest[1]
    return name, None, rest[0] if rest else ""


def load(name: str, config: str | None, spec: str) -> Any:
    """Load all splits of a dataset, as a DatasetDict."""
    import datasets

    _builder(name, config, spec)  # checks the files and pins the commit, so that the same files are read
    return _call(datasets.load_dataset, _at_commit(name), config, spec)


def _at_commit(name: str) -> str:
    return f"{name.partition('@')[0]}@{_commits[name]}" if name in _commits else name


def pinned(spec: str) -> str:
    """Add the commit that was read, NAME@SHA:CONFIG:SPLIT; other specs are returned unchanged."""
    name, colon, rest = spec.partition(":")
    return _at_commit(name) + colon + rest


def files(name: str, config: str | None, spec: str) -> dict[str, list[str]]:
    """Map each split to the addresses of its files, without reading them."""
    data_files = _builder(name, config, spec).config.data_files or {}
    return {str(split): [str(file) for file in names] for split, names in data_files.items()}


def _builder(name: str, config: str | None, spec: str) -> Any:
    """Return the builder of a hub dataset; DataError unless it reads plain files from the dataset's own repository.

    A dataset card can name any address or local path as its data, and `datasets` would open it.
    """
    require_safe("fsspec")
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    repository = name.partition("@")[0]
    expected = "the id of a dataset on the hub"
    if repository in _PACKAGED_DATASETS_MODULES:
        found = f"{repository!r}, which `datasets` treats as a file format"
        raise DataError(Problem(code="E141", where=spec, found=found, expected=expected, hint="pass the files"))
    if Path(repository).exists():
        found, hint = f"a local folder named {repository!r}", f"{repository}:SPLIT for the local files"
        raise DataError(Problem(code="E141", where=spec, found=found, expected=expected, hint=hint))
    builder = _call(datasets.load_dataset_builder, _at_commit(name), config, spec)
    kind = type(builder).__module__.rpartition("datasets.packaged_modules.")[2].partition(".")[0]
    if kind not in PLAIN_KINDS:
        found = f"a dataset that `datasets` reads as {kind}"
        expected = f"{', '.join(PLAIN_KINDS[:-2])} or {PLAIN_KINDS[-2]} files"
        raise DataError(Problem(code="E141", where=spec, found=found, expected=expected))
    for file in _files_of(builder):
        if not is_of(file, repository):
            expected = f"only files from the repository {repository}"
            raise DataError(Problem(code="E141", where=spec, found=f"data at {shown(file)}", expected=expected))
    commits = (file.partition("@")[2].partition("/")[0] for file in _files_of(builder))
    if commit := next(commits, None):  # None if the files are already in the cache
        _commits[name] = commit
    return builder


def _files_of(builder: Any) -> list[str]:
    return [str(file) for files in (builder.config.data_files or {}).values() for file in files]


def is_of(file: str, repository: str) -> bool:
    """Return whether the address is that of a file in this hub repository."""
    return file.startswith(f"hf://datasets/{repository}@") and ".." not in file.split("/") and "::" not in file


def _call(function: Callable[..., Any], name: str, config: str | None, spec: str) -> Any:
    repository, _, revision = name.partition("@")
    try:
        return function(repository, config, revision=revision or None)
    except Exception as error:  # the library raises many types here
        raise DataError(_problem(error, name, spec)) from None


def _problem(error: Exception, name: str, spec: str) -> Problem:
    import datasets

    message = (str(error).strip().splitlines() or [type(error).__name__])[0][:MESSAGE_CHARACTERS]
    chain = _chain(error)
    kinds = {type(cause).__name__ for cause in chain}
    offline = datasets.config.HF_HUB_OFFLINE
    if offline and isinstance(error, (ConnectionError, FileNotFoundError)):
        return Problem(
            code="E132",
            where=spec,
            found="no such local file and no such dataset in the cache, and HF_HUB_OFFLINE is set",
            hint="for a file, give its path; for a hub dataset, unset HF_HUB_OFFLINE once to download it to the cache",
        )
    if "gated" in message.lower() or "GatedRepoError" in kinds:
        return Problem(
            code="E133",
            where=spec,
            found="the dataset is gated, and you have no access to it",
            hint=f"request access at https://huggingface.co/datasets/{name}, and set HF_TOKEN to your token",
        )
    if "LocalEntryNotFoundError" in kinds or any(isinstance(cause, (ConnectionError, TimeoutError)) for cause in chain):
        return Problem(
            code="E132",
            where=spec,
            found=f"no such local file, and the hub cannot be reached ({message})",
            hint="for a file, give its path; for a hub dataset, check the network and HF_ENDPOINT",
        )
    if isinstance(error, FileNotFoundError):
        return Problem(
            code="E130",
            where=spec,
            found="no such local file, and no such dataset on the hub (unless it is private)",
            hint="look up the id at https://huggingface.co/datasets; for a private dataset, set HF_TOKEN to your token",
        )
    if "scripts are no longer supported" in message or "loading script" in message:
        repository, config, split = parse(spec)
        copy = ":".join(filter(None, (f"{repository.partition('@')[0]}@refs/convert/parquet", config, split)))
        return Problem(
            code="E135",
            where=spec,
            found="the dataset is defined by a script, and fasttune never runs a dataset's code",
            hint=f"{copy}, if the hub has a Parquet copy, or a copy that another user published as files",
        )
    if "onfig" in message:
        return _config_problem(str(error), name, spec)
    return Problem(code="E135", where=spec, found=f"load_dataset cannot read it: {message}")


def _config_problem(message: str, name: str, spec: str) -> Problem:
    """Suggest a config from the library's message, which is the only place that lists them."""
    listed = CONFIGS.search(message)
    configs = re.findall(r"'([^']*)'", listed.group(1)) if listed else []
    wanted = parse(spec)[1]
    best = (nearest(wanted, configs) if wanted else None) or (configs[0] if configs else "CONFIG")
    return Problem(
        code="E134",
        where=spec,
        found=f"no config {wanted!r}" if wanted else "no config, although the dataset has several",
        expected=f"one of {', '.join(configs)}" if configs else "a config of the dataset",
        hint=f"{name}:{best}:{parse(spec)[2] or 'train'}",
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
