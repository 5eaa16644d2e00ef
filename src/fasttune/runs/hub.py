"""The Hugging Face hub: uploads, and runs that are downloaded when one is opened by its name."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from fasttune.errors import EnvironmentProblem, Problem

NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?", re.ASCII)
# All that predictions need. Nothing else is uploaded or downloaded: no rows, and no file that could hold code.
EXPORTED = ("onnx/*.onnx", "openvino/*.xml", "openvino/*.bin")
FILES = (
    *("*.safetensors", "model.safetensors.index.json", "config.json", "calibration.json", "recipe.yaml", "README.md"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spm.model", "sentencepiece.bpe.model", "spiece.model"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
    *("checksums.json", "export.json", *EXPORTED),
)


def is_name(path: str | Path) -> bool:
    """Whether this is a name on the hub, USER/NAME or USER/NAME@REVISION, and no path on this machine."""
    text = Path(path).as_posix()
    return NAME.fullmatch(text) is not None and not Path(text.partition("/")[0]).exists()


@lru_cache
def downloaded(name: str) -> Path:
    """The folder of a run on the hub, downloaded if necessary; EnvironmentProblem if it cannot be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    match = NAME.fullmatch(name)
    assert match is not None, "is_name was asked first"
    disable_progress_bars()
    try:
        return Path(snapshot_download(match[1], revision=match[2], allow_patterns=list(FILES)))
    except Exception as error:  # of the library, its HTTP client or the disk
        hint = "check the name and the network; a private model needs HF_TOKEN in the environment"
        raise EnvironmentProblem(
            Problem(code="E519", where=f"hub model {name}", found=f"cannot download: {_line(error)}", hint=hint)
        ) from None


def upload(
    files: Mapping[str, Path | str], repository: str, *, is_public: bool, message: str, kind: str = "model"
) -> str:
    """Upload files (name -> path, or text) to a repository in one commit; returns its address.

    `kind`: model | dataset. A new repository is private unless `is_public`. The token comes from HF_TOKEN or the hub's
    own login.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    _link(content, path)
                else:
                    path.write_text(content, encoding="utf-8")
            api.create_repo(repository, repo_type=kind, private=not is_public, exist_ok=True)
            api.upload_folder(repo_id=repository, repo_type=kind, folder_path=folder, commit_message=message)
    except Exception as error:  # of the library, its HTTP client or the disk
        hint = "check the name (such as user/reviews), the network, and that the token in HF_TOKEN can write"
        raise EnvironmentProblem(
            Problem(code="E511", where=f"hub {kind} {repository}", found=f"cannot upload: {_line(error)}", hint=hint)
        ) from None
    return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repository}"


def files_of(folder: Path, patterns: Iterable[str] = FILES) -> dict[str, Path]:
    """The files of a folder that the hub is to have, by their names in it."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another disk
        shutil.copyfile(source, target)


def _line(error: Exception) -> str:
    """Its first line, and that of its cause: the library wraps errors of single files."""
    lines = [(str(one).strip().splitlines() or [type(one).__name__])[0] for one in (error, error.__cause__) if one]
    return ": ".join(line.rstrip(" .") for line in lines)
