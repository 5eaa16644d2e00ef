"""Find exact duplicates and near-duplicates among many texts in one pass.

Two texts are exact duplicates if they differ only in case, blanks and Unicode form. They are near-duplicates if the
Jaccard similarity of their sets of adjacent word pairs (with marks for begin and end) is at least SIMILAR: of 20 words
two may differ, of 10 words one. Sets of more than SKETCH pairs are compared by the SKETCH pairs of their union with the
smallest hashes, a random sample of the union (bottom-k sketches, Cohen and Kaplan 2007). This bounds memory by that of
short texts, and the similarity has a standard error of .035.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
section 3.4), and each candidate is then measured. So every reported pair is similar, and a similar pair is found with
a probability of FOUND at the threshold and nearly 1 above it. The hash constants come from a fixed seed, so the same
texts always give the same result.
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
# A word is a run of letters and digits, or a single character of a script without spaces.
WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
BOUNDARY = np.uint64(0x9E3779B97F4A7C15)  # marks begin and end; any constant works


# Each text is measured against this many texts of its group, in rounds, until one is similar. Most texts need only the
# first round, but a group of texts from one template may be as large as the file.
COMPARED = (8, 64, 512)
PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Duplicates:
    """Rows with equal numbers in `exact` (N,) are duplicates; in `near` (N,) they are linked by near-duplicates.

    The two ends of a chain of near-duplicates may share no word, so use `similar_to` to decide which rows to drop.
    """

    exact: np.ndarray
    near: np.ndarray
    _sets: _Sets | None = None
    _set_of: np.ndarray | None = None  # (N,) the set of each row

    def similar_to(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(R,) bool: whether each of `rows` is a duplicate or a near-duplicate of a row in `others`."""
        is_similar = np.isin(self.exact[rows], self.exact[others])
        if self._sets is None or self._set_of is None:
            return is_similar
        by_group = others[np.argsort(self.near[others], kind="stable")]
        first = np.searchsorted(self.near[by_group], self.near[rows], "left")
        num_near = np.searchsorted(self.near[by_group], self.near[rows], "right") - first
        for limit in COMPARED:
            open_rows = np.flatnonzero(~is_similar & (num_near > 0))
            for chunk in np.array_split(open_rows, len(open_rows) * limit // PAIRS_AT_ONCE + 1):
                count = np.minimum(num_near[chunk], limit)
                row = np.repeat(chunk, count)
                number = _ranges(np.zeros_like(count), count)
                chosen = first[row] + number * num_near[row] // np.repeat(count, count)  # spread evenly over the group
                pairs = np.stack([self._set_of[rows[row]], self._set_of[by_group[chosen]]], axis=1)
                is_similar[row[self._sets.similarity(pairs) >= SIMILAR]] = True
            num_near[num_near <= limit] = 0  # all of them are measured
        return is_similar


def exact_groups(texts: Iterable[str]) -> np.ndarray:
    """(N,) int64: the number of the first row with the same text."""
    return _first_of(np.fromiter((hash(_normal(text)) for text in texts), dtype=np.int64))


def _first_of(hashes: np.ndarray) -> np.ndarray:
    """The first index with the same hash. The chance that a million texts have a collision is one in forty million."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    return first[group].astype(np.int64)


def find(texts: Iterable[str]) -> Duplicates:
    """Find the exact and near-duplicates of all texts. Needs about 0.4 kB of memory per text of 20 words."""
    # Arrays that grow in place: joining lists of chunks would need twice the memory.
    hashes, rows, counts = array("q"), array("q"), array("q")
    features, keys = array("I"), array("I")
    for chunk in _chunks(map(_normal, texts)):
        chunk_hashes = np.array([hash(text) for text in chunk])
        # Skip repeats within the chunk: questions about one context are often adjacent.
        new = np.sort(np.unique(chunk_hashes, return_index=True)[1])
        pairs, sizes = _word_pairs([chunk[index] for index in new])
        rows.frombytes((len(hashes) + new).tobytes())
        hashes.frombytes(chunk_hashes.tobytes())
        keys.frombytes(_keys(pairs, sizes).tobytes())
        kept = np.minimum(sizes, SKETCH)
        counts.frombytes(kept.tobytes())
        features.frombytes(_short(pairs[_ranges(np.cumsum(sizes) - sizes, kept)]).tobytes())
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


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges begin, begin + 1, ... of these lengths, concatenated."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(begins, lengths) + within


def _word_pairs(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The word pairs of each text as a sorted set of uint64 hashes, concatenated, and the sizes of the sets."""
    from pandas.util import hash_array

    words = [WORDS.findall(text) or [text] for text in texts]  # a text without letters and digits is one word
    counts = np.array([len(words_of_text) for words_of_text in words], dtype=np.int64)
    flat = np.array([word for words_of_text in words for word in words_of_text], dtype=object)
    # The line of a text is boundary, words, boundary; a pair is an element and the next one.
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
    """The distinct values of each row, sorted by row, and their number."""
    order = np.lexsort((values, row))
    values, row = values[order], row[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = (values[1:] != values[:-1]) | (row[1:] != row[:-1])
    return values[first], np.bincount(row[first], minlength=num_rows)


def _mix(values: np.ndarray) -> np.ndarray:
    """Rehash to spread the bits: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _short(hashes: np.ndarray) -> np.ndarray:
    """32 bits of each hash. For two texts of 20 words, features collide in one of ten million pairs."""
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _keys(features: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(M, BANDS): the bucket of each of M texts in each band; `counts`: their numbers of features."""
    generator = np.random.default_rng(0)
    starts = np.cumsum(counts) - counts
    keys = np.zeros((len(counts), BANDS), dtype=np.uint64)
    for band in range(BANDS):
        for factor, shift in generator.integers(1, 2**63, (ROWS_OF_BAND, 2), dtype=np.uint64):
            # Multiply and shift modulo 2**64 permutes the hashes; an odd factor makes it a bijection.
            smallest = np.minimum.reduceat(features * (factor | np.uint64(1)) + shift, starts)
            keys[:, band] = _mix(keys[:, band] ^ smallest)
    return _short(keys)


@dataclass(frozen=True)
class _Sets:
    """Sets of features, concatenated: set i is features[starts[i] : starts[i + 1]].

    A set of SKETCH features is the sketch of a larger set: its smallest features.
    """

    features: np.ndarray
    starts: np.ndarray

    def similarity(self, pairs: np.ndarray) -> np.ndarray:
        """(P,): the Jaccard similarity of (P, 2) pairs of sets."""
        begins, sizes = self.starts[pairs], np.diff(self.starts)[pairs]
        common, union = np.zeros(len(pairs), dtype=np.int64), np.ones(len(pairs), dtype=np.int64)
        compared = np.where((sizes >= SKETCH).any(axis=1), SKETCH, np.iinfo(np.int64).max)  # features of the union
        chunk = np.cumsum(sizes.sum(axis=1)) // FEATURES_AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(pairs)]
        for first, last in pairwise(bounds):
            keys = []
            for begin, length in zip(begins[first:last].T, sizes[first:last].T, strict=True):
                number = np.repeat(np.arange(last - first, dtype=np.uint64), length)
                value = self.features[_ranges(begin, length)]
                keys.append((number << np.uint64(32)) | value)  # sorts by pair, then by feature
            key = np.sort(np.concatenate(keys))
            is_new = np.diff(key, prepend=key[:1] + np.uint64(1)) != 0  # a feature of both sets occurs twice
            in_both = np.append(~is_new[1:], False)[is_new]
            pair = (key[is_new] >> np.uint64(32)).astype(np.int64)
            size = np.bincount(pair, minlength=last - first)
            union[first:last] = np.minimum(size, compared[first:last])
            is_compared = _ranges(np.zeros_like(size), size) < np.repeat(union[first:last], size)
            common[first:last] = np.bincount(pair[is_compared & in_both], minlength=last - first)
        return common / union


def _linked(sets: _Sets, keys: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(M,): for each of M chosen sets, the first set linked to it by near-duplicates, as positions in `chosen`.

    Pairs that are already linked through other sets are not measured.
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
    """(P, 2): pairs of texts that share a bucket, some of them twice.

    Each text is paired with its neighbour and with the first text of the bucket, not with all: the cost of a bucket of
    boilerplate is linear in its size, and other bands find the pairs that this one misses.
    """
    number = len(key)
    order = np.argsort(key, kind="stable")
    begins = np.concatenate([[True], key[order][1:] != key[order][:-1]])
    head = order[np.maximum.accumulate(np.where(begins, np.arange(number), 0))]
    same = np.flatnonzero(~begins)
    partners = np.concatenate([order[same - 1], head[same]])
    return np.stack([np.tile(order[same], 2), partners], axis=1)


def _distinct(pairs: np.ndarray, number: int) -> np.ndarray:
    """Each unordered pair of numbers below `number` once. Four times as fast as numpy's `unique`."""
    code = np.sort(pairs.min(axis=1) * number + pairs.max(axis=1))
    code = code[np.diff(code, prepend=-1) > 0]
    return np.stack([code // number, code % number], axis=1)
