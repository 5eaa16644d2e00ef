"""`fasttune search`: trials with different settings, chosen by optuna, and the best one as the run itself.

The trials are kept in RUN/study.db and RUN/trial-NN. A killed search resumes the trial it was at, and then makes the
same trials as one that was never interrupted: what a trial tries depends only on the seed, its number and the results
of the trials before it.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.reading import TEST
from fasttune.errors import DivergedError, EnvironmentProblem, Problem, RecipeError
from fasttune.evaluation.own_split import read_own_split
from fasttune.evaluation.predictor import Predictor
from fasttune.recipe import Recipe, differences, dump, yaml_text
from fasttune.recipe import load as load_recipe
from fasttune.recipe.messages import nested
from fasttune.recipe.search_schema import Range
from fasttune.recipe.types import LESS_IS_BETTER, seconds_of
from fasttune.runs.folder import RunFolder, copy_model, read_json, write_json, write_text
from fasttune.training.card import card
from fasttune.training.events import Evaluated, Event
from fasttune.training.fit import FINISHED_BEFORE, fit_in_folder
from fasttune.training.run import Log

if TYPE_CHECKING:
    import optuna

USUAL_RANGES: dict[str, Range | list[Any]] = {
    "training.learning_rate": Range(low=2e-5, high=5e-4, log=True),
    "training.layer_decay": [0.8, 0.9, 1.0],
    "training.num_train_epochs": [1, 2, 3, 5],
    "training.batch_size": [8, 16, 32],
}
SECTIONS = ("training", "preprocessing")  # whose fields may vary
RANDOM_TRIALS = 6  # before the sampler models the results; optuna's default of 10 is for longer searches
PRUNED = "worse than the median of the trials before it"


@dataclass(frozen=True)
class Trial:
    """`score`: on the validation rows, None if training diverged or the metric is undefined.

    `state`: complete, pruned, diverged or undefined.
    """

    number: int
    settings: dict[str, Any]
    score: float | None
    state: str
    seconds: float
    folder: Path


@dataclass(frozen=True)
class Found:
    """What a search found: `trials`, best first. `folder` holds the model of trial `best`, `metrics` are its scores.

    A search that was interrupted by `signal` has no metrics; continue it with `resume=True`.
    """

    folder: Path
    trials: list[Trial] = field(repr=False)
    best: int | None
    metrics: dict[str, Any] = field(repr=False)
    signal: int | None = None


def search_in_folder(recipe: Recipe, folder: RunFolder, *, log: Log) -> Found:
    """Make `search.num_trials` trials in `folder`, and copy the best model there; continues a search that is there.

    RecipeError for wrong ranges, or if that search has another recipe. Trials are compared on the validation rows; the
    test rows are scored once, by the best model.
    """
    optuna = _optuna()
    ranges = recipe.search.ranges or USUAL_RANGES
    _check_ranges(recipe, ranges)
    if not folder.is_run:
        write_text(folder.recipe, dump(recipe))
    # A task's primary metric, the default, is always better if greater.
    direction = "minimize" if recipe.evaluation.metric_for_best_model in LESS_IS_BETTER else "maximize"
    study = optuna.create_study(
        storage=f"sqlite:///{folder.study.absolute()}",
        study_name="fasttune",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS - 1),
        direction=direction,
        load_if_exists=True,
    )
    _check_same(recipe, folder, study)
    for interrupted in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if "result" in interrupted.user_attrs:
            _finish(study, interrupted.number, interrupted.user_attrs["result"])
        else:
            study.tell(interrupted.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(interrupted.params, {"reported": interrupted.intermediate_values})
    while (number := len(_results(study)) + 1) <= recipe.search.num_trials:
        used = sum(result["seconds"] for result in _results(study))
        if recipe.search.max_time and used >= seconds_of(recipe.search.max_time):
            log(f"search.max_time {recipe.search.max_time} is over after {number - 1} trials")
            break
        seed = random.Random(f"{recipe.training.seed} {number}").randrange(2**32)
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
        signal = _make_trial(recipe, folder, study, number, ranges, log)
        if signal is not None:
            return _found(folder, study, {}, signal)
    if not folder.is_finished or len(read_json(folder.search)["trials"]) < len(_results(study)):
        _publish(recipe, folder, study, log)
    return _found(folder, study, read_json(folder.all_results))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        found, hint = "optuna is not installed", "pip install optuna"
        raise EnvironmentProblem(Problem(where="fasttune search", found=found, hint=hint, code="E518")) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _check_ranges(recipe: Recipe, ranges: Mapping[str, Range | list[Any]]) -> None:
    """RecipeError for a field that does not exist or may not vary, or for a value that it does not accept."""
    problems: list[Problem] = []
    if recipe.training.seeds is not None:
        hint = "training.seeds=null; train the best settings with several seeds afterwards"
        problems.append(Problem(where="training.seeds", found="a search trains once per trial", hint=hint, code="E313"))
    for name, values in ranges.items():
        for value in [values.low, values.high] if isinstance(values, Range) else values:
            try:
                load_recipe(recipe, nested({tuple(name.split(".")): value}))
            except RecipeError as error:
                problems += error.problems
                break
        if name.partition(".")[0] not in SECTIONS:
            found = f"{name} cannot vary between trials"
            expected = "a field of training or preprocessing"
            problems.append(Problem(where="search.ranges", found=found, expected=expected, code="E303"))
    if problems:
        raise RecipeError(*problems)


def _make_trial(
    recipe: Recipe,
    folder: RunFolder,
    study: optuna.Study,
    number: int,
    ranges: Mapping[str, Range | list[Any]],
    log: Log,
) -> int | None:
    """Train one trial and record its result; returns the number of the signal that interrupted it, if one did."""
    begin = time.perf_counter()
    trial = study.ask()
    for step, score in trial.user_attrs.get("reported", {}).items():  # before the search was interrupted
        trial.report(score, int(step))
    settings = {name: _suggested(trial, recipe, name, values) for name, values in ranges.items()}
    own = RunFolder(folder.path / f"trial-{number:02d}")
    one = load_recipe(
        load_recipe(recipe, nested({tuple(name.split(".")): value for name, value in settings.items()})),
        {"output": {"dir": str(own.path), "mirror": None}},
    )
    shown = ", ".join(f"{name.partition('.')[2]} {shown_value(value)}" for name, value in settings.items())
    result: dict[str, Any] = {"number": number, "settings": settings, "score": None, "state": "diverged"}
    try:
        run = fit_in_folder(
            one,
            own,
            resume=True,
            allow_changes=False,
            log=lambda line: None,
            observers=[_Pruner(trial, own)],
            scores_test=False,
        )
        if run.signal is not None:
            return run.signal
        # A trial that was killed after its last step has lost its reason, but not what it reported.
        was_pruned = run.reason == PRUNED or (run.reason == FINISHED_BEFORE and trial.should_prune())
        score = run.metrics[f"eval_{_metric(own)}"]
        if score is None or math.isnan(score):  # such as a correlation with predictions that are all equal
            result["state"] = "undefined"
        else:
            result |= {"score": score, "state": "pruned" if was_pruned else "complete"}
    except DivergedError as error:
        log(f"trial {number}: {error.problems[0].found}")
    result["seconds"] = time.perf_counter() - begin
    trial.set_user_attr("result", result)
    _finish(study, trial.number, result)
    best = (_best(study) or {}).get("number")
    for path in folder.path.glob("trial-*"):
        _discard(RunFolder(path), is_best=best is not None and path.name == f"trial-{best:02d}")
    if result["score"] is not None:
        end = f", {PRUNED}" if result["state"] == "pruned" else ", the best so far" if best == number else ""
        log(
            f"trial {number} of {recipe.search.num_trials}: {shown}: {_metric(own)} {result['score']:.4f} in "
            f"{result['seconds']:.0f} s{end}"
        )
    return None


def _finish(study: optuna.Study, number: int, result: Mapping[str, Any]) -> None:
    """Record the result of optuna's trial `number`."""
    from optuna.trial import TrialState

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    score = result["score"] if result["state"] == "complete" else None
    study.tell(number, score, states.get(result["state"], TrialState.FAIL))


def _suggested(trial: optuna.Trial, recipe: Recipe, name: str, values: Range | list[Any]) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, values)
    path = tuple(name.split("."))
    if isinstance(reduce(getattr, path, load_recipe(recipe, nested({path: values.low}))), int):
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


@dataclass
class _Pruner:
    """An observer that reports each evaluation to optuna, and stops a trial that is behind the others."""

    trial: optuna.Trial
    folder: RunFolder

    def __call__(self, event: Event) -> str | None:
        if not isinstance(event, Evaluated):
            return None
        score = event.metrics[f"eval_{_metric(self.folder)}"]
        # Trials with other numbers of epochs and batch sizes are compared at the same share of an epoch.
        self.trial.report(score, round(100 * event.epoch))
        return PRUNED if self.trial.should_prune() else None


def shown_value(value: Any) -> str:
    """A setting of a trial, for tables."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _metric(folder: RunFolder) -> str:
    """The metric that chooses the best weights, as the saved recipe of a run says."""
    return load_recipe(folder.recipe).evaluation.metric_for_best_model or "loss"


def _results(study: optuna.Study) -> list[dict[str, Any]]:
    """The results of the trials that have ended, in order."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [trial.user_attrs["result"] for trial in ended if "result" in trial.user_attrs]


def _best(study: optuna.Study) -> dict[str, Any] | None:
    """The best trial that ran to its end; the first of equals."""
    return next((result for result in _best_first(study) if result["state"] == "complete"), None)


def _best_first(study: optuna.Study) -> list[dict[str, Any]]:
    """The results, those of trials that ran to their end before the others."""
    sign = -1 if study.direction.name == "MAXIMIZE" else 1

    def key(result: dict[str, Any]) -> tuple[bool, bool, float]:
        return result["state"] != "complete", result["score"] is None, sign * (result["score"] or 0.0)

    return sorted(_results(study), key=key)


def _discard(folder: RunFolder, is_best: bool) -> None:
    """Delete what nobody needs of a trial: checkpoints, and the weights unless it is the best."""
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    if not is_best:
        folder.weights.unlink(missing_ok=True)


def _publish(recipe: Recipe, folder: RunFolder, study: optuna.Study, log: Log) -> None:
    """Make the best trial the content of `folder`, and score its test rows; the results come last."""
    best = _best(study)
    if best is None:
        found = f"none of {len(_results(study))} trials ran to its end"
        hint = "lower learning rates in search.ranges"
        raise DivergedError(Problem(where=f"search {folder.path}", found=found, hint=hint, code="E601"))
    own = RunFolder(folder.path / f"trial-{best['number']:02d}")
    copy_model(own, folder)
    output = {"dir": str(folder.path), "mirror": recipe.output.mirror}
    changes = {"search": recipe.search.model_dump(exclude_unset=True), "output": output}
    chosen = load_recipe(load_recipe(own.recipe), changes)
    write_text(folder.recipe, dump(chosen))
    results = read_json(own.all_results)
    predictor = Predictor.open(folder.path)
    if TEST in read_json(own.data_report)["splits"]:
        scored = predictor.score(read_own_split(predictor, TEST))
        results |= {key.replace("eval_", "test_", 1): value for key, value in scored.items()}
    metric = _metric(own)
    table = list(card_table(_best_first(study), metric))
    text = card(
        name=folder.path.name,
        recipe=chosen,
        label_names=list(predictor.task.state().get("label2id", ())),
        results=results,
        data_report=read_json(own.data_report),
        environment=read_json(own.environment),
        incidents=[],
        calibration=read_json(folder.calibration) if folder.calibration.exists() else None,
    )
    write_text(folder.card, "\n".join([text, "## Search", "", *table, ""]))
    write_json(folder.search, {"metric": metric, "best": best["number"], "trials": _results(study)})
    plot(folder, _results(study), metric)
    write_json(folder.all_results, results)
    log(f"best: trial {best['number']}, {metric} {best['score']:.4f} on the validation rows")


def card_table(results: list[dict[str, Any]], metric: str) -> Iterator[str]:
    """The trials as a Markdown table."""
    names = list(results[0]["settings"])
    yield f"| trial | {' | '.join(name.partition('.')[2] for name in names)} | {metric} | seconds | |"
    yield "|---" * (len(names) + 4) + "|"
    for result in results:
        values = map(shown_value, result["settings"].values())
        score = "" if result["score"] is None else f"{result['score']:.4f}"
        state = "" if result["state"] == "complete" else result["state"]
        yield f"| {result['number']} | {' | '.join(values)} | {score} | {result['seconds']:.0f} | {state} |"


def plot(folder: RunFolder, results: list[dict[str, Any]], metric: str) -> None:
    """Draw the score of each trial, and against each setting, as plots/search.svg and .png."""
    from matplotlib.figure import Figure

    shown = [result for result in results if result["score"] is not None]
    names = list(shown[0]["settings"])
    figure = Figure(figsize=(4 * (len(names) + 1), 3.6), layout="constrained")
    axes = figure.subplots(1, len(names) + 1, sharey=True)
    for axis, name in zip(axes, ["trial", *names], strict=True):
        values = [result["number"] if name == "trial" else result["settings"][name] for result in shown]
        is_number = all(isinstance(value, int | float) for value in values)
        axis.scatter(values if is_number else list(map(str, values)), [result["score"] for result in shown], s=24)
        if is_number and name != "trial" and min(values) > 0 and max(values) / min(values) > 8:
            axis.set_xscale("log")
        axis.set_xlabel(name.rpartition(".")[2])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{metric} on validation rows")
    (folder.path / "plots").mkdir(exist_ok=True)
    for ending in ("svg", "png"):
        figure.savefig(folder.path / "plots" / f"search.{ending}")


def _check_same(recipe: Recipe, folder: RunFolder, study: optuna.Study) -> None:
    """RecipeError if the study in the folder was started with another recipe, except for its length."""
    if "recipe" not in study.user_attrs:
        study.set_user_attr("recipe", dump(recipe))
    started = load_recipe(yaml_text.read(study.user_attrs["recipe"], "")[0])
    allowed = ("search.num_trials", "search.max_time", "output.dir", "output.mirror")
    changed = {path: values for path, values in differences(started, recipe).items() if path not in allowed}
    if changed:
        problems = [
            Problem(
                where=f"resume of {folder.path}: {path}",
                found=str(new),
                expected=f"{old}, with which the search was started",
                hint="start a new search with another --output",
                code="E530",
            )
            for path, (old, new) in changed.items()
        ]
        raise RecipeError(*problems)


def _found(folder: RunFolder, study: optuna.Study, metrics: dict[str, Any], signal: int | None = None) -> Found:
    trials = [
        Trial(
            number=result["number"],
            settings=result["settings"],
            score=result["score"],
            state=result["state"],
            seconds=result["seconds"],
            folder=folder.path / f"trial-{result['number']:02d}",
        )
        for result in _best_first(study)
    ]
    best = _best(study)
    return Found(folder.path, trials, None if best is None else best["number"], metrics, signal)
