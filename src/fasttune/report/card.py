"""The model card, README.md of a run folder, in the hub's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fasttune.recipe import Recipe, dump
from fasttune.starter.model import EMBEDDED_MODEL

TEMPLATE = """---
{front_matter}
---

# {name}

A {task} model, fine-tuned from `{model}` with fasttune.{labels}

| {split} metric | value |
|---|---|
{scores}

## Data

{data}{incidents}

## Use

{use}

## Recipe

```yaml
{recipe}
```

Trained on {device} in {precision}; {versions}.
"""


USE = {
    "text-classification": """```python
from transformers import pipeline

classify = pipeline("text-classification", model="PATH OF THIS FOLDER")
classify("...")
```

`fasttune predict PATH "..."` gives the probabilities of all labels.""",
    "question-answering": """```python
import fasttune

reader = fasttune.load("PATH OF THIS FOLDER")
reader.predict([("Who came?", "Ann came at noon.")])
```

The same on the command line: `fasttune predict PATH --question "..." --context "..."`. The weights are plain ones for
`AutoModelForQuestionAnswering.from_pretrained`.""",
    "token-classification": """```python
import fasttune

tagger = fasttune.load("PATH OF THIS FOLDER")
tagger.predict(["Ann came to Paris."])
```

The same on the command line: `fasttune predict PATH "..."`; or by transformers with
`pipeline("token-classification")`.""",
}


ANY_USE = """```python
import fasttune

fasttune.load("PATH OF THIS FOLDER").predict(["..."])
```

The same on the command line: `fasttune predict PATH "..."`."""


def held_out_scores(results: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The split that the card reports (test where there is one) and its metrics without speeds."""
    prefix = "test" if any(name.startswith("test_") for name in results) else "eval"
    scores = {
        name.removeprefix(f"{prefix}_"): value
        for name, value in results.items()
        if name.startswith(f"{prefix}_") and "runtime" not in name and "_per_" not in name
    }
    return "test" if prefix == "test" else "validation", scores


def front_matter(name: str, recipe: Recipe, split: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """What the hub reads: task, base model, results."""
    result = {
        "task": {"type": recipe.task},
        "dataset": {"name": str(recipe.data.train), "type": "custom", "split": split},
        "metrics": [{"type": metric, "value": round(value, 4)} for metric, value in scores.items()],
    }
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": recipe.task,
        "tags": ["fasttune", recipe.task],
        "model-index": [{"name": name, "results": [result]}],
    }
    if recipe.model != EMBEDDED_MODEL:
        front["base_model"] = recipe.model
    return front


def data_section(data_report: Mapping[str, Any]) -> str:
    """Rows and lengths of each split, what was decided about them, and what is doubtful."""
    lines = ["| split | rows | tokens of a row, mean and most | rows that are cut |", "|---|---|---|---|"]
    for name, facts in data_report["splits"].items():
        sample = ", a sample" if facts["is_sample"] else ""
        lengths, cut = facts["tokens_per_example"], facts["truncated"]["num_examples"]
        lines.append(f"| {name}{sample} | {facts['num_rows']:,} | {lengths['mean']}, {lengths['max']} | {cut:,} |")
    for title, entries in (
        ("Decided", data_report["notes"]),
        ("Doubtful", [warning_line(entry) for entry in data_report["warnings"]]),
    ):
        if entries:
            lines += ["", f"{title}:", "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines)


def warning_line(entry: Mapping[str, Any]) -> str:
    hint = f" (`{entry['hint']}`)" if entry["hint"] else ""
    return f"{entry['code']} {entry['where']}: found {entry['found']}, expected {entry['expected']}{hint}"


def card(
    *,
    name: str,
    recipe: Recipe,
    label_names: Sequence[str],
    results: Mapping[str, Any],
    data_report: Mapping[str, Any],
    environment: Mapping[str, Any],
    incidents: Sequence[str] = (),
) -> str:
    """Markdown; `results` as in all_results.json, `incidents` of training in words, the rest as in the files of that
    name.
    """
    split, scores = held_out_scores(results)
    front = yaml.safe_dump(front_matter(name, recipe, split, scores), sort_keys=False, allow_unicode=True)
    return TEMPLATE.format(
        front_matter=front.strip(),
        name=name,
        task=recipe.task,
        model=recipe.model,
        labels=f" Labels: {', '.join(f'`{label}`' for label in label_names)}." if label_names else "",
        use=USE.get(recipe.task, ANY_USE),
        split=split,
        scores="\n".join(f"| {metric} | {value:.4f} |" for metric, value in scores.items()),
        data=data_section(data_report),
        incidents="".join(["\n\nIn training:\n", *(f"\n- {incident}" for incident in incidents)]) if incidents else "",
        recipe=dump(recipe).strip(),
        device=environment["device"]["value"],
        precision=environment["precision"]["value"],
        versions=", ".join(f"{package} {version}" for package, version in environment["versions"].items()),
    )
