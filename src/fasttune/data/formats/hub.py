"""Datasets of the Hugging Face hub: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`, each with `NAME@REVISION`.

Read through datasets.load_dataset, which runs no code of the dataset, keeps to HF_HUB_OFFLINE and uses its cache. What
goes wrong there (no network, no such dataset, no access, no such config) becomes one problem with the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fasttune.errors import DataError, Problem, nearest, require_safe, shown

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?(:[^:/\s]+){0,2}", re.ASCII)
MESSAGE_CHARACTERS = 200
PLAIN_KINDS = ("parquet", "csv", "json", "arrow", "text", "cache")  # of builders; others decode pictures or pickles
CONFIGS = re.compile(r"(?:Available|available configs): (\[[^\]]*\])")

_commits: dict[str, str] = {}  # NAME or NAME@REVISION -> the commit at which this process reads it


def is_hub_id(spec: str) -> bool:
    return bool(HUB_ID.fullmatch(spec)) and not spec.startswith((".", "-"))


def parse(spec: str) -> tuple[str, str | None, str]:
    """`spec` -> name, config, split."""
    name, *rest = spec.split(":")
    if len(rest) == 2:
        return name, rest[0], rest[1]
    return name, None, rest[0] if rest else ""


def load(name: str, config: str | None, spec: str) -> Any:
    """All splits of a dataset, as a DatasetDict."""
    import datasets

    _builder(name, config, spec)  # the files that were looked at are the ones that are read
    return _asked(datasets.load_dataset, _at_commit(name), config, spec)


def _at_commit(name: str) -> str:
    return f"{name.partition('@')[0]}@{_commits[name]}" if name in _commits else name


def pinned(spec: str) -> str:
    """The same place with the commit that was read, NAME@SHA:CONFIG:SPLIT; files, folders and addresses as they are."""
    name, colon, rest = spec.partition(":")
    return _at_commit(name) + colon + rest


def files(name: str, config: str | None, spec: str) -> dict[str, list[str]]:
    """Split -> the addresses of its files, nothing of them read."""
    found = _builder(name, config, spec).config.data_files or {}
    return {str(split): [str(file) for file in names] for split, names in found.items()}


def _builder(name: str, config: str | None, spec: str) -> Any:
    """What would read a dataset of the hub; DataError where that is not plain files of its own repository.

    The card of a repository may name any address or path of this machine as its data, and `datasets` would open them.
    """
    require_safe("fsspec")
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    repository = name.partition("@")[0]
    expected = "the id of a dataset on the hub"
    if repository in _PACKAGED_DATASETS_MODULES:
        found = f"{repository!r}, which `datasets` takes for a kind of files, not for a dataset"
        raise DataError(Problem(code="E141", where=spec, found=found, expected=expected, hint="the path of the files"))
    if Path(repository).exists():
        found, hint = f"a folder of this machine named {repository!r}", f"{repository}:SPLIT for its own files"
        raise DataError(Problem(code="E141", where=spec, found=found, expected=expected, hint=hint))
    builder = _asked(datasets.load_dataset_builder, _at_commit(name), config, spec)
    kind = type(builder).__module__.rpartition("datasets.packaged_modules.")[2].partition(".")[0]
    if kind not in PLAIN_KINDS:
        found = f"a data set that `datasets` reads as {kind}"
        expected = f"files of one of the kinds {', '.join(PLAIN_KINDS[:-1])}"
        raise DataError(Problem(code="E141", where=spec, found=found, expected=expected))
    for file in _files_of(builder):
        if not is_of(file, repository):
            expected = f"files of the repository {repository} alone"
            raise DataError(Problem(code="E141", where=spec, found=f"data at {shown(file)}", expected=expected))
    commits = (file.partition("@")[2].partition("/")[0] for file in _files_of(builder))
    if commit := next(commits, None):  # none: the files are in the cache already
        _commits[name] = commit
    return builder


def _files_of(builder: Any) -> list[str]:
    return [str(file) for files in (builder.config.data_files or {}).values() for file in files]


def is_of(file: str, repository: str) -> bool:
    """Whether the address is that of a file which the hub keeps in this repository."""
    return file.startswith(f"hf://datasets/{repository}@") and ".." not in file.split("/") and "::" not in file


def _asked(function: Callable[..., Any], name: str, config: str | None, spec: str) -> Any:
    repository, _, revision = name.partition("@")
    try:
        return function(repository, config, revision=revision or None)
    except Exception as error:  # the library raises many types here, few of them its own
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
            found="no such file here, no such dataset in the cache, and HF_HUB_OFFLINE is set",
            expected="a file, a folder or the id of a dataset on the hub",
            hint="for a file give its path; for the hub unset HF_HUB_OFFLINE once, the cache keeps the dataset",
        )
    if "gated" in message.lower() or "GatedRepoError" in kinds:
        return Problem(
            code="E133",
            where=spec,
            found="a gated dataset, without access to it",
            expected="a dataset that may be read",
            hint=f"ask for access at https://huggingface.co/datasets/{name}, and put your token into HF_TOKEN",
        )
    if "LocalEntryNotFoundError" in kinds or any(isinstance(cause, (ConnectionError, TimeoutError)) for cause in chain):
        return Problem(
            code="E132",
            where=spec,
            found=f"no such file here, and the hub cannot be reached ({message})",
            expected="a file, a folder or the id of a dataset on the hub",
            hint="for a file give its path; for the hub check the network and HF_ENDPOINT",
        )
    if isinstance(error, FileNotFoundError):
        return Problem(
            code="E130",
            where=spec,
            found="no such file here, and no such dataset on the hub (or a private one)",
            expected="a file, a folder or the id of a dataset on the hub",
            hint="look the id up at https://huggingface.co/datasets; a private one needs your token in HF_TOKEN",
        )
    if "scripts are no longer supported" in message or "loading script" in message:
        own = parse(spec)
        copy = ":".join(filter(None, (f"{own[0].partition('@')[0]}@refs/convert/parquet", own[1], own[2])))
        return Problem(
            code="E135",
            where=spec,
            found="a data set that is a script",
            expected="data in files; code of a data set is never run",
            hint=f"{copy}, where the hub has made a copy in Parquet, or a copy by somebody else",
        )
    if "onfig" in message:
        return _config_problem(str(error), name, spec)
    return Problem(code="E135", where=spec, found=message, expected="a dataset that load_dataset can read")


def _config_problem(message: str, name: str, spec: str) -> Problem:
    """The library lists the configs in its message, which is the only place they are said."""
    listed = CONFIGS.search(message)
    configs = re.findall(r"'([^']*)'", listed.group(1)) if listed else []
    wanted = parse(spec)[1]
    best = (nearest(wanted, configs) if wanted else None) or (configs[0] if configs else "CONFIG")
    return Problem(
        code="E134",
        where=spec,
        found=f"no config {wanted!r}" if wanted else "no config named, where the dataset has several",
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
