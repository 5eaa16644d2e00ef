"""The words that drove a prediction: how much its probability changes when a word is left out.

The gradient of the prediction, multiplied by the input embeddings, proposes the words (Denil et al., 2014); leaving out
each proposed word measures its effect (occlusion; Zeiler & Fergus, 2014). The gradient alone is fast and unreliable,
occlusion of every word is slow: a text of 200 words would need 200 forward passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fasttune.data.batching.collate import collate
from fasttune.data.duplicates import WORDS
from fasttune.evaluation.predictor import Predictor
from fasttune.tasks.text_classification import TEXTS, classes_of

NUM_PROPOSED = 12  # words of a text that are left out, one at a time
NUM_KEPT = 8
MIN_EFFECT = 0.01  # of probability
MOST_WORDS = 400  # of a text that are looked at
WORD = re.compile(rf"(?:{WORDS.pattern})(?:['\u2019](?:{WORDS.pattern}))*")  # "can't" is one word


class Word(NamedTuple):
    """Characters [start, end) of the text with this role."""

    role: str
    start: int
    end: int


def explains(predictor: Predictor) -> bool:
    """Whether the predictions of a run have words that drove them: those of classes do; an export has no gradient."""
    return classes_of(predictor.task) is not None and not predictor.is_export


def words_behind(
    predictor: Predictor, inputs: Sequence[Mapping[str, str]], labels: Sequence[str | None] | None = None
) -> Iterator[dict[str, Any]]:
    """For each input (role -> text), a label and the words with the largest effect on its probability.

    `labels`: those to explain; without one, the predicted label, or of several labels the most probable.

    {"label", "score", "words": [{"role", "start", "end", "word", "effect"}]}; an `effect` of .2 means that the
    probability is .2 lower without the word. Only for runs that `explains` accepts.
    """
    for texts, wanted in zip(inputs, labels or [None] * len(inputs), strict=True):
        whole = predictor.predict([_as_input(texts)])[0]
        probabilities = whole["probabilities"]
        label = wanted or whole.get("label") or max(probabilities, key=lambda name: probabilities[name])
        proposed = _proposed(predictor, texts, list(probabilities).index(label))
        shorter = [_as_input({**texts, word.role: _without(texts[word.role], word)}) for word in proposed]
        effects = [
            probabilities[label] - prediction["probabilities"][label] for prediction in predictor.predict(shorter)
        ]
        order = np.argsort([-abs(effect) for effect in effects], kind="stable")[:NUM_KEPT]
        words = [
            {
                **proposed[at]._asdict(),
                "word": texts[proposed[at].role][slice(*proposed[at][1:])],
                "effect": effects[at],
            }
            for at in order
            if abs(effects[at]) >= MIN_EFFECT
        ]
        yield {"label": label, "score": probabilities[label], "words": words}


def _as_input(texts: Mapping[str, str]) -> Any:
    given = tuple(texts[role] for role in TEXTS if role in texts)
    return given if len(given) > 1 else given[0]


def _without(text: str, word: Word) -> str:
    return " ".join(f"{text[: word.start]} {text[word.end :]}".split()) or " "


def _proposed(predictor: Predictor, texts: Mapping[str, str], output: int) -> list[Word]:
    """The words with the largest gradient, or the first ones if tokens cannot be mapped to words."""
    words = [
        Word(role, *match.span())
        for role in TEXTS
        if role in texts
        for match in list(WORD.finditer(texts[role]))[:MOST_WORDS]
    ]
    given = [texts[role] for role in TEXTS if role in texts]
    saliency = _saliency(predictor, texts, given, output)
    if saliency is not None:
        weights = [
            sum(value for role, at, value in saliency if role == word.role and word.start <= at < word.end)
            for word in words
        ]
        words = [words[at] for at in np.argsort([-weight for weight in weights], kind="stable")]
    return words[:NUM_PROPOSED]


def _saliency(
    predictor: Predictor, texts: Mapping[str, str], given: Sequence[str], output: int
) -> list[tuple[str, int, float]] | None:
    """(role, first character, |gradient x embedding|) of each token; None if its characters are not known."""
    import torch

    tokenizer, task, setup = predictor.setup.tokenizer, predictor.task, predictor.setup
    if not tokenizer.is_fast:
        return None
    with predictor.lock:
        store = task.encode(task.rows_of([_as_input(texts)]), tokenizer, setup.max_length, "the text")
        encoding = tokenizer(
            *given, truncation=True, max_length=setup.max_length, return_offsets_mapping=True, verbose=False
        )
        if store.inputs["input_ids"].tolist() != encoding["input_ids"]:
            return None  # windows, or the head and tail of a long text
        embedded: list[torch.Tensor] = []

        def keep(module: torch.nn.Module, arguments: Any, result: torch.Tensor) -> torch.Tensor:
            embedded.append(result.detach().requires_grad_())
            return embedded[-1]

        model = setup.model
        model.eval()
        hook = model.get_input_embeddings().register_forward_hook(keep)
        try:
            with torch.enable_grad():
                batch = collate(store, np.array([0]), setup.padding).to(setup.accelerator.device)
                logits = task.result(model(**batch.inputs), batch)
                (gradient,) = torch.autograd.grad(logits[0, output], embedded[-1])
        finally:
            hook.remove()
    values = (gradient * embedded[-1]).float().sum(-1).abs().flatten().tolist()
    roles = [role for role in TEXTS if role in texts]
    sequence_of = encoding.sequence_ids(0)
    return [
        (roles[sequence], start, value)
        for sequence, (start, end), value in zip(sequence_of, encoding["offset_mapping"], values, strict=False)
        if sequence is not None and end > start
    ]
