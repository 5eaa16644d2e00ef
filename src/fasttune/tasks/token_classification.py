"""A tag for each word: entities, parts of speech and the like.

A row becomes one or more windows (data/tokens/words.py). Shapes: T tokens of all windows, B windows of a micro-batch,
S tokens of the longest window, K tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.column_names import TEXT_NAMES
from fasttune.data.columns import Column, cells_of, class_names, guess_name, is_text, label_values, lists_in
from fasttune.data.holdout import GROUP
from fasttune.data.labels import encode_all, label_vocabulary
from fasttune.data.problems import Problems, some_of
from fasttune.data.rows import Rows, ids_of
from fasttune.data.sources import Source
from fasttune.data.tokens.store import IGNORED, TokenStore
from fasttune.data.tokens.tags import EXAMPLES, OUTSIDE, Form, SpanTags, are_spans, form_of, odd_tags
from fasttune.data.tokens.words import (
    CHARACTERS,
    NO_WORD,
    PUNCTUATION,
    WHITESPACE,
    Sentence,
    find_boundaries,
    joined,
    read_sentences,
    word_windows,
    words_of,
)
from fasttune.errors import DataError, Problem, shown
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Task, chosen_metrics
from fasttune.tasks.metrics import classification, entities, sums
from fasttune.tasks.metrics.sums import RowSums, keys_of, numbered
from fasttune.tasks.targets import SingleLabel, class_weights, names_of, saved_vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from fasttune.data.batching.collate import MicroBatch

SPLIT_AT = {
    WHITESPACE: "at whitespace",
    PUNCTUATION: "at whitespace and punctuation",
    CHARACTERS: "character by character",
}


@dataclass(frozen=True)
class TokenClassification(Task):
    """`target`: one of K tags for each word; `form`: that of tags which mark entities, such as B-PER, else None.

    `word_boundaries`: where texts are split into words (data/tokens/words.py).
    """

    target: SingleLabel
    form: Form | None
    word_boundaries: str = PUNCTUATION
    notes: tuple[str, ...] = ()

    name: ClassVar[str] = "token-classification"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    result_per_token: ClassVar[bool] = True
    needs_offsets: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            role="tokens",
            description="the words: a list, or a text",
            required=True,
            guesses=("tokens", "words", "word", "token", "text", "sentence"),
            last_guesses=TEXT_NAMES,
        ),
        Column(
            role="tags",
            description="a tag for each word",
            required=True,
            guesses=("tags", "ner_tags", "tag", "spans", "entities", "labels", "label", "ner", "pos_tags"),
            is_target=True,
        ),
    )

    @classmethod
    def recognises(cls, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
        """Also by cells: spans of characters, or entity tags, one for each word."""
        if super().recognises(names, rows):
            return True
        tokens, tags = (guess_name(column, names) for column in cls.columns)
        if tokens is None or tags is None or tokens == tags or not rows:
            return False
        words = lists_in([row.get(tokens) for row in rows], tokens)
        cells = lists_in([row.get(tags) for row in rows], tags)
        if are_spans(cells):
            return True
        lists = [cell.split() if isinstance(cell, str) else cell for cell in cells]
        marks = [str(tag) for cell in lists if isinstance(cell, list) for tag in cell]
        are_words = all(isinstance(cell, list) for cell in words)
        fits = all(
            isinstance(cell, list) and len(cell) in ([len(text)] if are_words else [len(text), len(str(text).split())])
            for text, cell in zip(words, lists, strict=True)
            if text is not None
        )
        return fits and ((are_words and all(isinstance(cell, list) for cell in cells)) or form_of(marks) is not None)

    @classmethod
    def read(cls, source: Source, columns: Mapping[str, str], recipe: Recipe) -> Rows:
        dataset, where = source.dataset, source.description.partition(":")[0]
        boundaries: str = recipe.preprocessing.word_boundaries
        words = lists_in(cells_of(dataset, columns["tokens"]), where, source.place)
        if "tags" in columns and are_spans(spans := lists_in(cells_of(dataset, columns["tags"]), where, source.place)):
            return cls._of_spans(source, words, spans, boundaries, where)
        values: dict[str, Sequence[Any]] = {}
        if "tags" in columns:
            cells = label_values(dataset, columns["tags"], where, source.place)
            values["tags"] = [tuple(cell.split()) if isinstance(cell, str) else cell for cell in cells]
        declared = class_names(dataset, columns["tags"]) if "tags" in columns else None
        settings = {}
        if boundaries == "auto":
            boundaries = find_boundaries(words, values.get("tags"))
            settings = {"preprocessing": {"word_boundaries": boundaries}}
        tokens = read_sentences(words, values.get("tags"), boundaries, where, source.place)
        return Rows(ids_of(source), {"tokens": tokens, **values}, class_names=declared, settings=settings)

    @classmethod
    def _of_spans(cls, source: Source, texts: Sequence[Any], spans: Sequence[Any], boundaries: str, where: str) -> Rows:
        """Rows whose entities are spans of characters, as annotation tools write them."""
        boundaries = PUNCTUATION if boundaries == "auto" else boundaries
        sentences = read_sentences(texts, None, boundaries, where, source.place)
        reader = SpanTags(where)
        tags = [
            reader.tags(sentence, cell, source.place(row))
            for row, (sentence, cell) in enumerate(zip(sentences, spans, strict=True))
        ]
        reader.problems.raise_if_any()
        settings = {"preprocessing": {"word_boundaries": boundaries}}
        return Rows(ids_of(source), {"tokens": sentences, "tags": tags}, notes=reader.notes(), settings=settings)

    def rows_of(self, inputs: Any) -> Rows:
        """Rows from a text, or from several texts or lists of words."""
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        sentences, problems = [], []
        for number, given in enumerate(inputs, start=1):
            if is_text(given) and given.strip():
                sentences.append(words_of(given, self.word_boundaries))
            elif isinstance(given, list | tuple) and given and all(map(is_text, given)):
                sentences.append(joined(given))
            else:
                expected = "a text, or a list of words"
                problems.append(Problem(where=f"text {number}", found=shown(given), expected=expected))
        if problems:
            raise DataError(*problems)
        return Rows([str(number) for number in range(len(sentences))], {"tokens": sentences})

    @classmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> TokenClassification:
        tags = list(chain.from_iterable(rows.values["tags"]))
        vocabulary = label_vocabulary(tags, recipe.data.label_names, where, "tags", rows.class_names)
        form = form_of(vocabulary.names)
        _check_one_form(rows, where)
        first = next((name for name in vocabulary.names if name != OUTSIDE), OUTSIDE)
        kind = "tags mark entities" if form else "tags do not mark entities"
        target = SingleLabel(
            vocabulary,
            _metrics(recipe, form),
            recipe.training.label_smoothing_factor,
            class_weights(recipe, vocabulary),
        )
        boundaries = _boundaries(recipe)
        notes = (
            f"{where}: {kind}, for example {shown(first)}",
            f"texts to predict are split into words {SPLIT_AT[boundaries]}",
        )
        return cls(target, form, boundaries, notes)

    def for_training_rows(self, rows: Rows, recipe: Recipe) -> TokenClassification:
        tags = chain.from_iterable(rows.values["tags"])
        weights = class_weights(recipe, self.target.vocabulary, tags)
        return replace(self, target=replace(self.target, class_weights=weights))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> TokenClassification:
        vocabulary = saved_vocabulary(state, recipe)
        form = form_of(vocabulary.names)
        smoothing = recipe.training.label_smoothing_factor
        weights = class_weights(recipe, vocabulary)
        target = SingleLabel(vocabulary, _metrics(recipe, form), smoothing, weights)
        return cls(target, form, _boundaries(recipe))

    @property
    def example(self) -> str:
        return '"Ann came to Paris."'

    @property
    def primary_metric(self) -> str:
        return "f1" if self.form else "accuracy"

    def settings(self) -> dict[str, Any]:
        found = {name: value for name, value in self.target.settings().items() if name != "problem"}
        return {**found, "preprocessing": {"word_boundaries": self.word_boundaries}}

    def state(self) -> dict[str, Any]:
        return names_of(self.target.vocabulary)

    def strata(self, rows: Rows, where: str) -> Sequence[int]:
        encode_all(rows.values["tags"], self.target.vocabulary, where, rows.place)
        return super().strata(rows, where)

    def describe(self, store: TokenStore) -> dict[str, Any]:
        labels = store.token_targets["labels"]
        return self.target.describe(labels[labels != IGNORED])

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        store = word_windows(rows.values["tokens"], tokenizer, max_length)
        if "tags" not in rows.values:
            return store
        encoded = encode_all(rows.values["tags"], self.target.vocabulary, where, rows.place)
        labels = np.full(store.num_tokens, IGNORED, dtype=np.int64)
        for row, tokens, words in _first_tokens(store, len(rows)):
            labels[tokens] = np.array(encoded[row], dtype=np.int64)[words]
        return replace(store, token_targets={"labels": labels})

    def encoding(self) -> str:
        return repr(self.target.encoding())

    def weight(self, targets: Mapping[str, Any]) -> float:
        labels = targets["labels"]
        return self.target.weight(labels[labels != IGNORED])

    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> torch.Tensor:
        """The loss of the first token of each word; other tokens and padding are ignored."""
        logits, labels = outputs["logits"].float(), batch.targets["labels"]
        return self.target.loss(logits.flatten(0, 1), labels.flatten(), training)

    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, S, 2]: the tag of each token and its probability."""
        import torch

        probability, tag = outputs["logits"].float().softmax(-1).max(-1)
        return torch.stack([tag.float(), probability], dim=-1)

    def tags(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[tuple[list[str], np.ndarray]]:
        """For each row, the tags of its words and their probabilities; a word without tokens is outside."""
        names = self.target.vocabulary.names
        for row, tokens, words in _first_tokens(store, len(rows)):
            num_words = len(rows.values["tokens"][row].spans)
            tags, probabilities = [OUTSIDE] * num_words, np.zeros(num_words)
            for word, tag in zip(words, results[tokens, 0].astype(np.int64), strict=True):
                tags[word] = names[tag]
            probabilities[words] = results[tokens, 1]
            yield tags, probabilities

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        tagged = zip(rows.ids, rows.values["tokens"], self.tags(results, store, rows), strict=True)
        for row_id, sentence, (tags, probabilities) in tagged:
            prediction = {"id": row_id, "text": sentence.text, "tokens": sentence.words, "tags": tags}
            if self.form is not None:
                prediction["entities"] = [
                    _as_json(entity, sentence, probabilities) for entity in entities.entities_of(tags, self.form)
                ]
            yield prediction

    def gold_tags(self, rows: Rows) -> list[list[str]]:
        """The tags of each row, by the names of the vocabulary."""
        names = self.target.vocabulary.names
        encoded = encode_all(rows.values["tags"], self.target.vocabulary, "tags")
        return [[names[number] for number in row] for row in encoded]

    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        vocabulary = self.target.vocabulary
        predicted = [tags for tags, _ in self.tags(results, store, rows)]
        gold = self.gold_tags(rows)
        if self.form is not None:
            return entities.score(predicted, gold, self.target.metrics, self.form)
        number_of = {name: number for number, name in enumerate(vocabulary.names)}
        predicted_tags, gold_tags = (
            np.array([number_of.get(tag, -1) for tag in chain.from_iterable(side)]) for side in (predicted, gold)
        )
        return classification.score(gold_tags, predicted_tags, len(vocabulary.names), self.target.metrics)

    def row_sums(self, results: np.ndarray, store: TokenStore, rows: Rows) -> RowSums:
        vocabulary, metrics = self.target.vocabulary, self.target.metrics
        predicted = [tags for tags, _ in self.tags(results, store, rows)]
        gold = self.gold_tags(rows)
        if self.form is not None:
            of_rows = sums.of_entities(*entities.counts_of(predicted, gold, self.form), metrics)
        else:
            of_rows = sums.of_tags(predicted, gold, vocabulary.names, metrics)
        texts = (sentence.words for sentence in rows.values["tokens"])
        clusters = numbered(rows.values[GROUP]) if GROUP in rows.values else None
        return replace(of_rows, clusters=clusters, keys=keys_of(zip(texts, gold, strict=True), len(rows)))


def _boundaries(recipe: Recipe) -> str:
    """Where texts to predict are split into words. Runs of 0.1.0 store no setting and split at punctuation."""
    setting = recipe.preprocessing.word_boundaries
    return PUNCTUATION if setting == "auto" else setting


def _check_one_form(rows: Rows, where: str) -> None:
    """DataError if most tags mark entities, such as B-PER, and a few do not: each spelling would be a class."""
    tags = set(chain.from_iterable(rows.values["tags"]))
    if form_of(tags) is None and form_of({tag.upper() for tag in tags}) is not None and OUTSIDE.lower() in tags:
        found = f"entity tags in lower case ({some_of(sorted(tags))})"
        hint = f"write them in capitals, such as {EXAMPLES['prefix']} and {OUTSIDE}"
        raise DataError(Problem(code="E263", where=where, found=found, hint=hint))
    odd = odd_tags(tags)
    if odd is None:
        return
    form, others = odd
    problems = Problems(where)
    for tag in others:
        row = next(row for row, tags in enumerate(rows.values["tags"]) if tag in tags)
        problems.add(
            Problem(
                code="E263",
                where=f"{where} {rows.place(row)}",
                found=f"the tag {shown(tag)}, while most tags have the form {EXAMPLES[form]}",
                expected=f"{OUTSIDE}, or a tag of that form",
                hint="write all tags in one form, and O for words outside of entities",
            )
        )
    problems.raise_if_any()


def _metrics(recipe: Recipe, form: Form | None) -> tuple[str, ...]:
    if form is not None:
        return chosen_metrics(recipe, "f1", entities.METRICS, ("precision", "recall", "f1", "accuracy"))
    possible = [name for name in classification.METRICS if name not in ("f1", *classification.ORDERED)]
    return chosen_metrics(recipe, "accuracy", possible, ("accuracy", "f1_macro"))


def _first_tokens(store: TokenStore, num_rows: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each row, its number, the tokens that carry tags (positions in the store), and the words of these tokens."""
    bounds = store.starts[np.searchsorted(store.rows, np.arange(num_rows + 1))]
    words = store.token_features["word"]
    for row in range(num_rows):
        words_of_row = words[bounds[row] : bounds[row + 1]]
        tokens = np.flatnonzero(words_of_row != NO_WORD)
        yield row, bounds[row] + tokens, words_of_row[tokens]


def _as_json(entity: entities.Entity, sentence: Sentence, probabilities: np.ndarray) -> dict[str, Any]:
    """The entity with its characters in the text; its score is the mean probability of its tags."""
    start, end = sentence.spans[entity.start][0], sentence.spans[entity.stop - 1][1]
    score = float(probabilities[entity.start : entity.stop].mean())
    return {
        "type": entity.type or "entity",
        "text": sentence.text[start:end],
        "start": start,
        "end": end,
        "score": score,
    }
