"""One training run as a record: what was prepared for it, and how far it has come."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from accelerate.utils.memory import clear_device_cache

from fasttune.data.pipeline import Splits
from fasttune.data.reading import TRAIN
from fasttune.data.tokens.store import TokenStore
from fasttune.recipe import Recipe
from fasttune.runs.checkpoint import Checkpoint
from fasttune.runs.folder import RunFolder, read_json
from fasttune.runs.mirror import Mirror
from fasttune.tasks.text_classification import TEACHER
from fasttune.training.loop import Replan, TrainState, keep_plan
from fasttune.training.setup import Setup

if TYPE_CHECKING:
    from fasttune.training.frozen import KeptStates

MAX_TIME = "max_time"  # the name of the choice in environment.json
Log = Callable[[str], None]  # takes one line for the person who watches the run


@dataclass
class TrainingRun:
    """`prepare` makes it, `Trainer` trains it, `finalize` ends it.

    `recipe` is resolved: no field is left to choose. `stores` holds the tokens of each split by name. `used_rows` are
    the rows of the word embeddings that the training examples use, None if all rows are trained. `checkpoint` is the
    one to resume from. `kept_states`: the output of the frozen layers, which took `kept_seconds` to compute.
    `scores_test`: whether to score the test rows at the end. `replan`: see `Loop`.
    """

    recipe: Recipe
    folder: RunFolder
    run_id: str
    splits: Splits
    stores: dict[str, TokenStore]
    setup: Setup
    log: Log
    used_rows: np.ndarray | None = None
    state: TrainState = field(default_factory=TrainState)
    checkpoint: Checkpoint | None = None
    kept_states: KeptStates | None = None
    kept_seconds: float = 0.0
    scores_test: bool = True
    replan: Replan = keep_plan

    @property
    def metric(self) -> str:
        """The key in an evaluation's metrics that decides which weights are best."""
        return f"eval_{self.recipe.evaluation.metric_for_best_model or self.splits.task.primary_metric}"

    @property
    def parallel(self) -> str:
        """How processes share the model; one of the names in training/wrapping.py."""
        return self.setup.choices["parallel"].value

    @property
    def num_examples(self) -> int:
        """Training examples per epoch."""
        return self.splits.num_training_examples(self.stores[TRAIN])

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.recipe.training.batch_size)

    def epoch_at(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 6)

    @property
    def training_examples(self) -> str:
        """A digest of everything that training reads."""
        tokens = self.stores[TRAIN].fingerprint
        if TEACHER in self.setup.choices:
            tokens += f"-{self.setup.choices[TEACHER].reason}"
        return tokens if self.splits.stream is None else f"{self.splits.stream.files.fingerprint}-{tokens}"

    @property
    def has_time_limit(self) -> bool:
        """Whether the run was planned to end within training.max_time, which has become a number of steps."""
        if MAX_TIME in self.setup.choices:
            return True
        environment = self.folder.environment  # of a run that was resumed
        return environment.exists() and MAX_TIME in read_json(environment)

    @property
    def resumed_step(self) -> int | None:
        return self.state.step if self.checkpoint else None

    @cached_property
    def mirror(self) -> Mirror | None:
        address = self.recipe.output.mirror
        return Mirror(address, self.folder) if address is not None else None

    def close(self) -> None:
        """Free the device's memory."""
        del self.setup
        gc.collect()  # the model and its hooks refer to each other
        clear_device_cache()
