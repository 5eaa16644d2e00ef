"""`compare`: the same rows whatever their order or file, and a sentence that says what the numbers mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_questions, make_rows, write_csv
from typer.testing import CliRunner

import fasttune
from fasttune.cli.commands import app
from fasttune.errors import DataError, UsageError
from fasttune.evaluation.comparison import sentence
from fasttune.tasks.metrics.intervals import Difference, differences
from fasttune.tasks.metrics.sums import RowSums

ROWS, HELD_OUT = make_rows(80), make_rows(60, seed=9)


def train(model: Path, folder: Path, validation: list[dict[str, str]], **training: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "train.csv", ROWS)
    write_csv(folder / "validation.csv", validation)
    recipe = {
        "model": str(model),
        "data": {"train": str(folder / "train.csv"), "validation": str(folder / "validation.csv")},
        "training": {"preset": "tutorial", "precision": "fp32", "num_train_epochs": 1, **training},
        "evaluation": {"metrics": ["accuracy", "f1", "f1_macro"]},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False).folder


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compare")
    first = train(tiny_model, folder / "a", HELD_OUT, learning_rate=1e-5)
    return first, train(tiny_model, folder / "b", HELD_OUT[::-1], learning_rate=5e-3, num_train_epochs=3)


def labels(run: Path) -> dict[str, str]:
    lines = map(json.loads, (run / "predictions" / "validation.jsonl").read_text().splitlines())
    rows = HELD_OUT if run.parent.name == "a" else HELD_OUT[::-1]
    return {row["text"]: line["label"] for row, line in zip(rows, lines, strict=True)}


def test_rows_are_matched_by_content(runs: tuple[Path, Path]) -> None:
    compared = {one.metric: one for one in fasttune.compare(*runs)}
    gold = {row["text"]: row["label"] for row in HELD_OUT}
    right = [np.mean([labels(run)[text] == label for text, label in gold.items()]) for run in runs]
    assert (compared["accuracy"].a, compared["accuracy"].b) == pytest.approx(right)
    only = [
        sum(labels(runs[one])[text] == label != labels(runs[1 - one])[text] for text, label in gold.items())
        for one in (0, 1)
    ]
    from scipy.stats import binom

    fewer, number = min(only), sum(only)
    expected = 1.0 if only[0] == only[1] else 2 * binom.cdf(fewer, number, 0.5) - binom.pmf(fewer, number, 0.5)
    assert compared["accuracy"].p_value == pytest.approx(expected)
    for one in compared.values():
        assert one.low <= one.difference <= one.high
    # The other way round the signs change.
    back = {one.metric: one for one in fasttune.compare(*runs[::-1])}
    assert back["f1_macro"].difference == pytest.approx(-compared["f1_macro"].difference)
    assert back["f1_macro"].low == pytest.approx(-compared["f1_macro"].high, rel=0.1)


def test_a_run_beside_itself_differs_in_nothing(runs: tuple[Path, Path]) -> None:
    for one in fasttune.compare(runs[0], runs[0]):
        assert (one.difference, one.p_value) == (0.0, 1.0)
        assert "have the same" in one.sentence


def test_runs_without_kept_sums_score_their_rows_again(runs: tuple[Path, Path], tmp_path: Path) -> None:
    expected = fasttune.compare(*runs)
    kept = runs[1] / "predictions" / "validation.sums.npz"
    content = kept.read_bytes()
    try:
        for damaged in (b"", content[: len(content) // 2]):
            kept.write_bytes(damaged)
            assert [one.as_json() for one in fasttune.compare(*runs, progress=False)] == [
                one.as_json() for one in expected
            ]
        kept.unlink()
        assert fasttune.compare(*runs)[0].p_value == expected[0].p_value
    finally:
        kept.write_bytes(content)


def test_three_runs_are_corrected_by_holm(runs: tuple[Path, Path]) -> None:
    one, two = (
        [found.p_value for found in fasttune.compare(*pair)] for pair in ((runs[0], runs[1]), (runs[0], runs[0]))
    )
    three = [found.p_value for found in fasttune.compare(runs[0], runs[1], runs[0])]
    for place, p_value in enumerate(one):
        assert three[place] == pytest.approx(min(1.0, 2 * min(p_value, two[place])))


def test_other_rows_are_refused(runs: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    other = train(tiny_model, tmp_path / "c", [*HELD_OUT[:-1], {"text": "good w1", "label": "positive"}])
    with pytest.raises(DataError, match="only 59 of the 60 scored rows are the same"):
        fasttune.compare(runs[0], other)
    flipped = [{**HELD_OUT[0], "label": {"positive": "negative", "negative": "positive"}[HELD_OUT[0]["label"]]}]
    other = train(tiny_model, tmp_path / "d", [*flipped, *HELD_OUT[1:]])
    with pytest.raises(DataError, match="1 row with the same text and another label"):
        fasttune.compare(runs[0], other)
    with pytest.raises(UsageError, match="at least two"):
        fasttune.compare(runs[0])


def test_results_hold_the_intervals(runs: tuple[Path, Path]) -> None:
    results = json.loads((runs[1] / "eval_results.json").read_text())
    for metric in ("accuracy", "f1", "f1_macro"):
        low, value, high = (results[f"eval_{metric}{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1 and low < high
    again = fasttune.evaluate(runs[1], split="validation", progress=False)
    assert again["eval_f1_low"] == results["eval_f1_low"]


def test_questions_are_compared_by_text(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, make_questions(60))))
    found = []
    for seed in (1, 2):
        recipe = {
            "task": "question-answering",
            "model": str(tiny_model),
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "preprocessing": {"max_length": 64, "doc_stride": 16},
            "training": {"preset": "tutorial", "max_steps": 4, "seed": seed},
            "tracking": {"report_to": "none"},
        }
        found.append(fasttune.fit(recipe, output=tmp_path / f"run-{seed}", progress=False).folder)
    assert {one.metric for one in fasttune.compare(*found)} == {"exact_match", "f1"}


def test_other_tasks_in_any_order(tiny_model: Path, tmp_path: Path) -> None:
    """Texts stay together in both runs, and tags without entities are compared too."""
    rows = make_questions(60)
    tagged = [
        {"tokens": row["text"].split(), "tags": ["W" if word.startswith("w") else "X" for word in row["text"].split()]}
        for row in make_rows(60)
    ]
    for task, content in (("question-answering", rows), ("token-classification", tagged)):
        found = []
        for place, ordered in enumerate((content[:30], content[29::-1])):
            for name, part in (("train", content[30:]), ("validation", ordered)):
                (tmp_path / f"{task}-{name}-{place}.jsonl").write_text("\n".join(map(json.dumps, part)))
            recipe = {
                "task": task,
                "model": str(tiny_model),
                "data": {name: str(tmp_path / f"{task}-{name}-{place}.jsonl") for name in ("train", "validation")},
                "preprocessing": {"max_length": 64, **({"doc_stride": 16} if task == "question-answering" else {})},
                "training": {"preset": "tutorial", "max_steps": 1 + 9 * place, "learning_rate": 3e-3},
                "tracking": {"report_to": "none"},
            }
            found.append(fasttune.fit(recipe, output=tmp_path / f"{task}-{place}", progress=False).folder)
        loaded = []
        for run in found:
            with (run / "predictions" / "validation.sums.npz").open("rb") as file:
                loaded.append(RowSums.load(file))
        first, second = loaded
        position = [int(np.flatnonzero(second.keys == key)[0]) for key in first.keys]
        moved = replace(second.take(np.array(position)), clusters=first.clusters)
        expected = differences(first, moved)
        assert [one.p_value for one in fasttune.compare(*found)] == [one.p_value for one in expected]


def test_command(runs: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["compare", *map(str, runs)])
    assert result.exit_code == 0 and "not settings" in result.stdout
    assert "confirm the result on test rows" in result.stdout
    printed = CliRunner().invoke(app, ["compare", *map(str, runs), "--json"])
    assert [one["metric"] for one in json.loads(printed.stdout)] == ["f1_macro", "accuracy", "f1"]


def test_sentences() -> None:
    better = Difference("accuracy", 0.80, 0.83, 0.01, 0.05, 0.004)
    assert sentence(better, "base", "large", 1000) == (
        "large is better than base by accuracy: +3.0 points on these 1,000 rows (95 % interval 1.0 to 5.0, p = 0.004)."
    )
    worse = Difference("accuracy", 0.83, 0.80, -0.05, -0.01, 0.0004)
    assert sentence(worse, "base", "large", 1000) == (
        "base is better than large by accuracy: +3.0 points on these 1,000 rows (95 % interval 1.0 to 5.0, p < 0.001)."
    )
    error = Difference("rmse", 1.0, 0.9, -0.15, -0.05, 0.01)
    assert sentence(error, "base", "large", 1000).startswith("large is better than base by rmse: 0.100 lower on these")
    unclear = Difference("f1", 71.0, 71.5, -0.5, 1.5, 0.33)
    assert sentence(unclear, "base", "large", 1000, in_percent=True) == (
        "These 1,000 rows do not show which of base and large is better by f1 (large minus base: +0.5 points of f1, "
        "95 % interval -0.5 to 1.5, p = 0.330); if the true difference is this large, about 8,200 such rows "
        "would show it in four of five cases."
    )
