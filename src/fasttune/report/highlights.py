"""What a reader should know before believing a score: sentences made from the facts of a run.

Each sentence is a template and its values, so that it can be said in another language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEW_ROWS = 300  # scored; the interval of an accuracy is then wider than +-5 points
CUT_SHARE = 0.05  # of the rows of a split
LEAKS = ("W250",)  # codes of warnings on rows that two splits share
SURPRISING = 2.0  # times as many surprising labels as a calibrated model expects
FEWEST_SURPRISING = 5
LOSS_RISE = 1.25  # the validation loss at the end over its lowest value: overfitting


@dataclass(frozen=True)
class Sentence:
    """`template` has the names of `values` in braces."""

    template: str
    values: Mapping[str, Any]

    def __init__(self, template: str, **values: Any):
        object.__setattr__(self, "template", template)
        object.__setattr__(self, "values", values)


def highlights(
    analysis: Mapping[str, Any],
    data_report: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]],
    metric: str,
    keeps_best: bool = True,
) -> Iterator[Sentence]:
    """The findings to read first. `evaluations`: the events of the run; `metric`: the one that chose the weights, if
    the run `keeps_best`; otherwise they are the last ones.
    """
    yield from _predictions(analysis)
    yield from _training(evaluations, metric, keeps_best)
    for entry in data_report.get("warnings", ()):
        if entry["code"] in LEAKS:
            yield Sentence("{found}.", found=f"{entry['where']}: {entry['found']}")
    for name, facts in data_report.get("splits", {}).items():
        cut = facts["truncated"]["num_examples"]
        if name == analysis.get("split") and cut > CUT_SHARE * facts["num_examples"]:
            yield Sentence(
                "{number} of {total} {split} rows are longer than the model reads; what was cut off cannot help.",
                number=cut,
                total=facts["num_examples"],
                split=name,
            )
    yield from _rows(analysis)


def _predictions(analysis: Mapping[str, Any]) -> Iterator[Sentence]:
    by_label = analysis.get("by_label") or []
    predicted = [one["name"] for one in by_label if one["num_predicted"]]
    if analysis.get("confusions") and len(predicted) == 1 and sum(one["num_true"] > 0 for one in by_label) > 1:
        yield Sentence("Every prediction is {name}: the model does not tell the classes apart.", name=predicted[0])
    surprising = analysis.get("surprising") or {}
    observed, expected = surprising.get("observed", 0), surprising.get("expected", 0.0)
    if observed >= FEWEST_SURPRISING and observed > SURPRISING * expected:
        yield Sentence(
            "{observed} labels surprise the model, {expected} would be usual: look at the suspected labels below.",
            observed=observed,
            expected=f"{expected:.0f}",
        )
    for one in (analysis.get("shortcuts") or {}).get("words", ()):
        yield Sentence(
            "The word {word} gives the label {label} away: {coverage} of the training rows with this label have it.",
            word=one["word"],
            label=one["label"],
            coverage=f"{one['coverage']:.0%}",
        )


def _training(evaluations: Sequence[Mapping[str, Any]], metric: str, keeps_best: bool) -> Iterator[Sentence]:
    losses = [one["eval_loss"] for one in evaluations if isinstance(one.get("eval_loss"), float)]
    best = next((one for one in reversed(evaluations) if one.get("is_best")), None)
    if len(losses) > 1 and losses[-1] > LOSS_RISE * min(losses):
        lowest = evaluations[losses.index(min(losses))] if len(losses) == len(evaluations) else evaluations[0]
        yield Sentence(
            "The model overfits: the validation loss was lowest, {low}, after epoch {epoch} and rose to {high}.",
            low=f"{min(losses):.3f}",
            high=f"{losses[-1]:.3f}",
            epoch=f"{lowest['epoch']:.3g}",
        )
    if best is not None and best is not evaluations[-1]:
        kept = "{metric} was best after epoch {epoch} of {last}; the model is from there."
        lost = "{metric} was best after epoch {epoch} of {last}; the model is from the end, as no checkpoint was kept."
        yield Sentence(
            kept if keeps_best else lost,
            metric=metric,
            epoch=f"{best['epoch']:.3g}",
            last=f"{evaluations[-1]['epoch']:.3g}",
        )


def _rows(analysis: Mapping[str, Any]) -> Iterator[Sentence]:
    number = analysis.get("num_rows", FEW_ROWS)
    if number < FEW_ROWS:
        yield Sentence("Only {number} rows were scored: small differences are chance.", number=number)
    few = analysis.get("few_rows") or []
    if few:
        names = ", ".join(few[:8]) + (", ..." if len(few) > 8 else "")
        yield Sentence("Fewer than 10 rows each have the labels {names}: their scores say little.", names=names)
    earlier = analysis.get("earlier_scorings", 0)
    if earlier:
        yield Sentence(
            "Earlier runs on this machine scored the same test rows {number} times: if their scores led to this run, "
            "its score is optimistic.",
            number=earlier,
        )
