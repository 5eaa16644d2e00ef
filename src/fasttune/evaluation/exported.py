"""An exported model that answers in place of the weights: ONNX Runtime or OpenVINO behind the interface of a model."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel

from fasttune.data.batching.collate import Padding
from fasttune.errors import EnvironmentProblem, Problem
from fasttune.parallel.launcher import make_accelerator
from fasttune.recipe import Recipe
from fasttune.runs.folder import RunFolder, read_json
from fasttune.tasks import Task
from fasttune.training.model import load_tokenizer
from fasttune.training.precision import Choice
from fasttune.training.setup import Setup, choose_max_length

TOKENS_AT_ONCE = 2_048  # of a batch, padding included; larger batches leave the CPU's caches
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Format:
    """A format to export to.

    `file`: its place in the folder, where Hugging Face's libraries look for it. `packages`: what making it needs;
    the first of them runs it. `is_exact`: whether it computes in fp32, as the weights do. `most_rows`: sequences in
    one call (None: any number), whose width is rounded up to a multiple of `width_of`.
    """

    name: str
    file: str
    packages: tuple[str, ...]
    is_exact: bool
    most_rows: int | None = None
    width_of: int = 1

    @property
    def runs_in_openvino(self) -> bool:
        return self.packages[0] == "openvino"


_ONNX = ("onnxruntime", "onnx", "onnxscript")
# OpenVINO compiles a graph for each shape that it sees, which takes 10 ms, so it is to see few. More than four rows in
# one call are no faster.
_FEW_SHAPES = {"most_rows": 4, "width_of": 32}
_INT8_XML = "openvino/openvino_model_qint8_quantized.xml"
FORMATS = {
    one.name: one
    for one in (
        Format("onnx", "onnx/model.onnx", _ONNX, is_exact=True),
        # One row: the range of a layer's inputs would be taken from all rows of a call, and change the answers.
        Format("onnx-int8", "onnx/model_quantized.onnx", _ONNX, is_exact=False, most_rows=1),
        Format("openvino", "openvino/openvino_model.xml", ("openvino",), is_exact=True, **_FEW_SHAPES),
        Format("openvino-int8", _INT8_XML, ("openvino", "nncf"), is_exact=False, **_FEW_SHAPES),
    )
}


def require(packages: tuple[str, ...], where: str) -> None:
    """EnvironmentProblem if one of these packages is not installed."""
    missing = [name for name in packages if not _is_there(name)]
    if missing:
        found = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise EnvironmentProblem(
            Problem(where=where, found=found, hint=f"pip install {' '.join(packages)}", code="E550")
        )


def is_installed(format: Format) -> bool:
    return all(map(_is_there, format.packages))


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def import_openvino() -> Any:
    """OpenVINO without the package through which it and nncf report to their maker when they are imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class ExportedModel(torch.nn.Module):
    """Calls a runtime as if it were the model; inputs and outputs are tensors on the CPU.

    `inputs`: names and order of what the graph takes. A batch is [B, S], padded on the right as `padding` says.
    """

    def __init__(self, path: Path, format: Format, padding: Padding):
        super().__init__()
        self.format, self.padding = format, padding
        self.inputs, self.run = (_openvino if format.runs_in_openvino else _onnxruntime)(path)

    def forward(self, **given: torch.Tensor) -> dict[str, torch.Tensor]:
        like = given["input_ids"]
        feed = {name: given.get(name, torch.zeros_like(like)).numpy() for name in self.inputs}
        outputs = self.run(feed) if self.format.most_rows is None else self._in_chunks(feed, self.format.most_rows)
        return {name: torch.from_numpy(np.array(values, dtype=np.float32)) for name, values in outputs.items()}

    def _in_chunks(self, feed: Mapping[str, np.ndarray], most_rows: int) -> dict[str, np.ndarray]:
        """Run a few rows of about the same length at a time; outputs per token have zeros at padding."""
        batch, width = feed["input_ids"].shape
        lengths = feed["attention_mask"].sum(axis=1)
        outputs: dict[str, np.ndarray] = {}
        left = np.argsort(-lengths, kind="stable")
        while len(left):
            number = 1 << (min(len(left), most_rows).bit_length() - 1)  # a power of two
            rows, left = left[:number], left[number:]
            longest = int(lengths[rows[0]])
            chunk = {name: self._widened(name, values[rows, :longest]) for name, values in feed.items()}
            for name, values in self.run(chunk).items():
                is_per_token = values.ndim == 3 or name.endswith("_logits")
                shape = (batch, width, *values.shape[2:]) if is_per_token else (batch, *values.shape[1:])
                whole = outputs.setdefault(name, np.zeros(shape, dtype=np.float32))
                if is_per_token:
                    whole[rows, :longest] = values[:, :longest]
                else:
                    whole[rows] = values
        return outputs

    def _widened(self, name: str, values: np.ndarray) -> np.ndarray:
        """[B, S] with S rounded up to `width_of`, but not beyond what the model takes."""
        longest, unit = values.shape[1], self.format.width_of
        more = max(min(-(-longest // unit) * unit, self.padding.most) - longest, 0)
        filling = self.padding.token_id if name == "input_ids" else 0
        return np.pad(values, ((0, 0), (0, more)), constant_values=filling)

    def warm_up(self) -> None:
        """Run all shapes that a format with few of them has, so that no request waits while its shape is compiled."""
        if self.format.width_of == 1:
            return
        rows = 1
        while rows <= (self.format.most_rows or 1):
            for width in range(
                self.format.width_of, min(self.padding.most, TOKENS_AT_ONCE // rows) + 1, self.format.width_of
            ):
                self.run({name: np.full((rows, width), int(name != "token_type_ids")) for name in self.inputs})
            rows *= 2


def _onnxruntime(path: Path) -> tuple[list[str], Run]:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = [given.name for given in session.get_inputs()]
    return inputs, lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def _openvino(path: Path) -> tuple[list[str], Run]:
    openvino = import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # by default OpenVINO computes in bf16 where the CPU can
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]
    request = compiled.create_infer_request()

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = request.infer(feed)
        return {name: found[at] for at, name in enumerate(names)}

    return [given.get_any_name() for given in compiled.inputs], run


def exported_format(folder: RunFolder) -> Format:
    """The format that answers: the fastest of those in the folder when they were made."""
    return FORMATS[read_json(folder.export)["format"]]


def set_up_exported(folder: RunFolder, recipe: Recipe, task: Task, format: Format) -> Setup:
    """A `Setup` whose model is the exported one. EnvironmentProblem without its runtime, or for another device."""
    require(format.packages[:1], f"export {folder.path}")
    if recipe.training.device not in ("auto", "cpu"):
        found = f"training.device={recipe.training.device}, but an export runs on the CPU"
        raise EnvironmentProblem(Problem(where=f"export {folder.path}", found=found, hint="use the run itself"))
    name = str(folder.path)
    tokenizer = load_tokenizer(name, task.needs_offsets)
    max_length = choose_max_length(recipe, name, tokenizer, task.default_max_length)
    length = int(max_length.value)
    padding = Padding(token_id=tokenizer.pad_token_id or 0, most=length)
    model = ExportedModel(folder.path / format.file, format, padding)
    tokenizer.model_input_names = [one for one in tokenizer.model_input_names if one in model.inputs]
    return Setup(
        model=cast(PreTrainedModel, model),  # it is called as one
        tokenizer=tokenizer,
        accelerator=make_accelerator("cpu", "fp32"),
        choices={
            "model": Choice(name, f"exported as {format.name}"),
            "device": Choice("cpu", "exports run on the CPU"),
            "precision": Choice("fp32" if format.is_exact else "int8", f"exported as {format.name}"),
            "max_length": max_length,
        },
        max_length=length,
        tokens_per_microbatch=TOKENS_AT_ONCE,
        padded=True,
        padding=padding,
    )
