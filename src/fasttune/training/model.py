"""Loads pretrained models and tokenizers, and saves plain Hugging Face models.

Reads weights from safetensors only, always as fp32, and never runs code from a model folder or the hub.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import FULL_TOKENIZER_FILE
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from fasttune.data.quiet import quiet_transformers
from fasttune.data.starter.model import EMBEDDED_MODEL, embedded_model_path
from fasttune.errors import EnvironmentProblem, Problem, require_safe
from fasttune.parallel.launcher import hide_launcher
from fasttune.runs.folder import sha256
from fasttune.security import model_folder
from fasttune.training.head import copy_rows
from fasttune.training.mean_head import (
    MEAN_HEAD,
    WEIGHTS,
    WithMeanHead,
    class_with_mean_head,
    load_dense,
    save_with_mean_head,
)

# Names of model families for the dropout on attention weights.
ATTENTION_DROPOUT_FIELDS = ("attention_probs_dropout_prob", "attention_dropout")
# RoBERTa and its relatives number positions from pad_token_id + 1.
NUMBERED_FROM_PADDING = (
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text"),
    *("longformer", "ibert", "xmod", "luke", "esm"),
)
# What transformers raises for files that are no model, by accident or on purpose.
NOT_A_MODEL = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ImportError,
    RuntimeError,  # and RecursionError
    MemoryError,
    SafetensorError,
    StrictDataclassError,
)
MODEL_FILES = ("calibration.json", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "spm.model")
EXPORTS = ("onnx", "openvino")  # folders of exported models
# Fields that a task adds to config.json only where they apply.
OF_ANOTHER_RUN = ("thresholds", "min_confidence", "label_values")
WORD_HEAD = "AutoModelForMaskedLM"  # whose head predicts words, not labels
# Stands for a missing maximum length.
NO_LIMIT = 10**6


def convert_line(name: str) -> str:
    """A shell command that converts a model's weights to safetensors, quoted for Python and for the shell."""
    classes = "from transformers import AutoModel as M, AutoTokenizer as T"
    code = f"{classes}; [C.from_pretrained({name!r}).save_pretrained('converted') for C in (M, T)]"
    return f"python -c {shlex.quote(code)}, then model=converted"


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn every error of transformers into EnvironmentProblem, with the first line of its message."""
    is_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
    try:
        if is_local and name != EMBEDDED_MODEL and not Path(name).expanduser().is_dir():
            raise FileNotFoundError("no such folder")
        yield
    except BaseException as error:
        if (
            not isinstance(error, NOT_A_MODEL) and type(error).__name__ != "PanicException"
        ):  # raised by libraries written in Rust
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        hint = "model=embedded needs no download; offline, use the path of a model folder"
        if isinstance(error, MemoryError | RecursionError):
            lines = [f"files that cannot be read ({type(error).__name__})"]
        if "trust_remote_code" in str(error):
            expected, code = (
                "a model that transformers implements; fasttune never runs code from a model folder",
                "E405",
            )
            hint = "a model of another family, such as model=google-bert/bert-base-uncased"
        elif any(library in str(error) for library in ("sentencepiece", "SentencePiece", "tiktoken")):
            expected, code = "the libraries that its vocabulary needs", "E401"
            hint = "pip install sentencepiece protobuf"
        elif isinstance(error, SafetensorError):
            expected, code = "an intact model.safetensors", "E404"
        elif "pytorch_model" in str(error) or "safetensors" in str(error):
            expected, code = (
                "weights in model.safetensors; fasttune never reads pickled weights, which can run any code",
                "E404",
            )
            if not is_local or any(Path(name).expanduser().glob("*.bin")):
                hint = f"if you trust their author: {convert_line(name)}"
        else:
            expected, code = "a folder with a Hugging Face model" if is_local else "a model on the hub", "E401"
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found=lines[0][:200].rstrip(" ."),
                expected=expected,
                hint=hint,
                code=code,
            )
        ) from error


@dataclass(frozen=True)
class ModelLocation:
    """Where a model is: a folder, or a repository on the hub at a revision."""

    path: str
    revision: str | None = None

    @property
    def on_the_hub(self) -> bool:
        return not Path(self.path).is_dir()


SNAPSHOTS = "snapshots"  # in the hub's cache: one folder per commit
_commits: dict[str, str] = {}  # repository -> the commit that this process read first


def locate_model(name: str) -> ModelLocation:
    """Resolve a recipe's `model`: `embedded`, a folder, or NAME[@REVISION] on the hub.

    A name on the hub stays at the commit from which its config.json was first read.
    """
    if name == EMBEDDED_MODEL:
        return ModelLocation(str(embedded_model_path()))
    path = str(Path(name).expanduser())
    if Path(path).exists():
        return ModelLocation(path)
    repository, _, revision = name.partition("@")
    return ModelLocation(repository if revision else path, _commits.get(name) or revision or None)


def pinned(name: str) -> str:
    """The name with the commit that was read, NAME@SHA; folders are unchanged."""
    return f"{name.partition('@')[0]}@{_commits[name]}" if name in _commits else name


def file_of(name: str, file: str) -> str | None:
    """The path of a model's file, downloaded if necessary; None if the model has no such file."""
    location = locate_model(name)
    return cached_file(location.path, file, revision=location.revision, _raise_exceptions_for_missing_entries=False)


def load_config(name: str) -> PreTrainedConfig:
    """The model's configuration; EnvironmentProblem if it is not an encoder that transformers implements."""
    require_safe("torch", "transformers", "safetensors")
    with _explained(name), quiet_transformers():
        _check_folder(name)
        location = locate_model(name)
        config = AutoConfig.from_pretrained(location.path, revision=location.revision, trust_remote_code=False)
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    if not is_encoder or getattr(config, "is_decoder", False):
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found=f"{config.model_type}, which is not an encoder",
                expected="an encoder such as BERT, DistilBERT, RoBERTa, ELECTRA, DeBERTa or ModernBERT",
                hint="model=embedded, or a hub id such as model=google-bert/bert-base-uncased",
                code="E402",
            )
        )
    return config


def _check_folder(name: str) -> None:
    """EnvironmentProblem if a file would make transformers fetch, import or allocate more than an encoder needs."""

    def refuse(found: str, expected: str, code: str, hint: str = "") -> None:
        raise EnvironmentProblem(Problem(where=f"model {name}", found=found, expected=expected, hint=hint, code=code))

    path = file_of(name, CONFIG_NAME)
    if path is not None:
        if (snapshot := Path(path).parent).parent.name == SNAPSHOTS:
            _commits.setdefault(name, snapshot.name)
        text = Path(path).read_text(encoding="utf-8")
        if fault := model_folder.config_fault(text):
            refuse(fault, "the sizes of an encoder", "E409")
        if foreign := model_folder.foreign_implementation(json.loads(text)):
            refuse(
                foreign,
                "a model that transformers implements itself",
                "E405",
                "remove the setting from config.json; quantised weights cannot be fine-tuned",
            )
    is_folder = not locate_model(name).on_the_hub
    if is_folder or importlib.util.find_spec("peft") is not None:
        adapter = file_of(name, model_folder.ADAPTER)
        if adapter is not None:
            refuse(
                f"an adapter ({model_folder.ADAPTER}) for another model",
                "a whole model",
                "E409",
                "merge it into its base model first (peft: merge_and_unload) and save the result",
            )


def load_tokenizer(name: str, needs_offsets: bool = False) -> PreTrainedTokenizerBase:
    """`needs_offsets`: the task maps tokens to characters or words, which needs a fast tokenizer."""
    with _explained(name), quiet_transformers():
        path = file_of(name, FULL_TOKENIZER_FILE)
        fault = model_folder.tokenizer_fault(Path(path)) if path else None
        if fault is not None:
            expected = "a tokenizer that does not multiply the length of texts"
            raise EnvironmentProblem(Problem(where=f"model {name}", found=fault, expected=expected, code="E409"))
        location = locate_model(name)
        tokenizer = AutoTokenizer.from_pretrained(location.path, revision=location.revision, trust_remote_code=False)
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # If the files are missing, transformers returns a tokenizer that has only special tokens.
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found="the tokenizer has no vocabulary",
                hint="copy tokenizer.json, or the vocabulary files, of the original model beside config.json",
                code="E403",
            )
        )
    if needs_offsets and not tokenizer.is_fast:
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found=f"{type(tokenizer).__name__} cannot map tokens to characters, which this task needs",
                hint="use a model with a fast tokenizer (tokenizer.json), such as model=FacebookAI/xlm-roberta-base",
                code="E403",
            )
        )
    return without_pipeline_settings(tokenizer)


def without_pipeline_settings(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Drop padding and truncation, which tokenizer.json may hold from its last call or from a pipeline."""
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def longest_input(config: PreTrainedConfig) -> int:
    """The maximum number of tokens that the model accepts, special tokens included."""
    positions = getattr(config, "max_position_embeddings", None) or NO_LIMIT
    offset = (config.pad_token_id or 0) + 1 if config.model_type in NUMBERED_FROM_PADDING else 0
    return positions - offset


@dataclass(frozen=True)
class Loaded:
    """`new_weights`: parameters that the pretrained model does not have, such as the head.

    `kept_labels`: those whose rows of the head the pretrained model has, if it lacks those of others.
    """

    model: PreTrainedModel
    new_weights: list[str]
    kept_labels: Sequence[str] = ()


def own_attention_dropout(config: PreTrainedConfig) -> float:
    """The attention dropout in the model's configuration."""
    return next((float(getattr(config, field)) for field in ATTENTION_DROPOUT_FIELDS if hasattr(config, field)), 0.0)


def load_model(
    name: str, auto_class: str, state: Mapping[str, Any], seed: int, attention_dropout: float | None = None
) -> Loaded:
    """Load encoder and head in fp32 on the CPU; a head that the folder does not have is initialised with `seed`.

    `auto_class`: a name of transformers, or MEAN_HEAD. `state`: the task's fields of config.json. `attention_dropout`:
    used in training instead of the model's value, which stays in config.json.
    """
    config = load_config(name)
    before, architectures = _labels_of(config), tuple(config.architectures or ())
    for field in OF_ANOTHER_RUN:  # a start model may be a run with other settings
        vars(config).pop(field, None)
    for field, value in state.items():
        setattr(config, field, value)
    dropouts = {field: getattr(config, field) for field in ATTENTION_DROPOUT_FIELDS if hasattr(config, field)}
    vars(config).pop("transformers_weights", None)  # names another file, which may be a pickle
    _check_index(name)
    location = locate_model(name)
    if attention_dropout is not None:
        for field in dropouts:
            setattr(config, field, attention_dropout)
    with _explained(name), quiet_transformers(), hide_launcher(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loader = class_with_mean_head(config) if auto_class == MEAN_HEAD else getattr(transformers, auto_class)
        model, info = loader.from_pretrained(
            location.path,
            revision=location.revision,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
        new_weights = {*info["missing_keys"], *mismatched}
        labels = _labels_of(config)
        kept: list[str] = []
        if auto_class == MEAN_HEAD:
            kept = load_dense(model, file_of(name, WEIGHTS), before, labels)
            if len(kept) == len(labels):
                new_weights -= {"dense.weight", "dense.bias"}
        elif auto_class != WORD_HEAD:
            new_weights, kept = _match_head(name, model, before, architectures, new_weights)
    # from_pretrained maps the file into memory: a later write to it would change the weights or kill this process.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    for field, value in dropouts.items():
        setattr(model.config, field, value)
    # It names code that is never run, so saved models must not name it either.
    vars(model.config).pop("auto_map", None)
    _check_encoder(name, model, sorted(new_weights))
    return Loaded(model, sorted(new_weights), kept if len(kept) < len(labels) else [])


def _labels_of(config: PreTrainedConfig) -> list[str]:
    labels: dict[Any, str] = dict(config.id2label or {})
    return [labels[number] for number in sorted(labels, key=int)]


def _match_head(
    name: str, model: PreTrainedModel, before: list[str], architectures: Sequence[str], new_weights: set[str]
) -> tuple[set[str], list[str]]:
    """Match a loaded head to the labels of `model.config`: all weights that are new, and the labels that are kept.

    transformers keeps a head if its shape fits, whatever its rows stand for. Here the rows of the labels `before` are
    kept by name, in the order of the new labels, and those of other labels are new. If the folder holds another kind of
    model (`architectures`), the last layer is new. A regression head has no label names to compare.
    """
    layers = [
        (layer, module)
        for layer, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not layer.startswith(f"{model.base_model_prefix}.")
    ]
    if not layers:
        return new_weights, []
    layer, last = layers[-1]
    parameters = {f"{layer}.{parameter}": tensor for parameter, tensor in last.named_parameters()}
    is_loaded = not parameters.keys() & new_weights
    now = _labels_of(model.config)
    is_same_kind = type(model).__name__ in architectures
    if is_loaded and is_same_kind and len(before) == len(now) == 1:
        return new_weights, now
    saved = None
    if is_same_kind and set(before) & set(now):
        clones = [tensor.detach().clone() for tensor in parameters.values()]
        saved = clones if is_loaded else _saved_tensors(name, list(parameters))
    if is_loaded and (saved is None or not set(now) <= set(before)):
        for tensor in parameters.values():
            vars(tensor).pop("_is_hf_initialized", None)  # transformers does not initialise tensors with this mark
        model._init_weights(last)
    kept = copy_rows(last, saved, before, now) if saved is not None else []
    return (new_weights - parameters.keys() if len(kept) == len(now) else new_weights | parameters.keys()), kept


def _saved_tensors(name: str, keys: Sequence[str]) -> list[torch.Tensor] | None:
    """Tensors as they are in the model's files; None if one of them is missing."""
    index = file_of(name, SAFE_WEIGHTS_INDEX_NAME)
    places = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"] if index else {}
    tensors = []
    for key in keys:
        path = file_of(name, places.get(key, SAFE_WEIGHTS_NAME))
        if path is None:
            return None
        with safe_open(path, "pt") as file:
            if key not in file.keys():  # noqa: SIM118  it is no dictionary
                return None
            tensors.append(file.get_tensor(key))
    return tensors


def _check_index(name: str) -> None:
    """Refuse an index that names anything but safetensors: transformers picks the reader by the file name."""
    with _explained(name), quiet_transformers():
        index = file_of(name, SAFE_WEIGHTS_INDEX_NAME)
        parts = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()) if index else set()
        for part in parts:
            if not str(part).endswith(".safetensors") or Path(part).name != part:
                raise ValueError(f"{SAFE_WEIGHTS_INDEX_NAME} names {part!r}, which is not a safetensors file beside it")


def _check_encoder(name: str, model: PreTrainedModel, new_weights: list[str]) -> None:
    """EnvironmentProblem if weights of the encoder itself are missing; only head and pooler may be new."""
    missing = [key for key in new_weights if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key]
    if missing:
        raise EnvironmentProblem(
            Problem(
                where=f"model {name}",
                found=f"the weights lack {len(missing)} tensors that config.json asks for, such as {missing[0]}",
                hint="use config.json and model.safetensors of the same model",
                code="E406",
            )
        )


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save a plain Hugging Face model; the weights are written last, so a folder with weights is complete."""
    staged = folder / ".model.staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    with quiet_transformers():
        if isinstance(model, WithMeanHead):
            save_with_mean_head(staged, model)
        else:
            model.save_pretrained(staged)
        without_pipeline_settings(tokenizer).save_pretrained(staged)
    files = (path for path in staged.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: (path.suffix == ".safetensors", path.parent == staged)):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        target = folder / path.relative_to(staged)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    shutil.rmtree(staged)


def checksums(folder: Path) -> dict[str, str]:
    """sha256 of the files that determine predictions, of a saved or an exported model."""
    names = sorted(path.name for path in folder.iterdir() if path.name in MODEL_FILES or path.suffix == ".safetensors")
    names += [WEIGHTS] if (folder / WEIGHTS).exists() else []
    names += sorted(f"{path.parent.name}/{path.name}" for room in EXPORTS for path in (folder / room).glob("*"))
    return {name: sha256(folder / name) for name in names}


def check_model(folder: Path, kept: Mapping[str, str]) -> None:
    """EnvironmentProblem if a file of a saved model has changed since."""
    now = checksums(folder)
    for name, expected in kept.items():
        if now.get(name) != expected:
            found = f"{name} has changed or is damaged" if name in now else f"{name} is missing"
            raise EnvironmentProblem(
                Problem(
                    where=f"run {folder}",
                    found=f"{found}, by checksums.json",
                    hint="copy the run again; if you changed the file on purpose, delete checksums.json",
                    code="E516",
                )
            )
