"""Weak slices, shortcuts and drift: what was planted is found, and clean rows give (almost) no finding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fasttune.analysis.drift import LabelCounts, shifts, unseen_share
from fasttune.analysis.properties import Properties, document_frequencies, of_texts
from fasttune.analysis.shortcuts import property_shortcuts, word_shortcuts
from fasttune.analysis.slices import weak_slices

WORDS = [
    *("table", "chair", "window", "garden", "river", "music", "paper", "winter", "summer", "coffee"),
    *("bread", "train", "street", "letter", "market", "bridge", "island", "forest", "mirror", "candle"),
]


def texts_of(number: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    found = []
    for length in generator.integers(5, 60, number):
        words = list(generator.choice(WORDS, length))
        if generator.random() < 0.3:
            words.insert(0, str(generator.integers(10, 999)))
        found.append(" ".join(words))
    return found


def measured(seed: int, number: int = 600) -> tuple[list[str], Properties, np.random.Generator]:
    texts = texts_of(number, seed)
    return texts, of_texts(texts, document_frequencies(texts)), np.random.default_rng(1000 + seed)


@pytest.mark.parametrize("seed", range(5))
def test_planted_weakness_on_long_texts(seed: int) -> None:
    _, properties, generator = measured(seed)
    is_long = properties["words"] >= 40
    errors = (generator.random(600) < np.where(is_long, 0.45, 0.12)).astype(float)
    found = weak_slices(properties, errors)
    assert found and found[0].conditions[0].name == "words"
    members = found[0].members(properties)
    assert (members & is_long).sum() / (members | is_long).sum() > 0.6
    assert found[0].inside == pytest.approx(errors[members].mean())
    assert found[0].low > 0 and found[0].p_value < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_planted_weakness_on_numbers(seed: int) -> None:
    _, properties, generator = measured(seed)
    errors = (generator.random(600) < np.where(properties["digits"] > 0, 0.4, 0.1)).astype(float)
    assert any(condition.name == "digits" for condition in weak_slices(properties, errors)[0].conditions)


def test_clean_rows_have_at_most_one_finding_in_ten_sets() -> None:
    found = 0
    for seed in range(10):
        _, properties, generator = measured(seed)
        found += len(weak_slices(properties, (generator.random(600) < 0.2).astype(float)))
    assert found <= 1


def test_rows_of_a_cluster_that_err_together_are_no_weak_slice() -> None:
    """A document of 30 rows with the same length and the same error is one observation, not 30."""
    found = [0, 0]
    for seed in range(10):
        generator = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(20), 30)
        properties = {"words": np.repeat(generator.integers(5, 100, 20), 30).astype(float)}
        errors = np.repeat((generator.random(20) < 0.5).astype(float), 30)
        for place, given in enumerate((None, clusters)):
            found[place] += bool(weak_slices(properties, errors, given))
    assert found[0] == 10 and found[1] <= 1


def test_a_word_that_gives_the_label_away() -> None:
    for seed in range(5):
        texts = texts_of(500, seed)
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, 2, 500)
        planted = [
            f"{text} Sponsored" if label and generator.random() < 0.7 else text
            for text, label in zip(texts, labels, strict=True)
        ]
        has_label = labels[:, None] == np.arange(2)
        (found,) = word_shortcuts(planted, has_label, ["no", "yes"])
        assert (found.word, found.label) == ("sponsored", "yes")
        with_word = np.array(["Sponsored" in text for text in planted])
        assert found.coverage == pytest.approx(with_word[labels == 1].mean())
        assert not word_shortcuts(texts, has_label, ["no", "yes"])


def test_a_length_that_gives_the_label_away() -> None:
    for seed in range(5):
        texts, properties, generator = measured(seed)
        labels = (properties["words"] >= 30).astype(int)
        assert property_shortcuts(properties, labels)[0].name == "words"
        assert not property_shortcuts(properties, generator.integers(0, 2, len(texts)))


def counts(a: int, b: int) -> LabelCounts:
    return LabelCounts({"a": a, "b": b}, a + b)


def test_drift_of_several_labels_counts_rows() -> None:
    before, after = LabelCounts({"a": 300, "b": 300}, 400), LabelCounts({"a": 75, "b": 20}, 100)
    (found,) = shifts({}, {}, before, after)
    assert (found.label, found.before, found.after) == ("b", 0.75, 0.2) and found.distance == pytest.approx(0.55)
    lost = shifts({}, {}, LabelCounts({"a": 100}, 400), LabelCounts({}, 400))
    assert lost[0].after == 0.0, "rows without labels are rows"


def test_a_weak_group_is_found_although_its_rows_belong_together() -> None:
    generator = np.random.default_rng(0)
    clusters = np.repeat([0, 1], 300)
    errors = (generator.random(600) < np.where(clusters == 1, 0.5, 0.1)).astype(float)
    properties = {"group = b": (clusters == 1).astype(float), "words": generator.integers(5, 60, 600).astype(float)}
    assert weak_slices(properties, errors, clusters)[0].conditions[0].name == "group = b"


def test_drift_of_length_and_labels() -> None:
    texts, properties, _ = measured(1)
    other = of_texts([" ".join([text, text]) for text in texts_of(300, 2)], document_frequencies(texts))
    found = {one.name: one for one in shifts(properties, other, counts(300, 300), counts(240, 60))}
    assert {"words", "labels"} <= set(found)
    assert found["words"].after > 1.5 * found["words"].before
    assert found["labels"].label in ("a", "b") and found["labels"].distance == pytest.approx(0.3)
    same = of_texts(texts_of(300, 3), document_frequencies(texts))
    assert not shifts(properties, same, counts(300, 300), counts(150, 150))


def test_the_test_of_kolmogorov_and_smirnov_is_scipys() -> None:
    from scipy.stats import ks_2samp

    from fasttune.analysis.drift import _kolmogorov_smirnov

    generator = np.random.default_rng(0)
    a, b = generator.normal(size=400), generator.normal(0.3, 1.2, size=300)
    expected = ks_2samp(a, b, method="asymp")
    assert _kolmogorov_smirnov(a, b) == pytest.approx((expected.statistic, expected.pvalue), rel=0.2)


def test_unseen_words() -> None:
    known = document_frequencies(["a b c"])
    assert known == Counter("abc")
    assert unseen_share(["a d", "b e"], known) == 0.5
