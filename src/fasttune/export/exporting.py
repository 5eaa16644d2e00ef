"""Exports a run: makes the formats, verifies and times each, and keeps those that are close enough."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fasttune.data.batching.collate import collate
from fasttune.data.holdout import Split
from fasttune.data.reading import TRAIN
from fasttune.errors import EnvironmentProblem, Error, Problem, UsageError
from fasttune.evaluation.exported import FORMATS, Format, is_installed, require, set_up_exported
from fasttune.evaluation.own_split import read_own_split
from fasttune.evaluation.predictor import Predictor
from fasttune.export import formats
from fasttune.export.verify import Answers, ComparedRows, Difference, Speed, encoded
from fasttune.recipe import dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.runs.folder import RunFolder, write_json, write_text
from fasttune.security.paths import STAGED
from fasttune.training.environment import versions
from fasttune.training.flops import cpu_name
from fasttune.training.mean_head import MEAN_HEAD
from fasttune.training.model import checksums, load_model
from fasttune.training.precision import fast_precision
from fasttune.training.run import Log

FASTEST = "fastest"
MOST_ROWS = 1_000  # that are compared
CALIBRATION_ROWS = 300  # whose numbers give int8 its ranges; the default of nncf
MOST_LOST = 1.0  # points of the score
MOST_DIFFERENT = 1e-3  # of a probability; in fp32 only the order of sums differs
WORTH = 1.05  # times as fast as the weights; less is noise
SEED = 42
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
FROM_THE_RUN = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "spm.model", "special_tokens_map.json"),
    *("recipe.yaml", "calibration.json", "data_report.json", "environment.json", "README.md"),
)


@dataclass(frozen=True)
class Exported:
    """A format that was made. `size`: bytes. `score`: the metric on the compared rows."""

    format: str
    size: int
    score: float
    difference: Difference
    speed: Speed


@dataclass(frozen=True)
class Export:
    """The outcome: `folder` is None if the weights themselves are the fastest.

    `formats` are those kept, the fastest first; `refused` maps the others to the reason. `weights`: the speed of the
    run's own weights by precision, and `score` theirs in fp32.
    """

    folder: Path | None
    split: str
    num_rows: int
    metric: str
    score: float
    weights_size: int
    weights: dict[str, Speed]
    formats: list[Exported]
    refused: dict[str, str]

    @property
    def fastest(self) -> str:
        """Of all formats and precisions of the weights, by rows per second."""
        speeds = {name: speed.rows_per_second for name, speed in self.weights.items()}
        speeds |= {one.format: one.speed.rows_per_second for one in self.formats}
        return max(speeds, key=lambda name: speeds[name])

    def as_json(self) -> dict[str, Any]:
        made = [
            {
                "format": one.format,
                "size_bytes": one.size,
                "score": one.score,
                "lost_points": one.difference.points,
                "agreement": one.difference.agreement,
                "largest_difference": one.difference.largest,
                **asdict(one.speed),
            }
            for one in self.formats
        ]
        return {
            "folder": None if self.folder is None else str(self.folder),
            "format": self.formats[0].format if self.formats else None,
            "fastest": self.fastest,
            "verdict": self.verdict,
            "compared_on": {"split": self.split, "num_rows": self.num_rows, "metric": self.metric},
            "weights": {
                "size_bytes": self.weights_size,
                "score": self.score,
                "speed": {precision: asdict(speed) for precision, speed in self.weights.items()},
            },
            "formats": made,
            "refused": self.refused,
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "versions": versions(("fasttune", "torch", "transformers", *PACKAGES)),
        }

    @property
    def verdict(self) -> list[str]:
        """Whether each format pays on this CPU, beside the faster precision of the weights."""
        own = max(self.weights, key=lambda precision: self.weights[precision].rows_per_second)
        weights, sentences = self.weights[own], []
        for one in self.formats:
            many = one.speed.rows_per_second / weights.rows_per_second
            alone = weights.milliseconds_per_row / one.speed.milliseconds_per_row
            paid = [words for gain, words in ((many, "many rows"), (alone, "single rows")) if gain >= WORTH]
            verdict = f"pays for {' and for '.join(paid)}" if paid else "does not pay"
            sentences.append(
                f"{one.format} {verdict} on this CPU: {many:.1f}x as many rows per second as the weights in {own}, "
                f"{alone:.1f}x as fast for one row alone"
            )
        return sentences


def make_export(
    predictor: Predictor, asked: Sequence[str], output: Path, split: Split, most_lost: float, log: Log
) -> Export:
    """Export the run of `predictor`, opened in fp32, to the folder `output`; `split`: rows with labels to compare on.

    `asked`: names of FORMATS, or FASTEST, which makes all whose packages are installed and keeps the fastest.
    EnvironmentProblem for a format that loses more than `most_lost` points, unless others are left.
    """
    chosen = _chosen(asked)
    rows = ComparedRows(predictor, _sample(split, MOST_ROWS))
    log(f"comparing on {len(rows.split.rows):,} {split.name} rows")
    answers = rows.answers(predictor.setup, predictor.task)
    speeds = {"fp32": rows.speed(predictor.setup)}
    fast = fast_precision("cpu").value
    if fast != "fp32":
        other = Predictor.open(predictor.folder.path, {"training": {"precision": fast, "device": "cpu"}})
        speeds[fast] = rows.speed(other.setup)
    inputs = _inputs(predictor, split)
    staged = output.with_name(f".{output.name}{STAGED}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        for name in FROM_THE_RUN:
            if (predictor.folder.path / name).exists():
                shutil.copyfile(predictor.folder.path / name, staged / name)
        write_text(RunFolder(staged).recipe, dump(load_recipe(predictor.recipe, {"training": {"device": "cpu"}})))
        made: list[Exported] = []
        problems: list[Problem] = []
        for format in chosen:
            log(f"exporting to {format.name}")
            try:
                one = _exported(predictor, format, RunFolder(staged), inputs, rows, answers)
                _check_difference(one, format, rows, answers, most_lost)
                made.append(one)
            except EnvironmentProblem as error:
                _remove(staged, format)
                problems += error.problems
                log(f"warning: {format.name} refused: {error.problems[0].found}")
        made.sort(key=lambda one: -one.speed.rows_per_second)
        found = Export(
            folder=output,
            split=split.name,
            num_rows=len(rows.split.rows),
            metric=rows.metric,
            score=answers.score,
            weights_size=predictor.folder.weights.stat().st_size,
            weights=speeds,
            formats=made,
            refused={problem.where.removeprefix("export to "): problem.found for problem in problems},
        )
        if not made:
            raise EnvironmentProblem(*problems)
        return _kept(found, staged, FASTEST in asked)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _kept(found: Export, staged: Path, only_fastest: bool) -> Export:
    """Move the staged folder to its place; with `only_fastest`, with one format, and only if it beats the weights."""
    assert found.folder is not None
    kept = found
    if only_fastest:
        if found.fastest != found.formats[0].format:
            return replace(found, folder=None)
        kept = replace(found, formats=found.formats[:1])
        for one in found.formats[1:]:
            _remove(staged, FORMATS[one.format])
    about = {name: value for name, value in kept.as_json().items() if name != "folder"}
    write_json(RunFolder(staged).export, about)
    write_json(RunFolder(staged).checksums, checksums(staged))
    staged.rename(found.folder)
    return found


def _chosen(asked: Sequence[str]) -> list[Format]:
    unknown = [name for name in asked if name not in (*FORMATS, FASTEST)]
    if unknown or not asked:
        expected = f"one of {', '.join((*FORMATS, FASTEST))}"
        raise UsageError(Problem(where="--format", found=repr(unknown[0] if unknown else ""), expected=expected))
    formats_asked = [FORMATS[name] for name in dict.fromkeys(asked) if name != FASTEST]
    if FASTEST in asked:
        formats_asked = [format for format in FORMATS.values() if is_installed(format)] or list(FORMATS.values())[:1]
    for format in formats_asked:
        require(format.packages, f"export to {format.name}")
    return formats_asked


def _sample(split: Split, number: int) -> Split:
    if len(split.rows) <= number:
        return split
    chosen = np.sort(np.random.default_rng(SEED).choice(len(split.rows), number, replace=False))
    return replace(split, rows=split.rows.take(chosen.tolist()))


def _inputs(predictor: Predictor, split: Split) -> list[dict[str, torch.Tensor]]:
    """The model's inputs for training rows, one by one; before them a batch of two, to trace the graph with.

    (torch.export takes an axis of 1 for one that is always 1.)
    """
    try:
        train = read_own_split(predictor, TRAIN)
    except Error:  # gone, of another machine, or a stream
        train = split
    sample = _sample(train, CALIBRATION_ROWS)
    store = encoded(predictor, sample, range(len(sample.rows)))

    def batch(examples: list[int]) -> dict[str, torch.Tensor]:
        given = collate(store, np.array(examples), predictor.setup.padding).inputs
        names = predictor.setup.tokenizer.model_input_names
        return {name: given.get(name, torch.zeros_like(given["input_ids"])) for name in names}

    return [batch([0, 0]), *(batch([example]) for example in range(len(store)))]


def _exported(
    predictor: Predictor,
    format: Format,
    folder: RunFolder,
    inputs: list[dict[str, torch.Tensor]],
    rows: ComparedRows,
    answers: Answers,
) -> Exported:
    auto_class = MEAN_HEAD if predictor.recipe.model_head == MEAN_HEAD else predictor.task.auto_class
    model = load_model(str(predictor.folder.path), auto_class, predictor.task.state(), SEED).model
    path = folder.path / format.file
    formats.write(model, format, inputs, path)
    setup = set_up_exported(folder, predictor.recipe, predictor.task, format)
    own = rows.answers(setup, predictor.task)
    size = sum(one.stat().st_size for one in _files(folder.path, format))
    return Exported(format.name, size, own.score, rows.difference(answers, own), rows.speed(setup))


def _files(folder: Path, format: Format) -> list[Path]:
    path = folder / format.file
    return [path, path.with_suffix(".bin")] if format.runs_in_openvino else [path]


def _remove(folder: Path, format: Format) -> None:
    for path in _files(folder, format):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it holds another format, or was not made
        (folder / format.file).parent.rmdir()


def _check_difference(one: Exported, format: Format, rows: ComparedRows, weights: Answers, most_lost: float) -> None:
    """EnvironmentProblem if an export is too far from the weights."""
    found = ""
    if format.is_exact and one.difference.largest > MOST_DIFFERENT:
        found = f"a number differs by {one.difference.largest:.2g} from the weights, more than {MOST_DIFFERENT:g}"
        hint = "serve the run itself"
    elif one.difference.points > most_lost:
        change = "rises" if rows.metric in LESS_IS_BETTER else "falls"
        found = (
            f"{rows.metric} {change} from {weights.score:.4g} to {one.score:.4g} on {len(rows.split.rows):,} rows, "
            f"{one.difference.points:.1f} points, and {most_lost:g} are allowed"
        )
        hint = f"--most-lost {one.difference.points + 1:.0f} accepts more, or serve the run itself"
    if found:
        raise EnvironmentProblem(Problem(where=f"export to {format.name}", found=found, hint=hint, code="E552"))
