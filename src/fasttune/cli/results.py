"""Prints the results of commands for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from fasttune.security.terminal import Terminal
from fasttune.security.text import printable, write_line

if TYPE_CHECKING:
    from fasttune.data.builder import Built
    from fasttune.evaluation.comparison import Compared
    from fasttune.evaluation.label_ranking import RankedLabel
    from fasttune.evaluation.reproduction import Reproduced
    from fasttune.export.exporting import Export
    from fasttune.export.verify import Speed
    from fasttune.search import Found
    from fasttune.start_models import StartModel
    from fasttune.training.lr_range import LearningRates
    from fasttune.training.preflight import Checked

BAR_WIDTH = 20
LOSS_BAR_WIDTH = 50
LABELS_SHOWN = 15
INPUT_CHARACTERS = 80  # shown of a text from a file
NOT_PREDICTED = ("id", "text", "text_pair", "question", "context", "probabilities")
SHOWN = {
    "report.html": "everything about this run on one page: open it in a browser",
    "README.md": "model card",
    "model.safetensors": "weights; from_pretrained loads this folder",
    "recipe.yaml": "the full recipe, with every automatic choice",
    "all_results.json": "all scores and speeds",
    "predictions": "one line per row, with probabilities",
    "labels.csv": "training labels by how little they fit, to correct",
    "checkpoints": "for --resume",
    "seeds.json": "scores of every seed, mean and spread",
    "seeds": "the run of each seed",
    "search.json": "the trials of the search",
    "study.db": "the trials, for --resume",
}


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def number(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if "per_second" in name or "flos" in name:
        return f"{value:,.1f}" if value < 1e6 else f"{value:.3e}"
    return f"{value:,.1f} s" if name.endswith("runtime") else f"{value:.4f}"


def print_metrics(metrics: Mapping[str, Any]) -> None:
    width = max(len(name) for name in metrics if not name.endswith(("_low", "_high")))
    for name, value in metrics.items():
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        if name.removesuffix("_low").removesuffix("_high") != name:
            continue  # the ends of an interval stand behind its metric
        interval = "" if low is None or high is None else f"   95 % interval {low:.4f} to {high:.4f}"
        write_line(f"{name:<{width}}  {number(name, value)}{interval}")


def print_ranked_labels(ranked: Sequence[RankedLabel], path: Path) -> None:
    """The labels that fit least, and what to do with the file."""
    from rich.table import Table

    out = Terminal()
    table = Table("row", "label", "model says", "loss", "text", box=None, pad_edge=False)
    for one in ranked[:LABELS_SHOWN]:
        cells = (one.row, one.label, one.suggestion, f"{one.loss:.2f}", one.text)
        table.add_row(*(Text(printable(cell[:INPUT_CHARACTERS])) for cell in cells), end_section=False)
    out.print(table)
    write_line(f"\nall {len(ranked):,} training labels, the least fitting first: {path}")
    write_line(f"replace wrong ones in its column label, then train with data.corrections={path}")


def print_compared(compared: Sequence[Compared]) -> None:
    """A table of metrics per pair of runs, each difference in a sentence, and what the test does not say."""
    from rich.table import Table

    from fasttune.data.reading import VALIDATION

    out = Terminal(soft_wrap=True)
    for pair in dict.fromkeys((one.run_a, one.run_b) for one in compared):
        own = [one for one in compared if (one.run_a, one.run_b) == pair]
        write_line(f"{pair[0]} (a) and {pair[1]} (b), {own[0].num_rows:,} {own[0].split} rows")
        table = Table("metric", "a", "b", "b - a", "95 % interval", "p", box=None, header_style="bold")
        for one in own:
            values = (f"{one.a:.4f}", f"{one.b:.4f}", f"{one.difference:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}")
            table.add_row(one.metric, *values, f"{one.p_value:.3f}" if one.p_value >= 0.001 else "< 0.001")
        out.print(table)
        write_line("")
        for one in own:
            write_line(one.sentence)
        write_line("")
    if any(one.split == VALIDATION for one in compared):
        write_line("The validation rows also chose the weights of each run, so confirm the result on test rows.")
    write_line(
        "This compares trained models, not settings: another seed may give another result. To compare settings, train "
        "each with several seeds, such as training.seeds=[1,2,3]."
    )


def print_reproduced(found: Reproduced) -> None:
    """The scores before and now, and the verdict."""
    width = max(map(len, found.scores))
    for name, (before, now) in found.scores.items():
        write_line(f"{name:<{width}}  {before:.6f} before, {now:.6f} now")
    write_line("")
    write_line(found.sentence)


def print_export(found: Export) -> None:
    """The weights and each format in a table, the verdict, and the next command."""
    from rich.table import Table

    out = Terminal(soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "size", "agreement", "largest diff", found.metric, "rows/s", "ms for one"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)

    def add(name: str, num_bytes: int, agreement: str, largest: str, score: str, speed: Speed) -> None:
        times = (f"{speed.rows_per_second:,.0f}", f"{speed.milliseconds_per_row:.1f}")
        table.add_row(name, size(num_bytes), agreement, largest, score, *times)

    for precision, speed in found.weights.items():
        score = f"{found.score:.4f}" if precision == "fp32" else ""
        add(f"weights, {precision}", found.weights_size, "", "", score, speed)
    for one in found.formats:
        difference = one.difference
        agreement = "" if difference.agreement is None else f"{difference.agreement:.1%}"
        largest = f"{difference.largest:.2g}"
        add(one.format, one.size, agreement, largest, f"{one.score:.4f}", one.speed)
    out.print(table)
    write_line(f"\ncompared with the weights in fp32 on {found.num_rows:,} {found.split} rows; timed on this CPU")
    for sentence in found.verdict:
        write_line(sentence)
    if found.folder is None:
        write_line(f"\nnothing was kept: the weights in {found.fastest} are the fastest for many rows")
    else:
        write_line(f"\nnext:\n  fasttune serve {found.folder}")


def print_built(built: Built, folder: Path) -> None:
    """The steps of a build, the rows of each split, and what to type next."""
    out = Terminal(soft_wrap=True)
    for step in built.steps:
        out.print(step)
    for name, rows in built.splits.items():
        out.print(f"{name:<12}{rows.num_rows:,} rows")
    out.print(
        f"\n{folder}/: README.md is the data set card\nnext:\n  fasttune check {folder}\n  fasttune train {folder}"
    )


def print_checked(checked: Checked) -> None:
    """The first rows, warnings, the forecast, and the verdict."""
    from fasttune.tasks.preview import print_rows

    out = Terminal(soft_wrap=True)
    print_rows(checked.rows)
    for warning in checked.warnings:
        out.print(f"warning: {warning}\n")
    forecast, measured = checked.forecast, checked.forecast.measured
    write_line(f"steps   {forecast.num_steps:,} with about {measured['tokens_per_step']:,.0f} tokens each")
    duration = timedelta(seconds=round(forecast.train_runtime))
    write_line(f"time    {duration} at {measured['tokens_per_second']:,.0f} tokens/s")
    write_line(f"memory  {size(forecast.peak_memory_bytes)} at peak")
    number = len(checked.warnings)
    if number:
        write_line(f"Ready to train, with {number} warning{'s' if number > 1 else ''}: see above.")
    else:
        write_line("No problems found. Ready to train.")


def print_run(folder: Path, metrics: Mapping[str, Any], example: str) -> None:
    """Scores, the files of the run, and what to type next; `example` is an input to predict."""
    wanted = ("train_runtime", "train_tokens_per_second")
    scores = {name: value for name, value in metrics.items() if name in wanted or _is_score(name)}
    print_metrics(scores)
    write_line(f"\n{folder}/")
    for line in tree_lines(folder):
        write_line(f"  {line}")
    write_line("\nnext:")
    write_line(f"  fasttune predict {folder} {example}")
    write_line(f"  fasttune evaluate {folder} --data more_rows.csv")
    write_line("  fasttune recipes yelp > my.yaml      # a template for your own recipe")


def print_found(found: Found) -> None:
    """The trials of a search, best first, the scores of the best, and what to type next."""
    from rich.table import Table

    from fasttune.search import shown_value

    out = Terminal(soft_wrap=True)
    names = [name.partition(".")[2] for name in found.trials[0].settings]
    table = Table("trial", *names, "score", "time", "", box=None, header_style="bold")
    for trial in found.trials:
        values = map(shown_value, trial.settings.values())
        score = "" if trial.score is None else f"{trial.score:.4f}"
        state = "best" if trial.number == found.best else "" if trial.state == "complete" else trial.state
        table.add_row(str(trial.number), *values, score, f"{trial.seconds:.0f} s", state)
    out.print(table)
    write_line("")
    print_metrics({name: value for name, value in found.metrics.items() if _is_score(name)})
    write_line(f"\n{found.folder}/ holds the model of trial {found.best}; every trial is in trial-NN/")
    write_line("\nnext:")
    write_line(f"  fasttune evaluate {found.folder} --data more_rows.csv")
    write_line(f"  fasttune train {found.folder}/recipe.yaml --output runs/again      # with these settings again")


def print_models(models: Sequence[StartModel], speeds: Sequence[float]) -> None:
    """The models as a table; `speeds` are estimated rows per second."""
    from rich.table import Table

    from fasttune.start_models import TOKENS_PER_ROW

    out = Terminal()
    table = Table("model", "language", "params", "tokens", "rows/s", "licence", "published scores", box=None)
    table.columns[0].no_wrap = True
    for model, speed in zip(models, speeds, strict=True):
        scores = ", ".join(f"{score.benchmark} {score.value:g}" for score in model.scores)
        row = (model.languages, f"{model.parameters:,.0f} M", f"{model.max_tokens:,}", f"{speed:,.0f}", model.licence)
        table.add_row(model.model, *row, scores or model.note)
    out.print(table)
    write_line(f"\nrows/s: estimated for training on this machine with rows of {TOKENS_PER_ROW} tokens")
    write_line("scores: percent, from different settings; sources: fasttune models --json")
    write_line("next:\n  fasttune train reviews.csv model=NAME")


def print_lr_range(found: LearningRates) -> None:
    """The loss by learning rate as bars, the suggestion, and what to type next."""
    low, high = min(found.losses), max(found.losses)
    for first in range(0, len(found.rates), 4):
        rate, loss = found.rates[first], found.losses[first]
        bar = "█" * round(LOSS_BAR_WIDTH * (loss - low) / max(high - low, 1e-9))
        write_line(f"{rate:8.1e}  {loss:8.4f}  {bar}")
    if found.diverged_at is not None:
        write_line(f"the loss diverges from {found.diverged_at:.1e}")
    if found.suggestion is None:
        write_line("the loss does not fall at any learning rate: check that the labels belong to the texts")
    else:
        write_line(f"lowest loss at {found.lowest_loss_at:.1e}; it falls fastest at {found.suggestion:.1e}")
        write_line(f"next:\n  training.learning_rate={found.suggestion:.1e}")
    if found.files:
        write_line(f"written: {', '.join(str(path) for path in found.files)}")


def _is_score(name: str) -> bool:
    other = ("_runtime", "_samples", "_per_second")
    return name.startswith(("eval_", "test_")) and not name.endswith(other)


def tree_lines(folder: Path) -> list[str]:
    """A line for each of SHOWN that the folder has, with its size and meaning, and one for all others together."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    sizes = {
        path.name: sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()) for path in paths
    }
    lines = []
    for name, meaning in SHOWN.items():
        if name in sizes:
            shown = f"{name}/" if (folder / name).is_dir() else name
            lines.append(f"{shown:<20}{size(sizes.pop(name)):>8}  {meaning}")
    if sizes:
        others, total = f"{len(sizes)} others", size(sum(sizes.values()))
        lines.append(f"{others:<20}{total:>8}  charts, curves, choices, data: README.md of fasttune lists them")
    return lines


def print_predictions(
    predictions: Iterable[Mapping[str, Any]], inputs: Sequence[str] | Sequence[tuple[str, str]]
) -> None:
    """`inputs`: the texts or pairs from the command line; empty if the predictions hold those of a file."""
    out = Terminal(soft_wrap=True)
    for position, prediction in enumerate(predictions):
        given = inputs[position] if inputs else f"row {prediction['id']}  {beginning(prediction)}".rstrip()
        shown = "  " + printable(given if isinstance(given, str) else " | ".join(given))
        out.print(Text(printable(answer(prediction)), style="bold"), bar(prediction), Text(shown), sep="")


def answer(prediction: Mapping[str, Any]) -> str:
    """A prediction in words: label, labels with probabilities, number, answer, entities or tags."""
    if is_empty(prediction):
        return "(no text)"
    if "tags" in prediction:
        marked = prediction.get("entities")
        if marked is None:
            return " ".join(map("/".join, zip(prediction["tokens"], prediction["tags"], strict=True)))
        return ", ".join(f"{entity['text']} [{entity['type']}]" for entity in marked) or "(none)"
    if "answer" in prediction:
        return prediction["answer"] or "(no answer)"
    if "labels" in prediction:
        given = (f"{label} {prediction['probabilities'][label]:.3f}" for label in prediction["labels"])
        return ", ".join(given) or "(none)"
    if "label" in prediction:
        return prediction["label"] if prediction["label"] is not None else "(unsure)"
    return f"{prediction['score']:.4f}"


def beginning(prediction: Mapping[str, Any]) -> str:
    """The first characters of its input, on one line."""
    roles = ("text", "text_pair", "question", "context")
    text = " ".join(" | ".join(prediction[role] for role in roles if prediction.get(role)).split())
    return text if len(text) <= INPUT_CHARACTERS else text[: INPUT_CHARACTERS - 4] + " ..."


def is_empty(prediction: Mapping[str, Any]) -> bool:
    """Whether it belongs to a row without a text."""
    return all(value is None for name, value in prediction.items() if name not in NOT_PREDICTED)


def bar(prediction: Mapping[str, Any]) -> str:
    if is_empty(prediction) or ("label" not in prediction and "answer" not in prediction):
        return ""
    filled = round(prediction["score"] * BAR_WIDTH)
    return f" {prediction['score']:.3f} {'#' * filled}{'.' * (BAR_WIDTH - filled)}"


def print_recipes(recipes: Mapping[str, str]) -> None:
    width = max(map(len, recipes))
    for name, purpose in recipes.items():
        write_line(f"{name:<{width}}  {purpose}")


def print_finding(name: str, state: str, found: str, hint: str) -> None:
    write_line(f"{state:<8} {name:<17} {found}", flush=True)
    if hint:
        write_line(f"{'':<26} hint: {hint}", flush=True)


def print_facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {part}" for key, part in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        elif name.endswith("_bytes"):
            name, value = name.removesuffix("_bytes"), size(value)
        write_line(f"{name:<14}{value}")
