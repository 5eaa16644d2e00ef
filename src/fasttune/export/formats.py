"""Makes one file per format, with the exporters of transformers and the runtimes' own tools for int8."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from fasttune.data.quiet import quiet_transformers
from fasttune.errors import EnvironmentProblem, Problem
from fasttune.evaluation.exported import Format, import_openvino

LARGEST_ONNX = 2_000_000_000  # bytes; a file of protobuf cannot be larger
Inputs = Mapping[str, torch.Tensor]


def write(model: PreTrainedModel, format: Format, rows: Sequence[Inputs], path: Path) -> None:
    """Write `model` to `path`. `rows`: inputs of real rows, [B, S]; int8 takes the ranges of numbers from them.

    EnvironmentProblem if the model cannot be exported.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    try:
        with _quiet():
            if format.runs_in_openvino:
                _write_openvino(model, rows, path, is_int8=not format.is_exact)
            else:
                _write_onnx(model, rows[0], path, format.name, is_int8=not format.is_exact)
    except EnvironmentProblem:
        raise
    except Exception as error:  # torch.export, onnx and OpenVINO raise errors of many kinds
        lines = str(error).strip().splitlines() or [""]
        found = f"{model.config.model_type} could not be converted: {type(error).__name__}: {lines[0][:200]}"
        raise EnvironmentProblem(Problem(where=f"export to {format.name}", found=found, code="E551")) from error


def _write_onnx(model: PreTrainedModel, inputs: Inputs, path: Path, name: str, is_int8: bool) -> None:
    import onnx_ir
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    # Weights of 7 bits: with 8, the products of CPUs without VNNI overflow (onnxruntime#6004).
    int8 = OnnxRuntimeDynamicConfig(per_channel=True, reduce_range=True)
    config = OnnxConfig(dynamic=True, quantizer=OnnxRuntimeQuantizer(int8) if is_int8 else None)
    program = OnnxExporter().export(model, dict(inputs), config=config).program
    size = sum(value.const_value.nbytes for value in program.graph.initializers.values() if value.const_value)
    if size > LARGEST_ONNX:
        found = f"{size / 1e9:.1f} GB, and a file of ONNX holds at most {LARGEST_ONNX / 1e9:.0f} GB"
        raise EnvironmentProblem(Problem(where=f"export to {name}", found=found, hint="--format openvino", code="E551"))
    onnx_ir.save(program, path)  # in one file, as browsers need it


def _write_openvino(model: PreTrainedModel, rows: Sequence[Inputs], path: Path, is_int8: bool) -> None:
    openvino = import_openvino()
    from transformers.exporters import NNCFOpenVINOQuantizer, OpenVINOConfig, OpenVINOExporter

    # The ranges of numbers inside the model come from real rows, so they are the same for every batch.
    quantizer = NNCFOpenVINOQuantizer(calibration_dataset=[dict(row) for row in rows]) if is_int8 else None
    config = OpenVINOConfig(dynamic=True, quantizer=quantizer)
    program = OpenVINOExporter().export(model, dict(rows[0]), config=config).program
    openvino.save_model(program, path, compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars, notes and warnings of the exporters; what matters is verified afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet_transformers(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
