"""Exact match and F1 of answers by the official definition of SQuAD (evaluate-v2.0.py), in 0..100.

Rajpurkar et al. 2016 and 2018: case, punctuation, the words a, an, the and white space do not count; F1 is that of the
bags of words; of several right answers the one that fits best counts. Where words are not written apart (Chinese
characters and kana) each character is a word of its own and Chinese punctuation does not count, as for cmrc2018.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

METRICS = ("exact_match", "f1")
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)
FIRST_CJK = "\u3000"  # its punctuation begins here; below it only that of ASCII is left out, as in the official script
# CJK ideographs with extensions and compatibility forms, and kana: written without spaces.
UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")


def normalized(text: str) -> str:
    has_unspaced = UNSPACED.search(text) is not None
    kept = "".join(character for character in text.lower() if not _is_punctuation(character, has_unspaced))
    return " ".join(UNSPACED.sub(r" \1 ", ARTICLES.sub(" ", kept)).split())


def _is_punctuation(character: str, has_unspaced: bool) -> bool:
    """Beside Chinese characters also quotation marks, dots and the wide forms of ASCII's marks, wherever Unicode has
    them, as in cmrc2018's own script; elsewhere the official script of SQuAD drops ASCII's alone.
    """
    if character in PUNCTUATION:
        return True
    is_mark = unicodedata.category(character).startswith("P")
    if has_unspaced:
        return is_mark or unicodedata.normalize("NFKC", character) in PUNCTUATION
    return character >= FIRST_CJK and is_mark


def exact_match(answer: str, right: Sequence[str]) -> float:
    """1 where the answer is one of the right ones; no right ones: the answer must be empty."""
    return float(normalized(answer) in _wanted(right))


def f1(answer: str, right: Sequence[str]) -> float:
    """The best F1 of the answer's words beside those of a right answer, in 0..1."""
    found = normalized(answer).split()
    return max(_f1_of(found, text.split()) for text in _wanted(right))


def _wanted(right: Sequence[str]) -> list[str]:
    """Right answers of nothing but articles and punctuation do not count, unless there are no others."""
    return [text for text in map(normalized, right) if text] or [""]


def _f1_of(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted))


def score(answers: Sequence[str], right: Sequence[Sequence[str]], names: Sequence[str] = METRICS) -> dict[str, float]:
    """The named metrics in 0..100; where some questions have no answer, also those of either kind: HasAns_f1 ...

    `right`: the right answers of each question, none where there is no answer.
    """
    functions = {"exact_match": exact_match, "f1": f1}
    has_answer = np.array([len(texts) > 0 for texts in right])
    parts = {"": np.ones(len(right), dtype=bool)}
    if not has_answer.all():
        parts |= {"HasAns_": has_answer, "NoAns_": ~has_answer}
    found = {}
    for name in names:
        values = np.array([functions[name](answer, texts) for answer, texts in zip(answers, right, strict=True)])
        for part, chosen in parts.items():
            if chosen.any():
                # The official script shortens the name in its parts.
                written = "exact" if part and name == "exact_match" else name
                found[part + written] = 100 * float(values[chosen].mean())
    return found


def best_threshold(no_answer_scores: np.ndarray, f1_if_answered: np.ndarray, has_answer: np.ndarray) -> float:
    """The threshold with the best mean F1: a question whose score is above it is left unanswered.

    `no_answer_scores` (N,): how much better no answer scores than the best span; `f1_if_answered` (N,) in 0..1;
    `has_answer` (N,) bool. The exact maximum over all cuts, as find_best_thresh of the official script has it.
    """
    order = np.argsort(no_answer_scores, kind="stable")
    ranked = no_answer_scores[order]
    # From all unanswered on, each question that is answered as well gains its F1, or loses the 1 of its silence.
    gains = np.where(has_answer, f1_if_answered, -1.0)[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    can_cut = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    best = int(np.where(can_cut, totals, -np.inf).argmax())
    if best == 0:
        return float(ranked[0] - 1.0)
    if best == len(ranked):
        return float(ranked[-1] + 1.0)
    return float((ranked[best - 1] + ranked[best]) / 2)
