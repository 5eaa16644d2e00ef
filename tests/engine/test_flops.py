"""The count of arithmetic against one by hand."""

from __future__ import annotations

import numpy as np
import transformers
from tiny import tiny_config

from fasttune.engine.flops import training_flops

WIDTH, INNER, LAYERS, CLASSES = 32, 64, 2, 2


def test_a_tiny_bert_by_hand() -> None:
    model = transformers.BertForSequenceClassification(tiny_config(num_labels=CLASSES))
    attention = 4 * (WIDTH * WIDTH + WIDTH)  # query, key, value, output
    feed_forward = WIDTH * INNER + INNER + INNER * WIDTH + WIDTH
    norms = 2 * 2 * WIDTH
    pooler_and_head = WIDTH * WIDTH + WIDTH + WIDTH * CLASSES + CLASSES
    parameters = LAYERS * (attention + feed_forward + norms) + pooler_and_head
    lengths = np.array([3, 5, 20])
    attended = 9 + 25 + 400
    expected = 6 * parameters * 28 + 12 * LAYERS * WIDTH * attended
    assert training_flops(model, lengths) == expected


def test_it_adds_up_over_sequences_and_knows_no_padding() -> None:
    model = transformers.BertForSequenceClassification(tiny_config())
    whole = training_flops(model, np.array([3, 5, 20]))
    assert whole == sum(training_flops(model, np.array([length])) for length in (3, 5, 20))
    assert whole < training_flops(model, np.array([20, 20, 20]))
