"""Exact match and F1 by the definition of the official scorer, and the best threshold beside all thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttune.tasks.metrics import squad


@pytest.mark.parametrize(
    ("answer", "right", "exact", "overlap"),
    [
        ("the Eiffel Tower", ["Eiffel tower."], 1, 1),
        ("Eiffel", ["the Eiffel Tower", "a tower"], 0, 2 / 3),
        ("a cat sat", ["cat cat sat"], 0, 0.8),
        ("an", ["the"], 1, 1),  # nothing but articles: nothing on both sides
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("", ["Paris"], 0, 0),
        ("Paris", ["", "Paris"], 1, 1),
        ("", ["", "Paris"], 0, 0),  # an empty right answer beside others does not count
        ("1,000 km", ["1000 km"], 1, 1),
        ("U.S.", ["US"], 1, 1),
        ("it\u2019s", ["its"], 0, 0),  # punctuation beyond ASCII counts, as in the official script
        ("theory an", ["theory"], 1, 1),  # articles are whole words
        ("北京大学", ["北京"], 0, 2 / 3),
        ("《北京》", ["北京"], 1, 1),
        ("1998年", ["1998 年"], 1, 1),
    ],
)
def test_single_answers(answer: str, right: list[str], exact: float, overlap: float) -> None:
    assert squad.exact_match(answer, right) == exact
    assert squad.f1(answer, right) == pytest.approx(overlap)


def test_means_in_percent_and_both_kinds_of_questions() -> None:
    found = squad.score(["Paris", "Rome", ""], [["Paris"], [], []])
    assert found == pytest.approx(
        {
            "exact_match": 200 / 3,
            "HasAns_exact": 100,
            "NoAns_exact": 50,
            "f1": 200 / 3,
            "HasAns_f1": 100,
            "NoAns_f1": 50,
        }
    )
    assert squad.score(["a b", "c"], [["b c"], ["c"]], ["f1"]) == {"f1": pytest.approx(100 * (2 / 3 + 1) / 2)}
    assert list(squad.score([""], [[]])) == ["exact_match", "NoAns_exact", "f1", "NoAns_f1"]


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.sampled_from([0.0, 0.4, 1.0]), st.booleans()), min_size=1, max_size=12)
)
def test_no_other_threshold_is_better(questions: list[tuple[int, float, bool]]) -> None:
    scores, f1, has_answer = (np.array(part) for part in zip(*questions, strict=True))

    def mean_f1(threshold: float) -> float:
        return float(np.where(scores > threshold, ~has_answer, f1 * has_answer).mean())

    found = squad.best_threshold(scores.astype(float), f1, has_answer)
    assert np.isfinite(found)
    assert mean_f1(found) == pytest.approx(max(map(mean_f1, np.arange(-4, 4.5, 0.5))))
