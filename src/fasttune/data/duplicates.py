"""Texts that stand twice, word for word or nearly, found among many in one pass.

Two texts are the same where they differ in case, blanks and Unicode form only. They are nearly the same where at least
SIMILAR of all pairs of neighbouring words in either (with marks for begin and end) stand in both: the Jaccard
similarity of their sets of word pairs. Of 20 words two may differ, of 10 words one. Sets of more than SKETCH pairs are
compared by those SKETCH pairs of both together whose hashes are least, a random sample of their union (bottom-k
sketches, Cohen and Kaplan 2007): memory is that of short texts, and the similarity has a standard error of .035.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
section 3.4), each is then measured: what is reported is similar, and what is similar is found with a
probability of FOUND at the least similarity and nearly 1 above it. The constants come from a fixed seed, so that the
same texts always give the same answer.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SIMILAR = 0.6
BANDS, ROWS_OF_BAND = 24, 4
FOUND = 1 - (1 - SIMILAR**ROWS_OF_BAND) ** BANDS  # .964; at a similarity of .7 it is .9986
SKETCH = 200  # word pairs
TEXTS_AT_ONCE, CHARACTERS_AT_ONCE = 2_000, 2_000_000
FEATURES_AT_ONCE = 200_000  # of the pairs that are measured together
# A word is a run of letters and digits; characters that are written without blanks stand for themselves.
WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
BOUNDARY = np.uint64(0x9E3779B97F4A7C15)  # stands for begin and end; any constant would do


# How many texts of its group each text is measured against, until one is similar: most are after the first few, and a
# group of a template's texts may be as large as the file.
COMPARED = (8, 64, 512)
PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Duplicates:
    """Rows of equal numbers in `exact` (N,) are the same; in `near` (N,) they are similar, directly or by others.

    A chain of similar texts has ends that share no word: whoever takes rows out asks `similar_to`.
    """

    exact: np.ndarray
    near: np.ndarray
    _sets: _Sets | None = None
    _place: np.ndarray | None = None  # (N,) of the set of each row

    def similar_to(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(R,) bool: which of `rows` are themselves the same as, or similar to, one of `others`."""
        found = np.isin(self.exact[rows], self.exact[others])
        if self._sets is None or self._place is None:
            return found
        theirs = others[np.argsort(self.near[others], kind="stable")]  # those of one group side by side
        first = np.searchsorted(self.near[theirs], self.near[rows], "left")
        num_near = np.searchsorted(self.near[theirs], self.near[rows], "right") - first
        for most in COMPARED:
            waiting = np.flatnonzero(~found & (num_near > 0))
            for part in np.array_split(waiting, len(waiting) * most // PAIRS_AT_ONCE + 1):
                count = np.minimum(num_near[part], most)
                row = np.repeat(part, count)
                number = _places(np.zeros_like(count), count)
                chosen = first[row] + number * num_near[row] // np.repeat(count, count)  # spread evenly over the group
                pairs = np.stack([self._place[rows[row]], self._place[theirs[chosen]]], axis=1)
                found[row[self._sets.similarity(pairs) >= SIMILAR]] = True
            num_near[num_near <= most] = 0  # all of them were measured
        return found


def exact_groups(texts: Iterable[str]) -> np.ndarray:
    """(N,) int64: the number of the first row with the same text."""
    return _first_of(np.fromiter((hash(_normal(text)) for text in texts), dtype=np.int64))


def _first_of(hashes: np.ndarray) -> np.ndarray:
    """By hash: of a million texts two would share one once in forty million times."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    return first[group].astype(np.int64)


def find(texts: Iterable[str]) -> Duplicates:
    """Both kinds of all texts; memory grows by about 0.4 kB for a text of 20 words while it runs."""
    hashes, rows, counts = array("q"), array("q"), array("q")
    features, keys = array("I"), array("I")  # arrays that grow in place: lists of parts would be held twice when joined
    for chunk in _chunks(map(_normal, texts)):
        own = np.array([hash(text) for text in chunk])
        new = np.sort(np.unique(own, return_index=True)[1])  # questions about one context often follow one another
        pairs, sizes = _word_pairs([chunk[index] for index in new])
        rows.frombytes((len(hashes) + new).tobytes())
        hashes.frombytes(own.tobytes())
        keys.frombytes(_keys(pairs, sizes).tobytes())
        kept = np.minimum(sizes, SKETCH)
        counts.frombytes(kept.tobytes())
        features.frombytes(_short(pairs[_places(np.cumsum(sizes) - sizes, kept)]).tobytes())
    groups = _first_of(np.asarray(hashes))
    if not len(groups):
        return Duplicates(groups, groups)
    of_row = np.asarray(rows)
    chosen = np.flatnonzero(groups[of_row] == of_row)
    sets = _Sets(np.asarray(features), np.concatenate([[0], np.cumsum(counts)]))
    firsts = of_row[chosen]
    linked = firsts[_linked(sets, np.asarray(keys).reshape(-1, BANDS), chosen)]
    of_group = np.searchsorted(firsts, groups)
    return Duplicates(groups, linked[of_group], sets, chosen[of_group])


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == TEXTS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _places(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places begin, begin + 1, ... of each run of this length, one run after the other."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(begins, lengths) + within


def _word_pairs(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The set of each text as uint64 hashes, one after the other and each sorted, and its size."""
    from pandas.util import hash_array

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


def _short(hashes: np.ndarray) -> np.ndarray:
    """32 bits, by which two different of the features of two texts of 20 words are one in a pair of ten million."""
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _keys(features: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(M, BANDS) the bucket of each text in each band, of M texts with `counts` features each."""
    generator = np.random.default_rng(0)
    starts = np.cumsum(counts) - counts
    keys = np.zeros((len(counts), BANDS), dtype=np.uint64)
    for band in range(BANDS):
        for factor, shift in generator.integers(1, 2**63, (ROWS_OF_BAND, 2), dtype=np.uint64):
            # Multiply and shift modulo 2**64 orders hashes anew; the factor is odd, so that none are lost.
            least = np.minimum.reduceat(features * (factor | np.uint64(1)) + shift, starts)
            keys[:, band] = _mix(keys[:, band] ^ least)
    return _short(keys)


@dataclass(frozen=True)
class _Sets:
    """Sets of features, one after the other: the features of all, and where each set begins and the last one ends.

    A set of SKETCH features stands for a larger one, of which it has the least.
    """

    features: np.ndarray
    starts: np.ndarray

    def similarity(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) the Jaccard similarity of each of (P, 2) pairs of sets."""
        begins, sizes = self.starts[pairs], np.diff(self.starts)[pairs]
        common, union = np.zeros(len(pairs), dtype=np.int64), np.ones(len(pairs), dtype=np.int64)
        compared = np.where((sizes >= SKETCH).any(axis=1), SKETCH, np.iinfo(np.int64).max)  # features of the union
        parts = np.cumsum(sizes.sum(axis=1)) // FEATURES_AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(pairs)]
        for first, last in pairwise(bounds):
            keys = []
            for begin, length in zip(begins[first:last].T, sizes[first:last].T, strict=True):
                number = np.repeat(np.arange(last - first, dtype=np.uint64), length)
                value = self.features[_places(begin, length)]
                keys.append((number << np.uint64(32)) | value)  # one number to sort by: the pair, then the feature
            key = np.sort(np.concatenate(keys))
            is_new = np.diff(key, prepend=key[:1] + np.uint64(1)) != 0  # not the second of two that both sets have
            in_both = np.append(~is_new[1:], False)[is_new]
            pair = (key[is_new] >> np.uint64(32)).astype(np.int64)
            size = np.bincount(pair, minlength=last - first)
            union[first:last] = np.minimum(size, compared[first:last])
            counts = _places(np.zeros_like(size), size) < np.repeat(union[first:last], size)
            common[first:last] = np.bincount(pair[counts & in_both], minlength=last - first)
        return common / union


def _linked(sets: _Sets, keys: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(M,) of the M chosen sets the first that is similar to each, directly or by others; both as places in `chosen`.

    Pairs that others have linked are not measured.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = len(chosen)
    component = np.arange(number)
    for band in range(BANDS):
        pairs = _candidates(keys[chosen, band])
        pairs = _distinct(pairs[component[pairs[:, 0]] != component[pairs[:, 1]]], number)
        similar = component[pairs[sets.similarity(chosen[pairs]) >= SIMILAR]]
        graph = coo_array((np.ones(len(similar), bool), similar.T), shape=(number, number))
        component = connected_components(graph, directed=False)[1][component]
    first = np.full(number, number)
    np.minimum.at(first, component, np.arange(number))
    return first[component]


def _candidates(key: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of texts that share a bucket, some of them twice.

    Each is paired with its neighbour and the first, not with all: a bucket of boilerplate costs no more than its size,
    and another band brings together what this one has left.
    """
    number = len(key)
    order = np.argsort(key, kind="stable")
    begins = np.concatenate([[True], key[order][1:] != key[order][:-1]])
    head = order[np.maximum.accumulate(np.where(begins, np.arange(number), 0))]
    same = np.flatnonzero(~begins)
    others = np.concatenate([order[same - 1], head[same]])
    return np.stack([np.tile(order[same], 2), others], axis=1)


def _distinct(pairs: np.ndarray, number: int) -> np.ndarray:
    """Each pair of numbers below `number` once, whichever comes first. numpy's own `unique` took four times as long."""
    code = np.sort(pairs.min(axis=1) * number + pairs.max(axis=1))
    code = code[np.diff(code, prepend=-1) > 0]
    return np.stack([code // number, code % number], axis=1)
