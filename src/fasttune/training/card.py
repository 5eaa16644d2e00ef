"""The model card, README.md of a run folder, in the hub's format."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml

from fasttune.data.reading import is_starter
from fasttune.data.sources import is_published
from fasttune.data.starter.model import EMBEDDED_MODEL
from fasttune.errors import Problem
from fasttune.recipe import Recipe, dump
from fasttune.recipe import load as load_recipe
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.runs.folder import RunFolder
from fasttune.security.text import longest_run, markdown, markdown_code
from fasttune.training.lineage import LINEAGE, in_words

EMBEDDED_ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_LICENCE, EMBEDDED_LANGUAGE = "apache-2.0", "en"
FOREIGN = "W267"  # the texts are in another language than the model
HUB_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*", re.ASCII)

THIS_FOLDER = "PATH OF THIS FOLDER"
RECIPE, TRAINED = "\n## Recipe\n\n", "\n\nTrained on "  # around the recipe's block
TEMPLATE = """---
{front_matter}
---

# {name}

A {task_words} model fine-tuned from {model} with fasttune.{labels}

| {split} metric | value | 95 % interval |
|---|---|---|
{scores}
{caveat}
## Data

{data}{incidents}{lineage}

## Use

{use}

## Recipe

{recipe}

Trained on {device} in {precision}; {versions}.
"""


PIPELINE = """```python
from transformers import pipeline

classify = pipeline("text-classification", model="PATH OF THIS FOLDER", truncation=True, max_length={max_length})
classify("...")
```

`fasttune predict PATH "..."` prints the probability of the predicted label; `--json` those of all labels."""
FASTTUNE = """```python
import fasttune

model = fasttune.load("PATH OF THIS FOLDER")
model.predict([{example}])
```

On the command line: `fasttune predict PATH {words}`. `{auto_class}.from_pretrained` also loads the weights."""


QUESTIONS = """

Without fasttune, for a context of up to {max_length} tokens with its question:

```python
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

folder = "PATH OF THIS FOLDER"
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForQuestionAnswering.from_pretrained(folder)
question, context = "Who came?", "Ann came at noon."
given = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets, is_context = given.pop("offset_mapping")[0], torch.tensor([part == 1 for part in given.sequence_ids(0)])
with torch.no_grad():
    found = model(**given)
start = found.start_logits[0][:, None] + found.end_logits[0][None, :]
allowed = is_context[:, None] & is_context[None, :]
allowed &= torch.ones_like(allowed).triu() & torch.ones_like(allowed).tril({max_answer_length} - 1)
first, last = divmod(int(start.masked_fill(~allowed, -torch.inf).argmax()), len(offsets))
print(context[offsets[first][0] : offsets[last][1]])
```"""

TOKENS = """

```python
from transformers import pipeline

find = pipeline("token-classification", model="PATH OF THIS FOLDER", aggregation_strategy="first")
find("Ann came to Paris.")
```"""

CROSS_ENCODER = """```python
from sentence_transformers import CrossEncoder

CrossEncoder("PATH OF THIS FOLDER").predict({example})  # logits; the names are in config.json, id2label
```

`fasttune predict PATH {words}` prints the predicted label; `--json` the probabilities of all labels."""

CALIBRATED = """

The probabilities of `fasttune predict` are calibrated: the logits are divided by {temperature:.2f} first. This was
fitted to {num_rows:,} validation rows, and changes the expected calibration error from {ece_before:.3f} to
{ece_after:.3f}. Other libraries show the plain probabilities. The temperature changes no predicted label."""

CAVEAT = """
These validation rows also chose the epoch{thresholds}, so scores on new rows may be lower.
"""


def use(recipe: Recipe) -> str:
    """Code that runs and reproduces this model's predictions.

    transformers' pipeline does not truncate automatically, reads single texts, and knows neither thresholds nor
    windows, so it is shown only for models that need none of these.
    """
    if recipe.task == "question-answering":
        example, words = '("Who came?", "Ann came at noon.")', '--question "..." --context "..."'
        shown = FASTTUNE.format(example=example, words=words, auto_class="AutoModelForQuestionAnswering")
        lengths = {"max_length": recipe.preprocessing.max_length}
        return shown + QUESTIONS.format(**lengths, max_answer_length=recipe.evaluation.max_answer_length)
    if recipe.task == "token-classification":
        example = '"Ann came to Paris."'
        shown = FASTTUNE.format(example=example, words='"..."', auto_class="AutoModelForTokenClassification")
        return shown + TOKENS
    is_pair = recipe.data.columns.text_pair is not None
    if recipe.model_head == "mean":
        example, words = ('[("...", "...")]', '"..." --text-pair "..."') if is_pair else ('"..."', '"..."')
        return CROSS_ENCODER.format(example=example, words=words)
    decides = recipe.evaluation.tune_threshold or recipe.evaluation.min_precision is not None
    is_plain = recipe.problem == "single-label" and recipe.preprocessing.long_text == "truncate" and not decides
    if recipe.task == "text-classification" and is_plain and not is_pair:
        return PIPELINE.format(max_length=recipe.preprocessing.max_length)
    example, words = ('("...", "...")', '"..." --text-pair "..."') if is_pair else ('"..."', '"..."')
    return FASTTUNE.format(example=example, words=words, auto_class="AutoModelForSequenceClassification")


def held_out_scores(results: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The split that the card reports (test if there is one) and its metrics without speeds."""
    prefix = "test" if any(name.startswith("test_") for name in results) else "eval"
    scores = {
        name.removeprefix(f"{prefix}_"): value
        for name, value in results.items()
        if name.startswith(f"{prefix}_")
        and value is not None
        and not name.endswith(("_samples", "_runtime", "_second", "_low", "_high"))
    }
    return "test" if prefix == "test" else "validation", scores


def score_lines(scores: Mapping[str, float], results: Mapping[str, Any], split: str) -> Iterator[str]:
    """The rows of the table of scores, with their 95 % intervals."""
    prefix = "test" if split == "test" else "eval"
    for metric, value in scores.items():
        low, high = (results.get(f"{prefix}_{metric}_{end}") for end in ("low", "high"))
        interval = "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
        yield f"| {metric} | {value:.4f} | {interval} |"


def gain_of(baseline: Mapping[str, Any]) -> tuple[float, float, float]:
    """What fine-tuning gains over a baseline, with its interval; positive is better, also for an error such as rmse."""
    ends = (baseline["difference"], baseline["difference_low"], baseline["difference_high"])
    if baseline["metric"] not in LESS_IS_BETTER:
        return ends
    return -ends[0], -ends[2], -ends[1]


def baseline_section(baselines: Sequence[Mapping[str, Any]]) -> str:
    """What the same rows give without fine-tuning, as a table."""
    if not baselines:
        return ""
    metric = baselines[0]["metric"]
    rows = []
    for one in baselines:
        gain, low, high = gain_of(one)
        rows.append(f"| {markdown(one['name'])} | {one['value']:.4f} | {gain:+.4f} | {low:+.4f} to {high:+.4f} |")
    head = f"| without fine-tuning | {metric} | gain of fine-tuning | 95 % interval |\n|---|---|---|---|"
    return "\n".join(["", head, *rows, ""])


def base_model(recipe: Recipe) -> str | None:
    """The hub id of the base model; None for a local folder, which others cannot look up."""
    if recipe.model == EMBEDDED_MODEL:
        return EMBEDDED_ON_THE_HUB
    name = recipe.model.partition("@")[0]
    is_path = PurePath(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    is_path = is_path or Path(recipe.model).exists()
    return None if is_path or not HUB_MODEL.fullmatch(name) or PurePath(name).suffix else name


def without_folders(text: str, recipe: Recipe) -> str:
    """Replace paths on the machine that trained by file names, which are all that others need."""
    data = recipe.data
    given = [recipe.output.dir, recipe.output.mirror, recipe.model, recipe.training.teacher, data.corrections]
    for spec in (data.train, data.validation, data.test, data.unlabelled):
        given += spec if isinstance(spec, list) else [spec]
    for path in sorted(filter(None, given), key=len, reverse=True):
        if PurePath(path).is_absolute() or path.startswith(("~", ".")) or "://" in path:
            name = PurePath(path).name or path
            text = text.replace(path, name).replace(markdown(path), markdown(name))
    return text


def public_recipe(recipe: Recipe) -> str:
    """recipe.yaml for other people: without the paths of this machine."""

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cut(part) for name, part in value.items()}
        if isinstance(value, list):
            return [cut(part) for part in value]
        return without_folders(value, recipe) if isinstance(value, str) else value

    return dump(load_recipe(cut(recipe.model_dump(mode="json"))))


def recipe_block(recipe: Recipe) -> str:
    """The recipe as a block of code."""
    text = public_recipe(recipe).strip()
    fence = "`" * max(3, longest_run(text) + 1)
    return f"{fence}yaml\n{text}\n{fence}"


def card_for(folder: RunFolder, repository: str) -> str:
    """The card of a run, with the model's name on the hub in its examples."""
    recipe = load_recipe(folder.recipe)
    text = without_folders(folder.card.read_text(encoding="utf-8"), recipe)
    before, title, block = text.partition(RECIPE)
    if TRAINED in block:  # in cards of early versions, YAML may have broken a path into lines
        text = f"{before}{title}{recipe_block(recipe)}{block[block.rindex(TRAINED) :]}"
    return text.replace(THIS_FOLDER, repository).replace("fasttune predict PATH", f"fasttune predict {repository}")


def data_name(recipe: Recipe) -> str:
    specs = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    return ", ".join(without_folders(spec, recipe) for spec in specs)


def front_matter(
    name: str,
    recipe: Recipe,
    split: str,
    scores: Mapping[str, float],
    num_rows: int | None,
    warnings: Collection[str] = (),
    ancestors: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The metadata that the hub reads: task, base model, licence, language, data sets and results.

    `warnings`: the codes of the data checks' warnings. `ancestors`: as `lineage_of` finds them.
    """
    # The pretrained model, from which a chain of runs began.
    pretrained = load_recipe(recipe, {"model": ancestors[0]["model"]}) if ancestors else recipe
    result: dict[str, Any] = {
        "task": {"type": recipe.task},
        "dataset": {"name": data_name(recipe), "type": "custom", "split": split},
        "metrics": [
            {"type": metric, "value": round(value, 4)} for metric, value in scores.items() if math.isfinite(value)
        ],
    }
    if num_rows is not None:
        result["dataset"]["args"] = {"num_rows": num_rows}
    front: dict[str, Any] = {
        "library_name": "sentence-transformers" if recipe.model_head == "mean" else "transformers",
        "pipeline_tag": recipe.task,
        "tags": ["fasttune", recipe.task],
        "model-index": [{"name": name, "results": [result]}],
    }
    base = base_model(pretrained)
    if base is not None:
        front["base_model"] = base
    if pretrained.model == EMBEDDED_MODEL:  # of other models neither is known without the network
        front["license"] = EMBEDDED_LICENCE
        if FOREIGN not in warnings:
            front["language"] = EMBEDDED_LANGUAGE
    published = hub_data_sets(recipe)
    if published:
        front["datasets"] = published
        result["dataset"] |= {"name": published[0], "type": published[0]}
    return front


def hub_data_sets(recipe: Recipe) -> list[str]:
    """The ids of the training data that come from the hub, without revisions."""
    specs = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    return [re.split("[@:]", spec)[0] for spec in specs if is_published(spec) and not is_starter(spec)]


def lineage_section(ancestors: Sequence[Mapping[str, Any]]) -> str:
    """The models and runs that this one was trained on from, oldest first."""
    if not ancestors:
        return ""
    lines = [f"{number}. {markdown(words)}" for number, words in enumerate(in_words(ancestors), 1)]
    return "\n".join(["\n\n## Lineage\n", *lines, f"{len(lines) + 1}. this model"])


def data_section(data_report: Mapping[str, Any]) -> str:
    """A table of the splits, notes on how they were made, and warnings."""
    lines = ["| split | rows | tokens per row: mean, maximum | truncated rows |", "|---|---|---|---|"]
    for name, facts in data_report["splits"].items():
        sample = ", a sample" if facts["is_sample"] else ""
        lengths, cut = facts["tokens_per_example"], facts["truncated"]["num_examples"]
        lines.append(f"| {name}{sample} | {facts['num_rows']:,} | {lengths['mean']}, {lengths['max']} | {cut:,} |")
    for title, entries in (
        ("Notes", [markdown(note) for note in data_report["notes"]]),
        ("Warnings", [warning_line(entry) for entry in data_report["warnings"]]),
    ):
        if entries:
            lines += ["", f"{title}:", "", *(f"- {entry}" for entry in entries)]
    licences = {facts["licence"] for facts in data_report["splits"].values() if facts.get("licence")}
    if licences:
        lines += ["", f"Licence of the data according to its card: {markdown(', '.join(sorted(licences)))}"]
    return "\n".join(lines)


def warning_line(entry: Mapping[str, Any]) -> str:
    problem = Problem(**{name: entry[name] for name in ("code", "where", "found", "expected")})
    hint = f" ({markdown_code(entry['hint'])})" if entry["hint"] else ""
    return markdown(str(problem)) + hint


def card(
    *,
    name: str,
    recipe: Recipe,
    label_names: Sequence[str],
    results: Mapping[str, Any],
    data_report: Mapping[str, Any],
    environment: Mapping[str, Any],
    incidents: Sequence[str] = (),
    calibration: Mapping[str, Any] | None = None,
    baselines: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The card as Markdown. `results` as in all_results.json; `incidents`: sentences about training; `calibration` and
    `baselines`: the contents of their files."""
    split, scores = held_out_scores(results)
    num_rows = results.get("test_samples" if split == "test" else "eval_samples")
    codes = {entry["code"] for entry in data_report["warnings"]}
    ancestors = environment.get(LINEAGE, ())
    metadata = front_matter(name, recipe, split, scores, num_rows, codes, ancestors)
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    decides = recipe.evaluation.tune_threshold or recipe.evaluation.min_precision is not None
    thresholds = (
        " and the thresholds"
        if decides or recipe.problem == "multi-label" or recipe.task == "question-answering"
        else ""
    )
    caveat = "" if split == "test" else CAVEAT.format(thresholds=thresholds)
    rows = f"{split} ({num_rows:,} rows)" if num_rows is not None else split
    return TEMPLATE.format(
        front_matter=front.strip(),
        name=name,
        task_words=recipe.task.replace("-", " "),
        model=markdown_code(base_model(recipe) or PurePath(recipe.model).name),
        labels=f" Labels: {', '.join(map(markdown_code, label_names))}."
        if label_names and recipe.problem != "regression"
        else "",
        use=use(recipe) + (CALIBRATED.format(**calibration) if calibration else ""),
        split=rows,
        scores="\n".join(score_lines(scores, results, split)),
        caveat=baseline_section(baselines) + caveat,
        data=without_folders(data_section(data_report), recipe),
        incidents="".join(["\n\nDuring training:\n", *(f"\n- {markdown(incident)}" for incident in incidents)])
        if incidents
        else "",
        lineage=lineage_section(ancestors),
        recipe=recipe_block(recipe),
        device=environment["device"]["value"],
        precision=environment["precision"]["value"],
        versions=", ".join(f"{package} {version}" for package, version in environment["versions"].items()),
    )
