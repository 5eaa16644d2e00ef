"""The targets of text classification: one class, several labels, or a number per row.

Each kind encodes labels, and turns logits into losses, predictions and scores. Shapes: N rows, B sequences of a
micro-batch, K outputs of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.formats.text_file import Place
from fasttune.data.label_kinds import (
    MULTI,
    ORDINAL,
    REGRESSION,
    SINGLE,
    check_table,
    encode_label_sets,
    encode_numbers,
    parts_of,
)
from fasttune.data.label_matching import LABELS_SHOWN
from fasttune.data.labels import Vocabulary, encode_labels
from fasttune.data.problems import row_name, some_of
from fasttune.errors import Problem, RecipeError, shown
from fasttune.recipe import Recipe
from fasttune.tasks.base import chosen_metrics
from fasttune.tasks.metrics import classification, multilabel, regression, sums
from fasttune.tasks.metrics.calibration import Calibration, calibrate
from fasttune.tasks.metrics.sums import RowSums

if TYPE_CHECKING:
    import torch

MIN_ROWS_TO_JUDGE = 6  # fewer may be of one class for the model by chance
ROWS_OF_CLASS, ROWS_FOR_CLASSES = 10, 300  # fewer of a class say little; fewer in all are reported as such
MIN_ROWS_OF_STRATUM = 20  # a tenth of them is held out
Answer = dict[str, Any]  # a prediction without its id


class Target(ABC):
    """`metrics`: the metrics that `score` computes."""

    problem: ClassVar[str]
    """The value of `problem` in the recipe."""
    primary_metric: ClassVar[str]
    metrics: tuple[str, ...]

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Fields of config.json."""

    def settings(self) -> dict[str, Any]:
        """The settings inferred from the training labels, as fields of the recipe."""
        return {"problem": self.problem}

    def encoding(self) -> Any:
        """Everything that `encode` depends on besides the labels."""
        return self.problem

    @abstractmethod
    def encode(self, labels: Sequence[Any], where: str, place: Place = row_name) -> np.ndarray:
        """(N,) or (N, K): the labels of the data in the form of the loss; DataError for unknown labels."""

    @abstractmethod
    def strata(self, encoded: np.ndarray) -> np.ndarray:
        """(N,) int64: the stratum of each row; a held-out split gets the same share of each."""

    def strata_names(self) -> Sequence[str]:
        """The names of the strata, if they are classes."""
        return ()

    @abstractmethod
    def describe(self, encoded: np.ndarray) -> dict[str, Any]:
        """The section of data_report.json on the labels."""

    def weight(self, encoded: torch.Tensor) -> float:
        """The weight in their step of rows with these labels."""
        return float(len(encoded))

    @abstractmethod
    def loss(self, logits: torch.Tensor, encoded: torch.Tensor, training: bool) -> torch.Tensor:
        """The loss summed over rows; `logits` [B, K] fp32. `encoded` may also be probabilities [B, K]."""

    @abstractmethod
    def answers(self, logits: np.ndarray) -> Iterator[Answer]:
        """One prediction per row of `logits` (N, K)."""

    @abstractmethod
    def score(self, logits: np.ndarray, encoded: np.ndarray) -> dict[str, float]:
        """The metrics of `logits` (N, K)."""

    @abstractmethod
    def row_sums(self, logits: np.ndarray, encoded: np.ndarray) -> RowSums:
        """What the metrics of `logits` (N, K) are computed from."""

    @abstractmethod
    def row_losses(self, logits: np.ndarray, encoded: np.ndarray) -> np.ndarray:
        """(N,) how little each row's label fits its prediction: the negative log-likelihood, or the squared error."""

    def remarks(self, logits: np.ndarray, encoded: np.ndarray, where: str) -> Iterator[str]:
        """Lines to log about scored rows."""
        yield from ()

    def calibrated(self, logits: np.ndarray, encoded: np.ndarray) -> Target:
        """The target calibrated on validation rows after training."""
        return self

    def calibration(self, logits: np.ndarray, encoded: np.ndarray) -> Calibration | None:
        """The temperature that fits these rows; None for numbers, and for few rows."""
        return None

    def abstaining(self, logits: np.ndarray, encoded: np.ndarray, precision: float) -> Target | None:
        """The target that predicts only where it reaches `precision` on these rows; None if it reaches it nowhere."""
        return None


@lru_cache(maxsize=8)
def _on_device(weights: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """(K,) fp32. Kept, because a copy of numbers in ordinary memory waits for a GPU."""
    import torch

    with torch.inference_mode(False):  # a tensor of inference mode could not be used for training
        return torch.tensor(weights, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class SingleLabel(Target):
    """One of K classes. `class_weights`: the weight of a row of each class; None: all are equal.

    `temperature` divides the logits of probabilities that are shown; it changes no prediction and no loss. `threshold`:
    of two classes, the second is predicted from this probability on (of temperature 1), instead of the more probable
    one; with `tunes` validation rows set it. A prediction whose probability is below `min_confidence` is withheld.
    """

    vocabulary: Vocabulary
    metrics: tuple[str, ...]
    smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    temperature: float = 1.0
    threshold: float | None = None
    tunes: bool = False
    min_confidence: float = 0.0

    problem: ClassVar[str] = SINGLE
    primary_metric: ClassVar[str] = "accuracy"

    def state(self) -> dict[str, Any]:
        state = {**names_of(self.vocabulary), "problem_type": "single_label_classification"}
        if self.threshold is not None:
            state["thresholds"] = {self.vocabulary.names[1]: self.threshold}
        return state | ({"min_confidence": self.min_confidence} if self.min_confidence else {})

    def settings(self) -> dict[str, Any]:
        if self.class_weights is None:
            return super().settings()
        weights = dict(zip(self.vocabulary.names, self.class_weights, strict=True))
        return {**super().settings(), "training": {"class_weights": weights}}

    def strata_names(self) -> Sequence[str]:
        return self.vocabulary.names

    def encoding(self) -> Any:
        return [self.problem, self.vocabulary]

    def encode(self, labels: Sequence[Any], where: str, place: Place = row_name) -> np.ndarray:
        return np.array(encode_labels(labels, self.vocabulary, where, place), dtype=np.int64)

    def strata(self, encoded: np.ndarray) -> np.ndarray:
        return encoded

    def describe(self, encoded: np.ndarray) -> dict[str, Any]:
        counts = np.bincount(encoded, minlength=len(self.vocabulary.names))
        return dict(zip(self.vocabulary.names, counts.tolist(), strict=True))

    def weight(self, encoded: torch.Tensor) -> float:
        import torch

        if self.class_weights is None:
            return float(len(encoded))
        return float(torch.tensor(self.class_weights, dtype=torch.float64)[encoded.cpu()].sum())

    def loss(self, logits: torch.Tensor, encoded: torch.Tensor, training: bool) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        weights = None if self.class_weights is None else _on_device(self.class_weights, logits.device)
        smoothing = self.smoothing if training else 0.0
        return cross_entropy(logits, encoded, weights, reduction="sum", label_smoothing=smoothing)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(N, K), as shown."""
        return classification.softmax(logits.astype(np.float64) / self.temperature)

    def calibration(self, logits: np.ndarray, encoded: np.ndarray) -> Calibration | None:
        right = encoded[:, None] == np.arange(logits.shape[1])
        return calibrate(logits, right, classification.softmax, one_of=True)

    def calibrated(self, logits: np.ndarray, encoded: np.ndarray) -> SingleLabel:
        if not self.tunes or len(self.vocabulary.names) != 2:
            return self
        return replace(self, threshold=multilabel.chosen_threshold(classification.softmax(logits)[:, 1], encoded == 1))

    def abstaining(self, logits: np.ndarray, encoded: np.ndarray, precision: float) -> SingleLabel | None:
        found = classification.confidence_for(self._confidence(logits), self.classes(logits) == encoded, precision)
        return None if found is None else replace(self, min_confidence=found)

    def classes(self, logits: np.ndarray) -> np.ndarray:
        """(N,) the predicted classes, also of predictions that are withheld."""
        if self.threshold is None:
            return logits.argmax(axis=1)
        return (classification.softmax(logits)[:, 1] >= self.threshold).astype(np.int64)

    def _confidence(self, logits: np.ndarray) -> np.ndarray:
        """(N,) the shown probability of each prediction."""
        return self.probabilities(logits)[np.arange(len(logits)), self.classes(logits)]

    def answers(self, logits: np.ndarray) -> Iterator[Answer]:
        names = self.vocabulary.names
        for row, number in zip(self.probabilities(logits), self.classes(logits), strict=True):
            probabilities = dict(zip(names, map(float, row), strict=True))
            score = float(row[number])
            label = names[int(number)] if score >= self.min_confidence else None
            yield {"label": label, "score": score, "probabilities": probabilities}

    def score(self, logits: np.ndarray, encoded: np.ndarray) -> dict[str, float]:
        predicted = self.classes(logits)
        scores = classification.score(encoded, predicted, len(self.vocabulary.names), self.metrics)
        if self.min_confidence:
            given = self._confidence(logits) >= self.min_confidence
            scores["coverage"] = float(given.mean())
            scores["accuracy_where_given"] = float((predicted == encoded)[given].mean()) if given.any() else 0.0
        return scores

    def row_losses(self, logits: np.ndarray, encoded: np.ndarray) -> np.ndarray:
        from scipy.special import log_softmax

        likelihoods = log_softmax(logits.astype(np.float64) / self.temperature, axis=1)
        return np.asarray(-likelihoods[np.arange(len(logits)), encoded])

    def row_sums(self, logits: np.ndarray, encoded: np.ndarray) -> RowSums:
        return sums.of_classes(encoded, self.classes(logits), self.vocabulary.names, self.metrics)

    def remarks(self, logits: np.ndarray, encoded: np.ndarray, where: str) -> Iterator[str]:
        predicted, counts = np.unique(self.classes(logits)), np.bincount(encoded, minlength=logits.shape[1])
        if len(predicted) == 1 and np.count_nonzero(counts) > 1 and len(encoded) >= MIN_ROWS_TO_JUDGE:
            only = shown(self.vocabulary.names[predicted[0]])
            yield (
                f"warning: {where}: every prediction is {only}; the model does not "
                "tell the classes apart (try more steps, another training.learning_rate or "
                "training.class_weights=balanced)"
            )
        yield from lacking(counts, self.vocabulary.names, self.metrics, where)
        yield from small_classes(counts, self.vocabulary.names, where)


@dataclass(frozen=True)
class Ordinal(SingleLabel):
    """One of K ordered classes: a mistake by two classes counts more than by one.

    The loss adds the squared distance of the cumulative distributions to the cross-entropy (Hou et al., 2016: squared
    earth mover's distance). The median of the distribution is predicted, which has the least expected distance.
    """

    problem: ClassVar[str] = ORDINAL
    primary_metric: ClassVar[str] = "quadratic_kappa"

    def loss(self, logits: torch.Tensor, encoded: torch.Tensor, training: bool) -> torch.Tensor:
        from torch.nn.functional import one_hot

        truth = encoded if encoded.dim() == 2 else one_hot(encoded, logits.shape[1])
        distance = (logits.softmax(-1) - truth.to(logits.dtype)).cumsum(-1).square().sum()
        return super().loss(logits, encoded, training) + distance

    def classes(self, logits: np.ndarray) -> np.ndarray:
        return (classification.softmax(logits).cumsum(axis=1) >= 0.5 - 1e-12).argmax(axis=1)


@dataclass(frozen=True)
class MultiLabel(Target):
    """Any number of K labels. `thresholds` (K): a label is predicted if its probability reaches its threshold.

    With `tunes_per_label`, validation rows set one for each label, otherwise one for all.
    `separator` divides the labels of a cell if cells are texts and not lists. `temperature` divides the logits of
    probabilities that are shown, and those of the thresholds with them, so it changes no prediction and no loss.
    """

    vocabulary: Vocabulary
    metrics: tuple[str, ...]
    thresholds: tuple[float, ...]
    smoothing: float = 0.0
    separator: str | None = None
    temperature: float = 1.0
    tunes_per_label: bool = False

    problem: ClassVar[str] = MULTI
    primary_metric: ClassVar[str] = "f1_micro"

    def state(self) -> dict[str, Any]:
        thresholds = dict(zip(self.vocabulary.names, self.thresholds, strict=True))
        return {**names_of(self.vocabulary), "problem_type": "multi_label_classification", "thresholds": thresholds}

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        return found if self.separator is None else {**found, "data": {"label_separator": self.separator}}

    def encoding(self) -> Any:
        return [self.problem, self.vocabulary, self.separator]

    def encode(self, labels: Sequence[Any], where: str, place: Place = row_name) -> np.ndarray:
        return encode_label_sets([parts_of(cell, self.separator) for cell in labels], self.vocabulary, where, place)

    def strata(self, encoded: np.ndarray) -> np.ndarray:
        """The rarest label of each row, so that rare labels are held out too; rows without labels are a stratum."""
        frequency = encoded.sum(axis=0)
        rarest = np.where(encoded > 0, frequency, np.inf).argmin(axis=1)
        return np.where(encoded.any(axis=1), rarest, encoded.shape[1])

    def describe(self, encoded: np.ndarray) -> dict[str, Any]:
        counts = encoded.sum(axis=0).astype(int).tolist()
        return {**dict(zip(self.vocabulary.names, counts, strict=True)), "(none)": int((~encoded.any(axis=1)).sum())}

    def loss(self, logits: torch.Tensor, encoded: torch.Tensor, training: bool) -> torch.Tensor:
        """The mean over labels, as in transformers, summed over rows."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        targets = encoded.float()
        if training and self.smoothing:
            targets = targets * (1 - self.smoothing) + self.smoothing / 2
        return binary_cross_entropy_with_logits(logits, targets, reduction="sum") / logits.shape[1]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(N, K), as shown."""
        return multilabel.sigmoid(logits.astype(np.float64) / self.temperature)

    def calibration(self, logits: np.ndarray, encoded: np.ndarray) -> Calibration | None:
        return calibrate(logits, encoded > 0, multilabel.sigmoid, one_of=False)

    def _has(self, logits: np.ndarray) -> np.ndarray:
        """(N, K) bool: the labels that reach their thresholds, by the probabilities of temperature 1."""
        return multilabel.sigmoid(logits) >= np.array(self.thresholds)

    def answers(self, logits: np.ndarray) -> Iterator[Answer]:
        names = self.vocabulary.names
        for has, row in zip(self._has(logits), self.probabilities(logits), strict=True):
            given = [name for name, is_given in zip(names, has, strict=True) if is_given]
            yield {"labels": given, "probabilities": dict(zip(names, map(float, row), strict=True))}

    def score(self, logits: np.ndarray, encoded: np.ndarray) -> dict[str, float]:
        return multilabel.score(encoded, self._has(logits), self.metrics)

    def row_losses(self, logits: np.ndarray, encoded: np.ndarray) -> np.ndarray:
        from scipy.special import log_expit

        signed = np.where(encoded > 0, logits, -logits).astype(np.float64) / self.temperature
        return np.asarray(-log_expit(signed).sum(axis=1))

    def row_sums(self, logits: np.ndarray, encoded: np.ndarray) -> RowSums:
        return sums.of_labels(encoded > 0, self._has(logits), self.vocabulary.names, self.metrics)

    def remarks(self, logits: np.ndarray, encoded: np.ndarray, where: str) -> Iterator[str]:
        yield from lacking(encoded.sum(axis=0), self.vocabulary.names, self.metrics, where)
        yield from small_classes(encoded.sum(axis=0), self.vocabulary.names, where)

    def calibrated(self, logits: np.ndarray, encoded: np.ndarray) -> MultiLabel:
        thresholds = multilabel.best_thresholds(multilabel.sigmoid(logits), encoded > 0, self.tunes_per_label)
        return replace(self, thresholds=tuple(map(float, thresholds)))


@dataclass(frozen=True)
class Regression(Target):
    """A number. `bounds`: the minimum and maximum of a label."""

    metrics: tuple[str, ...]
    bounds: tuple[float, ...] | None = None

    problem: ClassVar[str] = REGRESSION
    primary_metric: ClassVar[str] = "pearson"

    def state(self) -> dict[str, Any]:
        return {"id2label": {0: "score"}, "label2id": {"score": 0}, "problem_type": "regression"}

    def encode(self, labels: Sequence[Any], where: str, place: Place = row_name) -> np.ndarray:
        return encode_numbers(labels, where, self.bounds, place)

    def strata(self, encoded: np.ndarray) -> np.ndarray:
        """The decile of each row, or fewer quantiles if a decile would have less than MIN_ROWS_OF_STRATUM rows."""
        num_strata = min(10, max(len(encoded) // MIN_ROWS_OF_STRATUM, 1))
        edges = np.quantile(encoded, np.linspace(0, 1, num_strata + 1)[1:-1])
        return np.searchsorted(edges, encoded)

    def describe(self, encoded: np.ndarray) -> dict[str, Any]:
        statistics = {"min": encoded.min(), "mean": encoded.mean(), "max": encoded.max(), "std": encoded.std()}
        return {name: round(float(value), 4) for name, value in statistics.items()}

    def loss(self, logits: torch.Tensor, encoded: torch.Tensor, training: bool) -> torch.Tensor:
        return (logits.squeeze(1) - encoded.float()).square().sum()

    def answers(self, logits: np.ndarray) -> Iterator[Answer]:
        for value in logits[:, 0]:
            yield {"score": float(value)}

    def score(self, logits: np.ndarray, encoded: np.ndarray) -> dict[str, float]:
        return regression.score(encoded, logits[:, 0].astype(np.float64), self.metrics)

    def row_losses(self, logits: np.ndarray, encoded: np.ndarray) -> np.ndarray:
        return np.square(logits[:, 0].astype(np.float64) - encoded)

    def row_sums(self, logits: np.ndarray, encoded: np.ndarray) -> RowSums:
        return sums.of_numbers(encoded.astype(np.float64), logits[:, 0].astype(np.float64), self.metrics)


def lacking(counts: np.ndarray, names: Sequence[str], metrics: Sequence[str], where: str) -> Iterator[str]:
    """A line on classes without rows, `counts` (K) of which are those of a scored split, if a mean includes them."""
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    means = [metric for metric in metrics if metric.endswith("_macro")]
    if absent and means:
        listed = some_of(list(map(shown, absent)), LABELS_SHOWN)
        yield f"{where}: no row has {listed}; each class without rows counts 0 in {', '.join(means)}"


def small_classes(counts: np.ndarray, names: Sequence[str], where: str) -> Iterator[str]:
    """A line on classes with too few rows to be scored; of fewer than ROWS_FOR_CLASSES rows, all have few."""
    few = [name for name, count in zip(names, counts, strict=True) if 0 < count < ROWS_OF_CLASS]
    if few and counts.sum() >= ROWS_FOR_CLASSES:
        listed = some_of(list(map(shown, few)), LABELS_SHOWN)
        yield f"{where}: fewer than {ROWS_OF_CLASS} rows have {listed}; scores of a class with so few rows say little"


def names_of(vocabulary: Vocabulary) -> dict[str, Any]:
    """Fields of config.json; with `label_values` if the data has other labels than the names."""
    named = {"id2label": dict(enumerate(vocabulary.names)), "label2id": vocabulary.by_name}
    return named if vocabulary.index == vocabulary.by_name else {**named, "label_values": vocabulary.index}


def balanced_weights(labels: Iterable[str], vocabulary: Vocabulary) -> dict[str, float]:
    """N / (K * rows of the class) by name, as in scikit-learn: every class has the same total weight."""
    counts = Counter(labels)
    index = vocabulary.index_for(counts)
    by_class = Counter[str]()
    for label, number in counts.items():
        by_class[vocabulary.names[index[label]]] += number
    return {name: counts.total() / (len(vocabulary.names) * max(by_class[name], 1)) for name in vocabulary.names}


def class_weights(
    recipe: Recipe, vocabulary: Vocabulary, labels: Iterable[str] | None = None
) -> tuple[float, ...] | None:
    """The class weights of the recipe, 1 for names that its table lacks; None if it has none.

    `balanced` weights need `labels`, those of the training rows; without them the result is None.
    """
    setting = recipe.training.class_weights
    table = balanced_weights(labels, vocabulary) if setting == "balanced" and labels is not None else setting
    if not isinstance(table, Mapping):
        return None
    check_table(table, vocabulary.names, "training.class_weights")
    return tuple(float(table.get(name, 1.0)) for name in vocabulary.names)


def saved_vocabulary(state: Mapping[str, Any], recipe: Recipe) -> Vocabulary:
    """The vocabulary of a saved run, from the fields of `names_of` in its config.json."""
    id2label = state["id2label"]
    names = tuple(id2label[key] for key in sorted(id2label, key=int))
    index = {name: position for position, name in enumerate(names)}
    if "label_values" in state:
        return Vocabulary(names, {str(value): int(number) for value, number in state["label_values"].items()})
    # fasttune 0.1.0 stored no label_values: use data.label_names of the recipe.
    given = recipe.data.label_names
    if isinstance(given, Mapping):
        index |= {value: names.index(name) for value, name in given.items()}
    elif given is not None:  # names win over numbers, as in training
        index = {str(number): number for number in range(len(names))} | index
    return Vocabulary(names, index)


def make_target(
    problem: str,
    vocabulary: Vocabulary | None,
    recipe: Recipe,
    separator: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    min_confidence: float = 0.0,
) -> Target:
    """The target of a new run or, with `thresholds` and `min_confidence` of its config.json, of a saved one.

    RecipeError for settings that do not apply to this problem.
    """
    smoothing = recipe.training.label_smoothing_factor
    if recipe.training.class_weights is not None and problem != SINGLE:
        found = f"class weights need single-label classification, and this is {problem}"
        raise _conflict("training.class_weights", found, "training.class_weights=null")
    if recipe.evaluation.tune_threshold and problem != SINGLE:
        where = "evaluation.tune_threshold"
        raise _conflict(where, f"it needs two classes without an order, and this is {problem}", f"{where}=false")
    if recipe.evaluation.min_precision is not None and problem not in (SINGLE, ORDINAL):
        where = "evaluation.min_precision"
        raise _conflict(where, f"it needs one label per text, and this is {problem}", f"{where}=null")
    if problem == REGRESSION or vocabulary is None:
        if smoothing:
            where = "training.label_smoothing_factor"
            raise _conflict(where, "a regression has no labels to smooth", f"{where}=0")
        metrics = chosen_metrics(recipe, Regression.primary_metric, regression.METRICS, regression.DEFAULT)
        bounds = recipe.data.label_range
        return Regression(metrics, tuple(bounds) if bounds is not None else None)
    if recipe.data.label_range is not None:
        found = f"a label range needs a regression, and this is {problem}"
        raise _conflict("data.label_range", found, "data.label_range=null")
    if problem == MULTI:
        metrics = chosen_metrics(recipe, MultiLabel.primary_metric, multilabel.METRICS, multilabel.DEFAULT)
        known = thresholds or {}
        cutoffs = tuple(known.get(name, multilabel.DEFAULT_THRESHOLD) for name in vocabulary.names)
        wanted = recipe.evaluation.metric_for_best_model or MultiLabel.primary_metric
        per_label = wanted in multilabel.PER_LABEL
        return MultiLabel(vocabulary, metrics, cutoffs, smoothing, separator, tunes_per_label=per_label)
    num_classes = len(vocabulary.names)
    kind = Ordinal if problem == ORDINAL else SingleLabel
    possible = [name for name in classification.METRICS if name != "f1" or num_classes == 2]
    default = ("accuracy", *classification.ORDERED) if kind is Ordinal else classification.default_metrics(num_classes)
    weights = class_weights(recipe, vocabulary)
    known = thresholds or {}
    if recipe.evaluation.tune_threshold and num_classes != 2:
        where = "evaluation.tune_threshold"
        raise _conflict(
            where, f"one threshold needs two classes, and these labels have {num_classes}", f"{where}=false"
        )
    return kind(
        vocabulary,
        chosen_metrics(recipe, kind.primary_metric, possible, default),
        smoothing,
        weights,
        threshold=known.get(vocabulary.names[-1]) if num_classes == 2 else None,
        tunes=recipe.evaluation.tune_threshold,
        min_confidence=min_confidence,
    )


def _conflict(where: str, found: str, hint: str) -> RecipeError:
    return RecipeError(Problem(code="E313", where=where, found=found, hint=hint))
