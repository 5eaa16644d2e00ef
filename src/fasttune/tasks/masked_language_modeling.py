"""Masked language modeling: the encoder learns to fill in masked words of texts (Devlin et al., 2019).

Not a task of recipes: `training.mlm_epochs` makes it from the recipe's task, whose texts it reads. Letters: N examples,
T tokens in all of them, B sequences of a micro-batch, S padded length, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.columns import Column
from fasttune.data.rows import Rows
from fasttune.data.sources import Source
from fasttune.data.tokens.store import IGNORED, TokenStore, tokenize
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from fasttune.data.batching.collate import MicroBatch

# As BERT: of the chosen tokens 80 % become the mask, 10 % another token, and 10 % stay.
CHOSEN, MASKED, REPLACED = 0.15, 0.8, 0.1


@dataclass(frozen=True)
class MaskedLanguageModeling(Task):
    """Masks the texts of task `of`; `seed` decides which tokens. A row that occurs twice is masked in two ways."""

    of: Task
    seed: int

    name: ClassVar[str] = "fill-mask"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(role="text", description="the text", required=True),
        Column(role="text_pair", description="the second text of a pair", required=False),
    )

    @classmethod
    def read(cls, source: Source, columns: Mapping[str, str], recipe: Recipe) -> Rows:
        raise TypeError("its rows are made from those of another task")

    @classmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> Task:
        raise TypeError("it is made from another task")

    @classmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> Task:
        raise TypeError("it is made from another task")

    def rows_of(self, inputs: Any) -> Rows:
        return self.texts_of(self.of.rows_of(inputs))

    def texts_of(self, rows: Rows) -> Rows:
        """The texts of rows of the other task: its two inputs as a pair, or one text."""
        inputs = [column.role for column in self.of.columns if not column.is_target and column.role in rows.values]
        if len(inputs) == 2:
            values = dict(zip(("text", "text_pair"), (rows.values[role] for role in inputs), strict=True))
        else:
            values = {"text": list(self.of.input_texts(rows))}
        return replace(rows, values=values, class_names=None)

    @property
    def example(self) -> str:
        return self.of.example

    @property
    def primary_metric(self) -> str:
        return "accuracy"

    def state(self) -> dict[str, Any]:
        return {}

    def describe(self, store: TokenStore) -> dict[str, Any]:
        return {"masked": int((store.token_targets["labels"] != IGNORED).sum())}

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        store = tokenize(rows.values["text"], tokenizer, max_length, rows.values.get("text_pair"))
        assert tokenizer.mask_token_id is not None, "checked before"
        special = np.array(tokenizer.all_special_ids)
        ids, labels = masked(store, special, tokenizer.mask_token_id, len(tokenizer), self.seed)
        return replace(store, inputs={**store.inputs, "input_ids": ids}, token_targets={"labels": labels})

    def encoding(self) -> str:
        return repr([self.name, self.seed])

    def weight(self, targets: Mapping[str, Any]) -> float:
        return float((targets["labels"] != IGNORED).sum())

    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> torch.Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        labels = batch.targets["labels"].flatten()
        # Only the device knows how many tokens are chosen, and asking it would make the host wait. So this takes the
        # largest possible number of tokens, the chosen ones first; the loss ignores the rest.
        most = int(num_chosen(np.array(batch.lengths)).sum())
        places = (labels == IGNORED).to(torch.uint8).argsort(stable=True)[:most]
        logits = outputs["logits"].flatten(0, 1)[places].float()
        return cross_entropy(logits, labels[places], reduction="sum", ignore_index=IGNORED)

    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, 2]: the number of masked tokens that the model fills in correctly, and of all that are masked."""
        import torch

        labels = batch.targets["labels"]
        chosen = labels != IGNORED
        right = (outputs["logits"].argmax(dim=-1) == labels) & chosen
        return torch.stack([right.sum(dim=1), chosen.sum(dim=1)], dim=1)

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        for row_id, (right, chosen) in zip(rows.ids, results.tolist(), strict=True):
            yield {"id": row_id, "masked": int(chosen), "right": int(right)}

    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        right, chosen = results.sum(axis=0, dtype=np.float64)
        return {"accuracy": float(right / chosen)}


def num_chosen(available: np.ndarray) -> np.ndarray:
    """How many tokens to choose from `available` ones: at least 1, so more than there are if there are none."""
    return np.maximum(np.rint(CHOSEN * available), 1)


def masked(
    store: TokenStore, special: Sequence[int] | np.ndarray, mask: int, num_words: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) ids with 15 % of each example's tokens chosen, at least one, and (T,) labels: their ids, IGNORED elsewhere.

    `special` tokens are never chosen; `num_words`: V.
    """
    ids = np.array(store.inputs["input_ids"])
    random = np.random.default_rng(seed)
    example = np.repeat(np.arange(len(store)), store.lengths)
    may_be_chosen = ~np.isin(ids, special)
    order = np.lexsort((np.where(may_be_chosen, random.random(len(ids)), 2.0), example))  # at random in each example
    place = np.arange(len(ids)) - np.repeat(store.starts[:-1], store.lengths)
    available = np.bincount(example[may_be_chosen], minlength=len(store))
    wanted = np.minimum(num_chosen(available), available)
    chosen = order[place < wanted[example]]
    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    labels[chosen] = ids[chosen]
    lot = random.random(len(chosen))
    ids[chosen[lot < MASKED]] = mask
    replaced = chosen[(lot >= MASKED) & (lot < MASKED + REPLACED)]
    ids[replaced] = random.integers(num_words, size=len(replaced))
    return ids, labels
