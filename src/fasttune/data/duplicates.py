"""Texts that stand twice, word for word or nearly, found among many in one pass.

Two texts are the same where they differ in case, blanks and Unicode form only. They are nearly the same where at least
SIMILAR of all pairs of neighbouring words in either (with marks for begin and end) stand in both: the Jaccard
similarity of their sets of word pairs. Of 20 words two may differ, of 10 words one. Of texts above twice END characters
their beginnings and ends are compared: so that memory and time are those of short texts.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
section 3.4), each is then measured exactly: what is reported is similar, and what is similar is found with a
probability of FOUND at the least similarity and nearly 1 above it. The constants come from a fixed seed, so that the
same texts always give the same answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

SIMILAR = 0.6
BANDS, ROWS_OF_BAND = 24, 4
FOUND = 1 - (1 - SIMILAR**ROWS_OF_BAND) ** BANDS  # .964; at a similarity of .7 it is .9986
END = 250  # characters
TEXTS_AT_ONCE = 2_000
FEATURES_AT_ONCE = 1_000_000  # of the pairs that are measured together, of which there are fewer than 2**20
NUMBER_BITS = np.uint64(44)  # of a hash that are compared, beside the number of the pair
# A word is a run of letters and digits; characters that are written without blanks stand for themselves.
WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
BOUNDARY = np.uint64(0x9E3779B97F4A7C15)  # stands for begin and end; any constant would do


@dataclass(frozen=True)
class Duplicates:
    """Rows of equal numbers in `exact` (N,) are the same; in `near` (N,) they are similar, directly or by others."""

    exact: np.ndarray
    near: np.ndarray


def exact_groups(texts: Iterable[str]) -> np.ndarray:
    """(N,) int64: the number of the first row with the same text."""
    first: dict[int, int] = {}  # by hash: of a million texts two would share one once in forty million times
    return np.fromiter((first.setdefault(hash(_normal(text)), row) for row, text in enumerate(texts)), dtype=np.int64)


def find(texts: Iterable[str]) -> Duplicates:
    """Both kinds of all texts; memory grows by about 0.4 kB for a text of 20 words."""
    first: dict[int, int] = {}
    exact: list[int] = []
    parts = [_word_pairs([])]  # of texts that are new: their word pairs, and how many each has
    for chunk in _chunks(map(_normal, texts), TEXTS_AT_ONCE):
        new = []
        for text in chunk:
            row = len(exact)
            exact.append(first.setdefault(hash(text), row))
            if exact[-1] == row:
                new.append(text)
        parts.append(_word_pairs(new))
    groups = np.array(exact, dtype=np.int64)
    if not exact:
        return Duplicates(groups, groups)
    rows = np.unique(groups)
    features, counts = map(np.concatenate, zip(*parts, strict=True))
    return Duplicates(groups, rows[_linked(features, counts)][np.searchsorted(rows, groups)])


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _chunks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(texts, size)):
        yield chunk


def _word_pairs(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The set of each text as uint64 hashes, one after the other and each sorted, and its size."""
    from pandas.util import hash_array

    texts = [text if len(text) <= 2 * END else f"{text[:END]} {text[-END:]}" for text in texts]
    words = [WORDS.findall(text) or [text] for text in texts]  # of marks alone: the whole text as one word
    counts = np.array([len(own) for own in words], dtype=np.int64)
    flat = np.array([word for own in words for word in own], dtype=object)
    # Each text is written as boundary, words, boundary; a pair is a neighbour and the next.
    total = int(counts.sum()) + 2 * len(texts)
    line = np.full(total, BOUNDARY, dtype=np.uint64)
    ends = np.cumsum(counts + 2)
    is_word = np.ones(total, dtype=bool)
    is_word[ends - 1] = is_word[ends - counts - 2] = False
    if len(flat):
        line[is_word] = hash_array(flat, categorize=False)
    pairs = _mix(line[:-1] * np.uint64(3) + line[1:]) if total else line
    row = np.repeat(np.arange(len(texts)), counts + 2)
    inside = row[:-1] == row[1:]
    return _sets(pairs[inside], row[:-1][inside], len(texts))


def _sets(values: np.ndarray, row: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Each value once a row."""
    order = np.lexsort((values, row))
    values, row = values[order], row[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = (values[1:] != values[:-1]) | (row[1:] != row[:-1])
    return values[first], np.bincount(row[first], minlength=num_rows)


def _mix(values: np.ndarray) -> np.ndarray:
    """A well spread hash of a hash: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _linked(features: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(M,) the first text that is similar, directly or by others, of M texts with `counts` features each."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = len(counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    pairs = _candidates(features, starts)
    similar = pairs[_similarity(features, starts, pairs) >= SIMILAR]
    graph = coo_array((np.ones(len(similar), bool), similar.T), shape=(number, number))
    component = connected_components(graph, directed=False)[1]
    first = np.full(number, number)
    np.minimum.at(first, component, np.arange(number))
    return first[component]


def _candidates(features: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of texts that agree in a band.

    Of those that share a bucket each is paired with its neighbour and the first, not with all: a bucket of boilerplate
    costs no more than its size, and another band brings together what this one has left.
    """
    generator = np.random.default_rng(0)
    number = len(starts) - 1
    found = []
    for _ in range(BANDS):
        key = np.zeros(number, dtype=np.uint64)
        for factor, shift in generator.integers(1, 2**63, (ROWS_OF_BAND, 2), dtype=np.uint64):
            for first in range(0, number, TEXTS_AT_ONCE):
                last = min(first + TEXTS_AT_ONCE, number)
                # Multiply and shift modulo 2**64 orders hashes anew; the factor is odd, so that none are lost.
                own = features[starts[first] : starts[last]] * (factor | np.uint64(1)) + shift
                least = np.minimum.reduceat(own, starts[first:last] - starts[first])
                key[first:last] = _mix(key[first:last] ^ least)
        order = np.argsort(key, kind="stable")
        begins = np.concatenate([[True], key[order][1:] != key[order][:-1]])
        head = order[np.maximum.accumulate(np.where(begins, np.arange(number), 0))]
        same = np.flatnonzero(~begins)
        for other in (order[same - 1], head[same]):
            low, high = np.minimum(order[same], other), np.maximum(order[same], other)
            found.append(np.unique(low * number + high))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // number, pairs % number], axis=1)


def _similarity(features: np.ndarray, starts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(P,) the Jaccard similarity of each pair."""
    sizes = np.diff(starts)
    common = np.zeros(len(pairs), dtype=np.int64)
    parts = np.cumsum(sizes[pairs].sum(axis=1)) // FEATURES_AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(pairs)]
    for first, last in pairwise(bounds):
        keys = []
        for side in pairs[first:last].T:
            length = sizes[side]
            number = np.repeat(np.arange(last - first, dtype=np.uint64), length)
            within = np.arange(len(number)) - np.repeat(np.cumsum(length) - length, length)
            value = features[np.repeat(starts[side], length) + within]
            # One number to sort by: the pair, then what is left of the hash.
            keys.append((number << NUMBER_BITS) | (value >> (np.uint64(64) - NUMBER_BITS)))
        key = np.sort(np.concatenate(keys))
        twice = key[1:] == key[:-1]
        common[first:last] = np.bincount((key[1:][twice] >> NUMBER_BITS).astype(np.int64), minlength=last - first)
    total = sizes[pairs].sum(axis=1) - common
    return common / np.maximum(total, 1)
