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
    from fasttune.training.preflight import Checked

BAR_WIDTH = 20
INPUT_CHARACTERS = 80  # shown of a text from a file
NOT_PREDICTED = ("id", "text", "text_pair", "question", "context", "probabilities")
MEANINGS = {
    "model.safetensors": "weights; from_pretrained loads this folder",
    "README.md": "model card",
    "recipe.yaml": "the full recipe, with every automatic choice",
    "environment.json": "machine, versions, automatic choices with reasons",
    "data_report.json": "rows, labels, lengths, truncation, warnings",
    "events.jsonl": "every step and evaluation",
    "all_results.json": "all scores and speeds",
    "checksums.json": "sha256 of the model files",
    "predictions": "one line per row, with probabilities",
    "checkpoints": "for --resume",
    "tensorboard": "training curves",
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
    width = max(map(len, metrics))
    for name, value in metrics.items():
        write_line(f"{name:<{width}}  {number(name, value)}")


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
    scores = {
        name: value
        for name, value in metrics.items()
        if name in wanted or (name.startswith(("eval_", "test_")) and "_per_" not in name and "runtime" not in name)
    }
    print_metrics(scores)
    write_line(f"\n{folder}/")
    for line in tree_lines(folder):
        write_line(f"  {line}")
    write_line("\nnext:")
    write_line(f"  fasttune predict {folder} {example}")
    write_line(f"  fasttune evaluate {folder} --data more_rows.csv")
    write_line("  fasttune recipes yelp > my.yaml      # a template for your own recipe")


def tree_lines(folder: Path) -> list[str]:
    """One line per file or folder at the root, with its size and meaning."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.name.startswith("."):
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        name = path.name + ("/" if path.is_dir() else "")
        total = size(sum(file.stat().st_size for file in files))
        lines.append(f"{name:<24}{total:>8}  {MEANINGS.get(path.name, '')}".rstrip())
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
    return prediction["label"] if "label" in prediction else f"{prediction['score']:.4f}"


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
