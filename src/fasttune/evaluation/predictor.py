"""A finished run, loaded for `predict`, `evaluate` and servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fasttune.data.holdout import Split
from fasttune.data.pipeline import encode, unknown_language
from fasttune.data.problems import counted
from fasttune.data.tokens.language import split_into_pieces
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import Problem, UsageError, shown
from fasttune.evaluation.exported import ExportedModel, exported_format, set_up_exported
from fasttune.evaluation.precision import precision_here, prepare_for_predictions
from fasttune.recipe import Overrides, Recipe, differences
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, open_run, read_json
from fasttune.tasks import Prediction, Rows, Task
from fasttune.tasks.metrics.sums import RowSums
from fasttune.training.run import Log
from fasttune.training.scoring import predict_split, score_split, with_intervals
from fasttune.training.setup import Setup, set_up, task_of_run

# Settings of how a finished run is used; all others belong to the trained model.
MAY_OVERRIDE = (
    "training.precision",
    "training.device",
    "training.tokens_per_microbatch",
    "data.fix_spans",
    "data.encoding",
    "data.header",
    "data.max_bytes",
    "data.sheet",
    "data.total_row",
    "data.no_label",
    "data.drop_empty",
    "preprocessing.doc_stride",
    "preprocessing.word_boundaries",
    "evaluation.n_best_size",
    "evaluation.max_answer_length",
    "evaluation.null_score_diff_threshold",
    "data.columns.ROLE",
)

ROWS_AT_ONCE = 10_000  # bounds the memory of predictions, whatever the size of a file
COLUMN, LABEL_NAMES = "data.columns.", "data.label_names"


def _may_override(name: str, values: tuple[Any, Any]) -> bool:
    if name == "data.columns.text_pair":
        return None not in values  # a model for single texts cannot read pairs, nor the reverse
    return name in MAY_OVERRIDE or name.startswith(COLUMN)


@dataclass
class Tally:
    """Texts that were predicted, and those of them that were truncated."""

    num_rows: int = 0
    num_cut: int = 0


@dataclass
class Predictor:
    """A loaded run or export; `fasttune.load(RUN)` returns one. Threads may share it.

    `label_names`: labels of the run for labels of the file to score. `roles_named_now`: roles whose columns an override
    names. `log` takes notes and warnings.
    """

    folder: RunFolder
    recipe: Recipe
    task: Task
    setup: Setup
    label_names: Mapping[Any, Any] | None = None
    roles_named_now: frozenset[str] = frozenset()
    log: Log = field(default=lambda line: None, repr=False)
    # Truncation is state of the tokenizer, and the boundaries of a packed batch are state of the model.
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def precision(self) -> str:
        """fp32, bf16, fp16 or, for some exports, int8."""
        return self.setup.choices["precision"].value

    @property
    def weights(self) -> Path:
        """The file that answers: the weights, or the exported model."""
        return self.folder.path / exported_format(self.folder).file if self.is_export else self.folder.weights

    @property
    def is_export(self) -> bool:
        return self.folder.export.exists()

    @classmethod
    def open(
        cls,
        path: str | Path,
        overrides: Overrides = (),
        log: Log | None = None,
        maps_labels: bool = False,
        fastest: bool = False,
    ) -> Predictor:
        """Load the run at `path`; `overrides` replace its settings of precision, device, memory and column names.

        `fastest`: if training chose the precision by itself, answer in the one that is fastest on this CPU.
        `maps_labels`: `data.label_names` among them maps labels of the file to score to labels of the run.
        """
        folder = open_run(path)
        saved = load_recipe(folder.recipe)
        recipe = load_recipe(saved, overrides)
        changed = differences(saved, recipe)
        label_names: Mapping[Any, Any] | None = None
        if maps_labels and LABEL_NAMES in changed:
            given = recipe.data.label_names
            if not isinstance(given, Mapping):
                expected = "a table from labels of the file to labels of the run"
                raise UsageError(Problem(where=LABEL_NAMES, found=shown(given), expected=expected))
            label_names = given
            recipe = load_recipe(recipe, {"data": {"label_names": saved.data.label_names}})
            del changed[LABEL_NAMES]
        fixed = [name for name, values in changed.items() if not _may_override(name, values)]
        if fixed:
            raise UsageError(
                Problem(
                    where=", ".join(fixed),
                    found=f"a finished run cannot change this setting, only {', '.join(MAY_OVERRIDE)}",
                    hint="training.precision=fp32",
                )
            )
        task = task_of_run(folder, recipe)
        if folder.export.exists():
            setup = set_up_exported(folder, recipe, task, exported_format(folder))
        else:
            other = None
            if "training.precision" not in changed:
                other = precision_here(folder, recipe, task, fastest)
            if other is not None:
                recipe = load_recipe(recipe, {"training": {"precision": other.value}})
                if log is not None:
                    log(f"precision {other.value}: {other.reason}")
            setup = set_up(recipe, str(folder.path), task)
            prepare_for_predictions(setup)
        named = frozenset(name.removeprefix(COLUMN) for name in changed if name.startswith(COLUMN))
        predictor = cls(folder, recipe, task, setup, label_names, named)
        predictor.log = log or predictor.log
        return predictor

    def warm_up(self) -> None:
        """Make the first predictions as fast as later ones; takes a second or two for an export to OpenVINO."""
        if isinstance(self.setup.model, ExportedModel):
            self.setup.model.warm_up()

    def predict(self, inputs: Any) -> list[Prediction]:
        """One prediction for each text, or pair of texts, in order: {"id", "label", "score", "probabilities"}.

        Ids count from 0.

        >>> fasttune.load("runs/quickstart").predict(["great food"])[0]["label"]  # doctest: +SKIP
        '5 stars'
        >>> fasttune.load("runs/mrpc").predict([("It rains.", "Rain falls.")])[0]["label"]  # doctest: +SKIP
        '1'
        """
        return list(self.predict_rows(self.task.rows_of(inputs), "texts"))

    def predict_rows(self, rows: Rows, where: str, tally: Tally | None = None) -> Iterator[Prediction]:
        """One prediction per row, in order, computed for ROWS_AT_ONCE rows at a time; `where` names them in errors.

        With a `tally`, which counts over several calls, truncated texts are not logged: see `log_truncated`.
        """
        counted_here = tally or Tally()
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = rows if len(rows) <= ROWS_AT_ONCE else rows.take(range(first, min(first + ROWS_AT_ONCE, len(rows))))
            with self.lock:
                store = self.task.encode(part, self.setup.tokenizer, self.setup.max_length, where)
                if not counted_here.num_rows:
                    self._warn_of_language(part, store, where)
                results = predict_split(self.setup, self.task, store).results
            counted_here.num_rows += len(part)
            counted_here.num_cut += len(np.unique(store.rows[store.num_tokens_cut > 0]))
            yield from self.task.decode(results, store, part)
        if tally is None:
            self.log_truncated(counted_here, where)

    def log_truncated(self, tally: Tally, where: str) -> None:
        if tally.num_cut:
            texts = f"{tally.num_cut:,} of {counted(tally.num_rows, 'text')}"
            self.log(f"{where}: {texts} truncated to {self.setup.max_length} tokens")

    def _warn_of_language(self, rows: Rows, store: TokenStore, where: str) -> None:
        unknown = unknown_language(store, self.setup.tokenizer)
        if not unknown and not self._was_warned_of_language:
            unknown = split_into_pieces(self.task.input_texts(rows), self.setup.tokenizer)
        if unknown:
            self.log(f"warning: {where}: {unknown}; do not rely on these predictions")

    @cached_property
    def _was_warned_of_language(self) -> bool:
        """Whether training warned of the same: the run was made for texts like these."""
        path = self.folder.data_report
        warnings = read_json(path).get("warnings", []) if path.exists() else []
        return any(warning["code"] == "W267" for warning in warnings)

    def score(self, split: Split) -> dict[str, float]:
        """Score a labelled split; metrics are named eval_..., the ends of their 95 % intervals ..._low and ..._high."""
        return self.scored(split)[0]

    def scored(self, split: Split) -> tuple[dict[str, float], RowSums | None]:
        """`score`, and what each row adds to the metrics."""
        with self.lock:
            store = encode(split, self.task, self.setup.tokenizer, self.setup.max_length)
            scored = score_split(self.setup, self.task, split, store)
        for remark in self.task.remarks(scored.results, store, split.where):
            self.log(remark)
        sums = self.task.row_sums(scored.results, store, split.rows)
        return with_intervals(scored.metrics, sums), sums
