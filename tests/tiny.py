"""Tiny models and data that the tests make themselves."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers

WORDS = ["good", "bad", "food", "room", "staff", "was", "the", "not", "very", "never", "again", "slow", "great", "and"]


def tiny_tokenizer() -> transformers.PreTrainedTokenizerBase:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"w{number}" for number in range(60))]
    return transformers.BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=64)


def tiny_config(**changes: object) -> transformers.BertConfig:
    settings = {
        "vocab_size": 79,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    return transformers.BertConfig(**{**settings, **changes})


def save_tiny_model(folder: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    transformers.BertModel(tiny_config(**changes)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def make_rows(num_rows: int, seed: int = 0, longest: int = 30) -> list[dict[str, str]]:
    """Learnable rows of ragged length: `good` or `bad` decides, unless `not` stands before it."""
    rng = random.Random(seed)
    rows = []
    for _ in range(num_rows):
        label = rng.choice(["negative", "positive"])
        word, other = ("good", "bad") if label == "positive" else ("bad", "good")
        core = [word] if rng.random() < 0.6 else ["not", other]
        words = [f"w{rng.randrange(60)}" for _ in range(rng.randint(1, longest))]
        cut = rng.randint(0, len(words))
        rows.append({"text": " ".join([*words[:cut], *core, *words[cut:]]), "label": label})
    return rows


def make_questions(num_rows: int, unanswered: float = 0.0, seed: int = 0, longest: int = 90) -> list[dict[str, Any]]:
    """Learnable: the answer is `great`, with the word `food` behind it where that stands there."""
    rng = random.Random(seed)
    rows = []
    for number in range(num_rows):
        words = [f"w{rng.randrange(60)}" for _ in range(rng.randint(5, longest))]
        answer = rng.choice(["great", "great food"])
        texts, starts = [], []
        if rng.random() >= unanswered:
            place = rng.randint(0, len(words))
            texts, starts = [answer], [len(" ".join([*words[:place], ""])) if place else 0]
            words[place:place] = answer.split()
        answers = {"text": texts, "answer_start": starts}
        context = " ".join(words)
        rows.append({"id": f"q{number}", "question": "what was good", "context": context, "answers": answers})
    return rows


def make_sentences(num_rows: int) -> list[dict[str, Any]]:
    """Learnable: `good` and what is `food` or `room` behind it is an entity; rows longer than the model among them."""
    rng = random.Random(3)
    rows = []
    for number in range(num_rows):
        words, tags = [], []
        for _ in range(rng.randint(3, 25) if number % 10 else 90):
            if rng.random() < 0.2:
                words += ["good", rng.choice(["food", "room"])]
                tags += ["B-THING", "I-THING"]
            else:
                words.append(f"w{rng.randrange(60)}")
                tags.append("O")
        rows.append({"id": f"r{number}", "tokens": words, "ner_tags": tags})
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
