"""Exact match and F1 of answers by the official definition of SQuAD (evaluate-v2.0.py), in 0..100.

Rajpurkar et al. 2016 and 2018: case, punctuation, the articles a, an, the and white space are ignored; F1 compares bags
of words; with several gold answers the best match counts. In scripts without spaces (Chinese characters and kana) every
character is a word, and Chinese punctuation is ignored, as in cmrc2018.
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
FIRST_CJK = "\u3000"  # CJK punctuation begins here; below it the official script drops ASCII punctuation only
# CJK ideographs with extensions and compatibility forms, and kana: written without spaces.
UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")


def normalized(text: str) -> str:
    """The text in lower case, without punctuation and articles, its words separated by one space."""
    has_unspaced = UNSPACED.search(text) is not None
    kept = "".join(character for character in text.lower() if not _is_punctuation(character, has_unspaced))
    return " ".join(UNSPACED.sub(r" \1 ", ARTICLES.sub(" ", kept)).split())


def _is_punctuation(character: str, has_unspaced: bool) -> bool:
    """Whether to drop the character: ASCII punctuation, as in SQuAD's script, and CJK punctuation.

    In texts with Chinese characters or kana, all other Unicode punctuation and the wide forms of ASCII's are dropped
    too, as in cmrc2018's script.
    """
    if character in PUNCTUATION:
        return True
    is_mark = unicodedata.category(character).startswith("P")
    if has_unspaced:
        return is_mark or unicodedata.normalize("NFKC", character) in PUNCTUATION
    return character >= FIRST_CJK and is_mark


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 if the answer matches a gold answer or, if there are none, is empty; else 0."""
    return float(normalized(answer) in _normalized_gold(gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """The best F1 between the words of the answer and those of a gold answer, in 0..1."""
    words = normalized(answer).split()
    return max(_f1_of(words, text.split()) for text in _normalized_gold(gold))


def _normalized_gold(gold: Sequence[str]) -> list[str]:
    """The normalized gold answers; those of articles and punctuation alone are ignored, unless there are no others."""
    return [text for text in map(normalized, gold) if text] or [""]


def _f1_of(words: list[str], gold_words: list[str]) -> float:
    if not words or not gold_words:
        return float(words == gold_words)
    num_common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * num_common / (len(words) + len(gold_words))


def score(answers: Sequence[str], gold: Sequence[Sequence[str]], names: Sequence[str] = METRICS) -> dict[str, float]:
    """The named metrics in 0..100; if some questions have no answer, also those of either kind: HasAns_f1 ...

    `gold`: the gold answers of each question; an empty list if it has no answer.
    """
    functions = {"exact_match": exact_match, "f1": f1}
    has_answer = np.array([len(texts) > 0 for texts in gold])
    subsets = {"": np.ones(len(gold), dtype=bool)}
    if not has_answer.all():
        subsets |= {"HasAns_": has_answer, "NoAns_": ~has_answer}
    scores = {}
    for name in names:
        values = np.array([functions[name](answer, texts) for answer, texts in zip(answers, gold, strict=True)])
        for prefix, is_in_subset in subsets.items():
            if is_in_subset.any():
                # The official script says HasAns_exact, not HasAns_exact_match.
                suffix = "exact" if prefix and name == "exact_match" else name
                scores[prefix + suffix] = 100 * float(values[is_in_subset].mean())
    return scores


def best_threshold(no_answer_scores: np.ndarray, f1_if_answered: np.ndarray, has_answer: np.ndarray) -> float:
    """The threshold with the best mean F1: questions with a higher score get no answer.

    `no_answer_scores` (N,): how much better no answer scores than the best span; `f1_if_answered` (N,) in 0..1;
    `has_answer` (N,) bool. The exact maximum, as computed by find_best_thresh of the official script.
    """
    order = np.argsort(no_answer_scores, kind="stable")
    ranked = no_answer_scores[order]
    # Start with no question answered. Each question answered in addition gains its F1, or loses 1 if it has no answer.
    gains = np.where(has_answer, f1_if_answered, -1.0)[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    can_cut = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    best = int(np.where(can_cut, totals, -np.inf).argmax())
    if best == 0:
        return float(ranked[0] - 1.0)
    if best == len(ranked):
        return float(ranked[-1] + 1.0)
    return float((ranked[best - 1] + ranked[best]) / 2)
