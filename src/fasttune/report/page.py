"""Render report.html from the files of a run folder; no model is loaded and no data are read."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.analysis.properties import is_group
from fasttune.data.corrections import read_ranking
from fasttune.errors import DataError
from fasttune.recipe import dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.report import charts
from fasttune.report.charts import Chart
from fasttune.report.highlights import Sentence, highlights
from fasttune.report.language import Language
from fasttune.runs.folder import RESULT_PREFIX, RunFolder, read_events, read_json, write_text
from fasttune.security.text import printable
from fasttune.tasks.metrics.intervals import CORRELATIONS
from fasttune.training.card import base_model, gain_of, held_out_scores, without_folders
from fasttune.training.finalize import duration
from fasttune.training.lineage import LINEAGE, in_words

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

    from fasttune.evaluation.comparison import Compared

MARKED_CHARACTERS = 600  # of a text in which words are marked
MOST_BARS = 12
MOST_LISTED = 40  # labels, warnings


def write_report(folder: RunFolder, language: str = "en", new_rows: Mapping[str, Any] | None = None) -> Path:
    """Write report.html, and its charts as plots/NAME.svg and .png; returns the path of the page.

    `language`: en or zh. `new_rows`: the drift of other rows, from `evaluation.analysis_of_run.drift_to`.
    """
    page = Page(folder, Language(language), new_rows)
    write_text(folder.report, page.render())
    for chart in page.charts:
        chart.save(folder.plots)
    return folder.report


def write_comparison(compared: Sequence[Compared], path: Path, language: str = "en") -> Path:
    """Write a comparison of runs as one page, in the form of report.html."""
    own = Language(language)
    pairs: list[dict[str, Any]] = []
    for runs in dict.fromkeys((one.run_a, one.run_b) for one in compared):
        rows = [one for one in compared if (one.run_a, one.run_b) == runs]
        names = [Path(run).resolve().name for run in runs]
        names = names if names[0] != names[1] else list(runs)
        bars = [(one.metric, one.difference, one.low, one.high) for one in rows]
        shown = [(name, *(f"{value:+.4f}" for value in values)) for name, *values in bars]
        text = "; ".join(f"{name} {difference}" for name, difference, *_ in shown)
        title = own.say("Difference of each metric: {b} minus {a}", a=names[0], b=names[1])
        columns = tuple(map(own.say, ("metric", "difference", "low", "high")))
        figure = charts.differences(bars, own.say("difference"))
        pairs.append({"names": names, "rows": rows, "chart": Chart("differences", title, text, figure, columns, shown)})
    title = " / ".join(dict.fromkeys(name for pair in pairs for name in pair["names"]))
    made = datetime.now().date().isoformat()
    write_text(path, render("compare.html", own, pairs=pairs, title=title, made=made))
    return path


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


class Page:
    """The facts of a run, and the page made of them."""

    def __init__(self, folder: RunFolder, language: Language, new_rows: Mapping[str, Any] | None = None):
        self.folder, self.language = folder, language
        self.recipe = load_recipe(folder.recipe)
        self.results: dict[str, Any] = _read(folder.all_results) or {}
        self.analysis: dict[str, Any] = _read(folder.analysis) or {}
        self.data: dict[str, Any] = _read(folder.data_report) or {"splits": {}, "warnings": [], "notes": []}
        self.environment: dict[str, Any] = _read(folder.environment) or {}
        self.baselines: list[dict[str, Any]] = _read(folder.baselines) or []
        self.calibration: dict[str, Any] | None = _read(folder.calibration)
        self.seeds: dict[str, Any] | None = _read(folder.seeds)
        self.attributions: dict[str, Any] = _read(folder.attributions) or {}
        self.new_rows = new_rows
        self.split, self.scores = held_out_scores(self.results)
        self.prefix = RESULT_PREFIX[self.split]
        self.events = [event for event in read_events(folder) if event["event"] in ("step", "evaluation")]
        self.metric = self._headline_metric()
        self.charts = list(self._charts())

    def _headline_metric(self) -> str:
        """The metric that chose the weights, or the task's own if that was the loss."""
        chosen = (self.recipe.evaluation.metric_for_best_model, self.analysis.get("metric"))
        scores = [name for name in self.scores if name != "loss"]
        return next((name for name in chosen if name in scores), scores[0] if scores else "loss")

    @property
    def in_percent(self) -> bool:
        """Whether scores are in 0..100 already, as those of answers."""
        return self.recipe.task == "question-answering"

    def points(self, value: float | None, signed: bool = False) -> str:
        """A score of the headline metric as people read it: a share in percent."""
        if value is None or not math.isfinite(value):
            return "-"
        sign = "+" if signed else ""
        if self.is_share:
            return f"{value if self.in_percent else 100 * value:{sign}.1f}"
        return f"{value:{sign}.3f}"

    @property
    def is_share(self) -> bool:
        """Whether the headline metric is a share, shown in percent."""
        return self.metric not in (*LESS_IS_BETTER, *CORRELATIONS)

    @property
    def unit(self) -> str:
        return " %" if self.is_share else ""

    def interval(self, name: str) -> tuple[float, float] | None:
        low, high = (self.results.get(f"{self.prefix}_{name}_{end}") for end in ("low", "high"))
        return None if low is None or high is None else (low, high)

    def summary(self) -> list[Sentence]:
        """The result in words."""
        if self.metric not in self.scores:
            return []
        ends = self.interval(self.metric)
        template = "On {number} {split} rows the model reaches {value}{unit} {metric}."
        values: dict[str, Any] = {
            "number": self.results.get(f"{self.prefix}_samples"),
            "split": self.split,
            "value": self.points(self.scores[self.metric]),
            "unit": self.unit,
            "metric": self.metric,
        }
        if ends is not None:
            template = (
                "On {number} {split} rows the model reaches {value}{unit} {metric} (95 % interval {low} to {high})."
            )
            values |= {"low": self.points(ends[0]), "high": self.points(ends[1])}
        said = [Sentence(template, **values)]
        if self.baselines and self.baselines[0]["metric"] == self.metric:
            sign = -1 if self.baselines[0]["metric"] in LESS_IS_BETTER else 1
            best = max(self.baselines, key=lambda one: sign * one["value"])
            gain, low, high = gain_of(best)
            values = {
                "name": self.language.say(best["name"]),
                "gain": self.points(abs(gain)),
                "low": self.points(low, signed=True),
                "high": self.points(high, signed=True),
            }
            if best["p_value"] >= 0.05:
                template = (
                    "These rows do not show that fine-tuning gains anything over the best baseline, {name} "
                    "(difference {low} to {high})."
                )
            elif gain > 0:
                template = "Fine-tuning gains {gain} points over the best baseline, {name} ({low} to {high})."
            else:
                template = "The best baseline, {name}, is better by {gain} points ({low} to {high})."
            if not self.is_share:
                template = template.replace(" points", "")
            said.append(Sentence(template, **values))
        if self.split == "validation":
            said.append(
                Sentence("These validation rows also chose the weights, so new rows may be predicted less well.")
            )
        return said

    def to_know(self) -> list[Sentence]:
        evaluations = [event for event in self.events if event["event"] == "evaluation"]
        chosen = self.recipe.evaluation.metric_for_best_model or self.metric
        keeps_best = self.recipe.output.save_strategy != "no"
        return list(highlights(self.analysis, self.data, evaluations, chosen, keeps_best))

    @property
    def kind_of_mistakes(self) -> str:
        """What the list of mistakes holds: those of classes are in the order of their confidence."""
        if self.recipe.task == "text-classification" and self.recipe.problem != "regression":
            return self.language.say("The most confident mistakes on the {split} rows.", split=self._scored)
        return self.language.say("The largest errors on the {split} rows.", split=self._scored)

    @property
    def _scored(self) -> str:
        return self.language.say(self.analysis["split"])

    def cost(self) -> list[tuple[str, str]]:
        """Time, speed and memory of training."""
        results = self.results
        shown = [
            ("training time", duration(results["train_runtime"]) if "train_runtime" in results else ""),
            ("real tokens per second", _number(results.get("train_tokens_per_second"))),
            ("share of the machine's peak (MFU)", _percent(results.get("train_mfu"))),
            ("floating-point operations", _scientific(results.get("total_flos"))),
            ("peak memory", _bytes(results.get("peak_memory_bytes"))),
            ("energy of the processors", _watt_hours(results.get("train_energy_joules"))),
            ("device", _value(self.environment.get("device"))),
            ("precision", _value(self.environment.get("precision"))),
            ("processes", str(self.environment.get("num_processes", ""))),
        ]
        return [(name, value) for name, value in shown if value]

    def choices(self) -> list[tuple[str, str, str]]:
        """The automatic choices of the run: name, value and reason."""
        found = []
        for name, choice in self.environment.items():
            if isinstance(choice, Mapping) and {"value", "reason"} <= choice.keys():
                found.append((name, str(choice["value"]), without_folders(str(choice["reason"]), self.recipe)))
        return found

    def recipe_text(self) -> str:
        return without_folders(dump(self.recipe).strip(), self.recipe)

    @property
    def drift(self) -> list[dict[str, Any]]:
        """Of the held-out splits and of new rows, if there are any."""
        return [*(self.analysis.get("drift") or ()), *([self.new_rows] if self.new_rows else ())]

    def gain(self, baseline: Mapping[str, Any]) -> tuple[float, float, float]:
        return gain_of(baseline)

    def names(self, properties: Sequence[str]) -> str:
        return ", ".join(map(self.language.say, properties))

    def label_table(self) -> dict[str, Any] | None:
        """Rows of each label by split; None for numbers, questions and tables of more than MOST_LISTED labels."""
        counts = {name: facts.get("labels") or {} for name, facts in self.data["splits"].items()}
        is_counted = self.recipe.task == "text-classification" and self.recipe.problem != "regression"
        names = list(dict.fromkeys(label for of_split in counts.values() for label in of_split))
        if not is_counted or not names or len(names) > MOST_LISTED:
            return None
        rows = [(name, *(f"{of_split.get(name, 0):,}" for of_split in counts.values())) for name in names]
        return {"splits": list(map(self.language.say, counts)), "rows": rows}

    @property
    def ranked_labels(self) -> list[tuple[Any, ...]]:
        """The first rows of labels.csv, if `fasttune labels` has written one."""
        if not self.folder.label_ranking.exists():
            return []
        try:
            ranked = read_ranking(str(self.folder.label_ranking))[:MOST_LISTED]
        except DataError:  # somebody has made another file of it, and the report is not about that
            return []
        return [(one["text"][:200], one["label"], one["suggestion"], one["loss"], one["row"]) for one in ranked]

    def marked(self, mistake: Mapping[str, Any], role: str) -> list[tuple[str, str]]:
        """The text of a mistake in parts: (text, "" | for | against), the words that drove the prediction."""
        text = mistake["inputs"][role]
        words = (self.attributions.get(str(mistake["row"])) or {}).get("words", [])
        parts, place = [], 0
        for word in sorted((word for word in words if word["role"] == role), key=lambda word: word["start"]):
            start, end = word["start"], word["end"]
            if start < place or end > min(len(text), MARKED_CHARACTERS):
                continue
            kind = "for" if word["effect"] > 0 else "against"
            parts += [(text[place:start], ""), (text[start:end], kind)]
            place = end
        rest = text[place:MARKED_CHARACTERS]
        return [*parts, (rest + ("…" if len(text) > MARKED_CHARACTERS else ""), "")]

    def condition(self, condition: Mapping[str, Any]) -> str:
        """A bound of a slice in words."""
        name, low, high = condition["name"], condition["low"], condition["high"]
        if is_group(name):  # 1 for its rows, 0 for the others
            return str(name) if low is not None else str(name).replace(" = ", " ≠ ", 1)
        is_count = name in ("words", "words of the question", "tokens cut off")
        say = self.language.say
        if is_count:
            low, high = (None if value is None else math.ceil(value) for value in (low, high))
        shown = [("" if value is None else f"{value:,}" if is_count else f"{value:.1%}") for value in (low, high)]
        if is_count and low is not None and high is not None:
            return say("{name}: {low} to {high}", name=say(name), low=shown[0], high=f"{high - 1:,}")
        if low is not None and high is not None:
            return say("{name}: {low} to {high}", name=say(name), low=shown[0], high=shown[1])
        if low is not None:
            return say("{name}: at least {low}", name=say(name), low=shown[0])
        return say("{name}: less than {high}", name=say(name), high=shown[1])

    def _charts(self) -> Sequence[Chart]:
        found: list[Chart] = []

        def add(name: str, title: str, text: str, figure: Figure, columns: Sequence[str], rows: list[Any]) -> None:
            names = tuple(map(self.language.say, columns))
            found.append(Chart(name, self.language.say(title), text, figure, names, rows))

        say = self.language.say
        ends = self.interval(self.metric)
        if self.baselines and ends is not None and self.baselines[0]["metric"] == self.metric:
            scale = 100.0 if self.is_share and not self.in_percent else 1.0
            own = {"name": "this model", "value": self.scores[self.metric], "low": ends[0], "high": ends[1]}
            bars = [
                (say(one["name"]), scale * one["value"], scale * one["low"], scale * one["high"])
                for one in (own, *self.baselines)
            ]
            label = f"{self.metric}, {say(self.split)}{',' + self.unit if self.unit else ''}"
            text = "; ".join(f"{name} {value:.1f}" for name, value, *_ in bars)
            rows = [(name, *(f"{value:.1f}" for value in values)) for name, *values in bars]
            columns = ("model", "score", "low", "high")
            add("baselines", "With and without fine-tuning", text, charts.intervals(bars, label), columns, rows)
        steps = [(event["epoch"], event["loss"]) for event in self.events if _has_loss(event)]
        evaluations = [event for event in self.events if event["event"] == "evaluation"]
        key = f"eval_{self.recipe.evaluation.metric_for_best_model or self.metric}"
        points = [(one["epoch"], one[key]) for one in evaluations if isinstance(one.get(key), float)]
        if len(steps) > 1 and points:
            best = next((one["epoch"] for one in reversed(evaluations) if one.get("is_best")), None)
            name, smooth = key.removeprefix("eval_"), charts.thinned(steps, charts.SMOOTH_POINTS)[1]
            labels = (say("epoch"), say("training loss"), f"{name}, {say('validation')}")
            text = say(
                "The training loss falls from {first} to {last}; {metric} by evaluation: {values}.",
                first=f"{smooth[0]:.3f}",
                last=f"{smooth[-1]:.3f}",
                metric=name,
                values=", ".join(f"{value:.4f}" for _, value in points[-MOST_BARS:]),
            )
            rows = [(f"{epoch:.3g}", f"{value:.4f}") for epoch, value in points]
            add("training", "Loss and score", text, charts.curves(steps, points, labels, best), ("epoch", name), rows)
        table = self.analysis.get("confusions")
        if table and table["counts"]:
            names = [printable(name) for name in table["names"]]
            figure = charts.confusion(table["counts"], names, (say("predicted"), say("true")))
            most = table["most"][:3]
            text = (
                say("Rows by true and predicted label.")
                + " "
                + "; ".join(f"{one['label']} → {one['prediction']}: {one['num_rows']}" for one in most)
            )
            rows = [(name, *counts) for name, counts in zip(names, table["counts"], strict=True)]
            add("confusion", "Confusions", text, figure, ("true \\ predicted", *names), rows)
        curve = self.analysis.get("reliability")
        if curve:
            both = (say("probability of the prediction"), say("share that is right"))
            rows = [
                (f"{one['confidence']:.3f}", f"{one['accuracy']:.3f}", f"{one['num_predictions']:,}")
                for one in curve["bins"]
            ]
            text = say("Expected calibration error {ece}.", ece=f"{curve['ece']:.3f}")
            figure = charts.reliability(curve["bins"], both)
            add("reliability", "Are the probabilities honest?", text, figure, (*both, "predictions"), rows)
        return found

    def chart(self, name: str) -> Chart | None:
        return next((chart for chart in self.charts if chart.name == name), None)

    def render(self) -> str:
        title = self.folder.path.resolve().name
        ancestors = in_words(self.environment.get(LINEAGE, ()))
        base = " → ".join(ancestors) or base_model(self.recipe) or Path(self.recipe.model).name
        ended = datetime.fromtimestamp(self.folder.all_results.stat().st_mtime).date().isoformat()
        return render("run.html", self.language, page=self, title=title, base=base, made=ended)


def _has_loss(event: Mapping[str, Any]) -> bool:
    return bool(event["event"] == "step" and isinstance(event.get("loss"), float))


def render(template: str, language: Language, **values: Any) -> str:
    """A page of this room's templates, in which every value is text, and the policy forbids everything but images."""
    style = importlib.resources.files("fasttune.report").joinpath("style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        _environment(language)
        .get_template(template)
        .render(style=style, policy=policy, language=language.code, **values)
    )


def _environment(language: Language) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        """Hidden characters as escapes; what the templates themselves write stays."""
        return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value, keep="\n")

    environment = Environment(
        loader=PackageLoader("fasttune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = language.sentence
    environment.globals |= {"say": language.say}
    return environment


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}".replace("%", " %")


def _watt_hours(joules: float | None) -> str:
    return "" if joules is None else f"{joules / 3600:.3g} Wh"


def _scientific(value: float | None) -> str:
    return "" if not value else f"{value:.2e}"


def _bytes(value: float | None) -> str:
    return "" if not value else f"{value / 1e9:.2f} GB"


def _value(choice: Any) -> str:
    return str(choice["value"]) if isinstance(choice, Mapping) else ""
