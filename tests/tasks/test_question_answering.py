"""The question answering task alone: the loss, answers over windows, no answer, and its files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_tokenizer

from fasttune import recipe as recipes
from fasttune.data.answers import NOWHERE, Answer
from fasttune.data.batching.collate import Padding, collate
from fasttune.data.tokens.store import IGNORED
from fasttune.errors import DataError, RecipeError
from fasttune.tasks import QuestionAnswering, Rows

CONTEXT = "the food was good and the room was very bad again"
LONG = " ".join(f"w{number}" for number in range(40))


def make_recipe(**sections: Any) -> recipes.Recipe:
    return recipes.load({"task": "question-answering", "data": {"train": "rows.json"}, **sections})


def make_rows(*answers: tuple[Answer, ...], context: str = CONTEXT) -> Rows:
    size = len(answers)
    values = {"question": ["good or bad"] * size, "context": [context] * size, "answers": list(answers)}
    return Rows([f"q{number}" for number in range(size)], values)


GOOD, BAD = Answer("good", 13), Answer("very bad", 35)


def make_task(rows: Rows, **evaluation: Any) -> QuestionAnswering:
    recipe = make_recipe(evaluation=evaluation, preprocessing={"doc_stride": 4})
    return QuestionAnswering.from_rows(rows, recipe, "rows")


def test_the_loss_is_transformers_own_where_nothing_is_padded() -> None:
    import transformers

    rows = make_rows((GOOD,), (BAD,), ())
    task = make_task(rows)
    store = task.encode(rows, tiny_tokenizer(), 60, "rows")
    batch = collate(store, np.arange(3))
    torch.manual_seed(0)
    model = transformers.BertForQuestionAnswering(tiny_config()).eval()
    outputs = model(**batch.inputs)
    total, weight = task.loss(outputs, batch, training=True), task.weight(batch.targets)
    assert weight == 3
    expected = model(**batch.inputs, **batch.targets).loss
    assert (total / weight).item() == pytest.approx(expected.item(), rel=1e-6)


def test_padding_changes_no_loss_and_unknown_answers_count_for_nothing() -> None:
    rows = make_rows((GOOD,), (Answer("gone", NOWHERE),), (Answer("gone", NOWHERE), BAD))
    task = make_task(rows)
    store = task.encode(rows, tiny_tokenizer(), 60, "rows")
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 40))).float()

    def loss(length: int) -> tuple[float, float]:
        batch = collate(store, np.arange(3), Padding(length=length))
        outputs = {name: logits[part, :, :length] for part, name in enumerate(("start_logits", "end_logits"))}
        return task.loss(outputs, batch, training=True).item(), task.weight(batch.targets)

    assert loss(int(store.lengths.max())) == loss(40) and loss(40)[1] == 2
    assert store.targets["start_positions"][1] == IGNORED
    first = int(store.targets["start_positions"][2])
    assert store.token_features["offsets"][store.starts[2] + first, 0] == BAD.start, "the first that stands somewhere"


def logits_for(task: QuestionAnswering, rows: Rows, max_length: int, wanted: dict[int, tuple[Answer, float]]) -> Any:
    """Results of a model that gives `score` to the answer of each row, and 0 to all else; and the store."""
    store = task.encode(rows, tiny_tokenizer(), max_length, "rows")
    parts = []
    for window in range(len(store)):
        batch = collate(store, np.array([window]))
        size = batch.inputs["input_ids"].shape[1]
        start, end = torch.zeros(1, size), torch.zeros(1, size)
        answer, score = wanted.get(int(store.rows[window]), (None, 0.0))
        if answer is not None:
            offsets = store.token_features["offsets"][store.starts[window] : store.starts[window + 1]].tolist()
            for place, (begin, stop) in enumerate(offsets):
                start[0, place] = score / 2 if stop and begin == answer.start else 0
                end[0, place] = score / 2 if stop and stop == answer.start + len(answer.text) else 0
        parts.append(task.result({"start_logits": start, "end_logits": end}, batch).numpy())
    return np.concatenate(parts), store


def test_answers_come_from_any_window_and_in_the_order_of_the_rows() -> None:
    words = LONG.split()
    answers = [(Answer(words[place], LONG.index(words[place])),) for place in (30, 39, 12)]
    rows = make_rows(*answers, context=LONG)
    task = make_task(rows)
    results, store = logits_for(task, rows, 20, {row: (own[0], 9.0) for row, own in enumerate(answers)})
    assert len(store) > 6
    predictions = list(task.decode(results, store, rows))
    assert [found["answer"] for found in predictions] == ["w30", "w39", "w12"]
    assert [found["id"] for found in predictions] == ["q0", "q1", "q2"]
    for found in predictions:
        assert LONG[found["start"] : found["end"]] == found["answer"] and found["no_answer_probability"] == 0.0
        places = [(one["start"], one["end"]) for one in found["n_best"]]
        assert len(set(places)) == len(places) == 20, "windows overlap, spans do not repeat"
        assert sum(one["score"] for one in found["n_best"]) == pytest.approx(1)
        assert found["score"] == found["n_best"][0]["score"] == max(one["score"] for one in found["n_best"])
    assert task.score(results, store, rows) == {"exact_match": 100.0, "f1": 100.0}


def test_answers_are_no_longer_than_asked() -> None:
    rows = make_rows((BAD,))
    results, store = logits_for(make_task(rows), rows, 60, {0: (BAD, 9.0)})
    assert list(make_task(rows).answers(results, store, rows)) == ["very bad"]
    short = make_task(rows, max_answer_length=1)
    results, store = logits_for(short, rows, 60, {0: (BAD, 9.0)})
    assert next(short.answers(results, store, rows)) in ("very", "bad")


def test_no_answer_by_the_threshold_which_is_set_on_the_validation_rows_and_kept() -> None:
    rows = make_rows((GOOD,), (BAD,), (), ())
    task = make_task(rows)
    assert task.tunes and task.threshold == 0.0 and "2 of 4 questions have no answer" in task.notes[0]
    # No answer scores 0: spans of 3 and 4 are right, those of 1 and 2 would be wrong.
    wanted = {0: (GOOD, 3.0), 1: (BAD, 4.0), 2: (GOOD, 1.0), 3: (BAD, 2.0)}
    results, store = logits_for(task, rows, 60, wanted)
    assert list(task.answers(results, store, rows)) == ["good", "very bad", "good", "very bad"]
    calibrated = task.calibrated(results, store, rows)
    assert (
        calibrated.threshold == pytest.approx(-2.5)
        and calibrated.state()["null_score_diff_threshold"] == calibrated.threshold
    )
    assert list(calibrated.answers(results, store, rows)) == ["good", "very bad", "", ""]
    found = calibrated.score(results, store, rows)
    assert (found["f1"], found["NoAns_exact"], found["HasAns_f1"]) == (100, 100, 100)
    silent = list(calibrated.decode(results, store, rows))[2]
    assert (silent["answer"], silent["start"], silent["end"]) == ("", None, None)
    assert 0 < silent["no_answer_probability"] == silent["score"] < 1 and len(silent["n_best"]) == 20
    saved = QuestionAnswering.from_state(calibrated.state(), make_recipe(preprocessing={"doc_stride": 4}))
    assert list(saved.answers(results, store, rows)) == list(calibrated.answers(results, store, rows))
    asked = make_recipe(preprocessing={"doc_stride": 4}, evaluation={"null_score_diff_threshold": -3.5})
    changed = QuestionAnswering.from_state(calibrated.state(), asked)
    assert list(changed.answers(results, store, rows)) == ["", "very bad", "", ""]


def test_a_threshold_of_the_recipe_is_not_tuned() -> None:
    rows = make_rows((GOOD,), ())
    task = make_task(rows, null_score_diff_threshold=1.5)
    results, store = logits_for(task, rows, 60, {0: (GOOD, 3.0)})
    assert task.calibrated(results, store, rows).threshold == 1.5


def test_probabilities_are_a_softmax_with_no_answer_among_them() -> None:
    rows = make_rows((GOOD,), ())
    task = make_task(rows, n_best_size=3)
    results, store = logits_for(task, rows, 60, {0: (GOOD, 2.0)})
    found = next(task.decode(results, store, rows))
    scores = [2.0, *[1.0] * 2, 0.0]  # the answer, the best of those that share one end with it, no answer
    expected = np.exp(scores) / np.exp(scores).sum()
    assert [one["score"] for one in found["n_best"]] == pytest.approx(expected[:3])
    assert found["no_answer_probability"] == pytest.approx(expected[3])


def test_where_no_span_was_found_the_official_scorer_reads_a_number() -> None:
    rows = make_rows((), context="\u200b")  # of which this tokenizer makes no token
    task = make_task(rows)
    results, store = logits_for(task, rows, 60, {})
    assert next(iter(task.candidates(results, store, rows)))[0] == []
    assert task.files(results, store, rows)["null_odds"] == {"q0": 1e9}


def test_the_files_of_the_official_scorer() -> None:
    rows = make_rows((GOOD,), ())
    task = make_task(rows)
    results, store = logits_for(task, rows, 60, {0: (GOOD, 3.0), 1: (BAD, -1.0)})
    files = task.files(results, store, rows)
    assert list(files) == ["predictions", "nbest_predictions", "null_odds"]
    assert files["predictions"]["q0"] == files["nbest_predictions"]["q0"][0]["text"] == "good"
    assert files["null_odds"]["q0"] == pytest.approx(-3.0)
    without = make_task(make_rows((GOOD,)))
    assert "null_odds" not in without.files(results, store, rows)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (("Who?", "Ann."), [("Who?", "Ann.")]),
        ({"question": "Who?", "context": "Ann."}, [("Who?", "Ann.")]),
        ([("Who?", "Ann."), {"question": "Why?", "context": "So."}], [("Who?", "Ann."), ("Why?", "So.")]),
    ],
)
def test_what_can_be_asked(inputs: Any, expected: list[tuple[str, str]]) -> None:
    rows = make_task(make_rows((GOOD,))).rows_of(inputs)
    assert list(zip(rows.values["question"], rows.values["context"], strict=True)) == expected


@pytest.mark.parametrize("given", ["Who?", ("Who?",), ("Who?", ""), {"question": "Who?"}, ("Who?", 7), 5])
def test_what_cannot_be_asked(given: Any) -> None:
    with pytest.raises(DataError, match=r"question 2: found .*expected a question and its context"):
        make_task(make_rows((GOOD,))).rows_of([("Who?", "Ann."), given])


@pytest.mark.parametrize(
    "settings",
    [
        {"problem": "single-label"},
        {"data": {"train": "rows.json", "label_names": ["a", "b"]}},
        {"training": {"label_smoothing_factor": 0.1}},
        {"training": {"class_weights": "balanced"}},
    ],
)
def test_settings_of_other_tasks_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"only, but the task is question-answering\n.*hint: "):
        make_recipe(**settings)


def test_metrics_of_other_tasks_are_refused() -> None:
    with pytest.raises(
        RecipeError, match="metric accuracy is not available for these labels; choose from exact_match, f1"
    ):
        make_task(make_rows((GOOD,)), metrics=["accuracy"])


def test_the_report_counts_questions_and_windows() -> None:
    answer = Answer("w30", LONG.index("w30"))
    rows = make_rows((answer,), (), context=LONG)
    task = make_task(rows)
    store = task.encode(rows, tiny_tokenizer(), 20, "rows")
    found = task.describe(store)
    assert (found["questions with an answer"], found["questions without"]) == (1, 1)
    assert found["windows with the answer"] + found["windows without"] == len(store)
    assert found["windows with the answer"] in (1, 2)


def test_a_context_without_tokens_has_no_answer_and_leaves_the_threshold_finite() -> None:
    rows = make_rows((GOOD,), ())
    rows.values["context"][1] = "\u200b"
    task = make_task(rows)
    results, store = logits_for(task, rows, 60, {0: (GOOD, 3.0)})
    calibrated = task.calibrated(results, store, rows)
    assert np.isfinite(calibrated.threshold) and list(calibrated.answers(results, store, rows)) == ["good", ""]
    assert list(calibrated.decode(results, store, rows))[1]["n_best"] == []


def test_blanks_round_an_answer_are_no_part_of_it() -> None:
    rows = make_rows((Answer(" good ", 12),), (Answer("again", 44),))
    store = make_task(rows).encode(rows, tiny_tokenizer(), 60, "rows")
    starts = store.starts[:-1] + store.targets["start_positions"]
    assert store.token_features["offsets"][starts, 0].tolist() == [13, 44]
