"""The text classification task alone: sums that add up, rows in order, labels that are saved."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from tiny import make_rows, tiny_tokenizer

from fasttune import recipe as recipes
from fasttune.data.batching.collate import collate
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import DataError, RecipeError
from fasttune.tasks import Rows, TextClassification

NUM_ROWS, NUM_CLASSES = 9, 3
NAMES = ["bad", "fair", "good"]


def make_task(**training: object) -> TextClassification:
    recipe = recipes.load({"data": {"train": "starter"}, "training": training})
    return TextClassification.from_rows(rows_of(NAMES), recipe, "rows")


def rows_of(labels: list[str]) -> Rows:
    texts = [row["text"] for row in make_rows(len(labels))]
    return Rows([f"row-{number}" for number in range(len(labels))], {"text": texts, "label": labels})


LABELS = [NAMES[number % 3] for number in range(NUM_ROWS)]
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(size=(NUM_ROWS, NUM_CLASSES)).astype(np.float32))


def encoded(task: TextClassification) -> TokenStore:
    return task.encode(rows_of(LABELS), tiny_tokenizer(), 64, "rows")


def loss_of(task: TextClassification, examples: list[int], training: bool) -> tuple[float, float]:
    batch = collate(encoded(task), np.array(examples))
    return task.loss({"logits": LOGITS[examples]}, batch, training).item(), task.weight(batch.targets)


@given(cuts=st.sets(st.integers(1, NUM_ROWS - 1)), order=st.permutations(range(NUM_ROWS)))
def test_loss_sum_and_weight_add_up_over_any_split_of_a_batch(cuts: set[int], order: list[int]) -> None:
    task = make_task(label_smoothing_factor=0.1)
    bounds = [0, *sorted(cuts), NUM_ROWS]
    parts = [loss_of(task, order[begin:end], True) for begin, end in pairwise(bounds)]
    whole = loss_of(task, list(range(NUM_ROWS)), True)
    assert sum(part[0] for part in parts) == pytest.approx(whole[0], rel=1e-5)
    assert sum(part[1] for part in parts) == whole[1] == NUM_ROWS


def test_the_loss_is_the_sum_of_negative_log_probabilities() -> None:
    probabilities = LOGITS.double().softmax(1).numpy()
    expected = -sum(np.log(probabilities[row, NAMES.index(label)]) for row, label in enumerate(LABELS))
    assert loss_of(make_task(), list(range(NUM_ROWS)), False)[0] == pytest.approx(expected, rel=1e-5)


def test_labels_are_smoothed_in_training_only() -> None:
    examples = list(range(NUM_ROWS))
    plain, smoothed = make_task(), make_task(label_smoothing_factor=0.3)
    assert loss_of(smoothed, examples, False) == loss_of(plain, examples, False) == loss_of(plain, examples, True)
    log_probabilities = LOGITS.double().log_softmax(1).numpy()
    target = np.full((NUM_ROWS, NUM_CLASSES), 0.3 / NUM_CLASSES)
    target[np.arange(NUM_ROWS), [NAMES.index(label) for label in LABELS]] += 0.7
    expected = -(target * log_probabilities).sum()
    assert loss_of(smoothed, examples, True)[0] == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_computed_in_fp32() -> None:
    task = make_task()
    batch = collate(encoded(task), np.arange(NUM_ROWS))
    total = task.loss({"logits": LOGITS.bfloat16()}, batch, training=True)
    exact = task.loss({"logits": LOGITS.bfloat16().float()}, batch, training=True)
    assert total.dtype == torch.float32 and total.item() == exact.item()


def test_predictions_come_in_the_order_of_the_rows() -> None:
    task, rows = make_task(), rows_of(LABELS)
    found = list(task.decode(LOGITS.numpy(), encoded(task), rows))
    assert [prediction["id"] for prediction in found] == list(rows.ids)
    assert [prediction["label"] for prediction in found] == [NAMES[index] for index in LOGITS.argmax(1).tolist()]
    for prediction, expected in zip(found, LOGITS.double().softmax(1).tolist(), strict=True):
        assert list(prediction["probabilities"]) == NAMES
        assert list(prediction["probabilities"].values()) == pytest.approx(expected)
        assert prediction["score"] == max(prediction["probabilities"].values())


def test_scores_are_scikit_learn_s_on_the_names() -> None:
    task, rows = make_task(), rows_of(LABELS)
    predicted = [prediction["label"] for prediction in task.decode(LOGITS.numpy(), encoded(task), rows)]
    assert task.score(LOGITS.numpy(), encoded(task), rows) == {
        "accuracy": pytest.approx(accuracy_score(LABELS, predicted)),
        "f1_macro": pytest.approx(f1_score(LABELS, predicted, average="macro", labels=NAMES, zero_division=0.0)),
    }


def test_rows_without_labels_are_encoded_without_targets() -> None:
    task = make_task()
    rows = Rows(["0"], {"text": ["good food"]})
    store = task.encode(rows, tiny_tokenizer(), 64, "rows")
    assert store.targets == {} and encoded(task).targets["labels"].tolist() == [0, 1, 2] * 3


def test_long_texts_are_cut_and_the_loss_of_tokens_counted() -> None:
    rows = Rows(["0", "1"], {"text": ["good " * 10, "bad"]})
    store = make_task().encode(rows, tiny_tokenizer(), 6, "rows")
    assert store.lengths.tolist() == [6, 3] and store.num_tokens_cut.tolist() == [6, 0]


def test_a_label_that_training_never_saw_is_refused() -> None:
    with pytest.raises(DataError, match=r"rows: found label 'goood' .* never in the training data"):
        make_task().encode(rows_of(["good", "goood"]), tiny_tokenizer(), 64, "rows")


@pytest.mark.parametrize(
    ("label_names", "values", "expected"),
    [
        (None, ["bad", "good"], ["bad", "good"]),
        (["low", "high"], ["0", "1"], ["low", "high"]),
        ({"n": "no", "y": "yes"}, ["n", "y"], ["no", "yes"]),
        (["1", "0"], ["1", "0"], ["1", "0"]),
    ],
)
def test_the_task_of_a_saved_run_knows_the_labels_of_the_data_and_their_names(
    label_names: object, values: list[str], expected: list[str]
) -> None:
    recipe = recipes.load({"problem": "single-label", "data": {"train": "starter", "label_names": label_names}})
    started = TextClassification.from_rows(rows_of(values), recipe, "rows")
    saved = {"id2label": {str(key): name for key, name in started.state()["id2label"].items()}}  # as JSON keeps it
    loaded = TextClassification.from_state(saved, recipe)
    assert loaded.target.vocabulary.names == started.target.vocabulary.names == tuple(expected)
    for labels in (values, expected):
        assert loaded.strata(rows_of(labels), "rows") == [0, 1]


def test_what_decides_is_computed_also_where_it_is_not_listed() -> None:
    recipe = recipes.load({"data": {"train": "starter"}, "evaluation": {"metrics": ["f1_macro"]}})
    assert TextClassification.from_rows(rows_of(NAMES), recipe, "rows").target.metrics == ("f1_macro", "accuracy")
    changes = {"evaluation": {"metrics": ["f1_macro"], "metric_for_best_model": "loss"}}
    task = TextClassification.from_rows(rows_of(NAMES), recipes.load(recipe, changes), "rows")
    assert task.target.metrics == ("f1_macro",)


PAIRS = [("good food", "great food"), ("bad room", "the room was not very good at all"), ("slow", "never again")]


def pair_task() -> TextClassification:
    rows = Rows(list("012"), {"text": ["a"] * 3, "text_pair": ["b"] * 3, "label": NAMES})
    return TextClassification.from_rows(rows, recipes.load({"data": {"train": "pairs.csv"}}), "rows")


@pytest.mark.parametrize("max_length", [64, 8])
def test_pairs_become_the_tokenizer_s_own_inputs(max_length: int) -> None:
    task, tokenizer = pair_task(), tiny_tokenizer()
    store = task.encode(task.rows_of(PAIRS), tokenizer, max_length, "rows")
    expected = tokenizer([list(pair) for pair in PAIRS], truncation=True, max_length=max_length)
    for name in ("input_ids", "token_type_ids"):
        flat = [token for example in expected[name] for token in example]
        assert store.inputs[name].tolist() == flat, name
    whole = tokenizer([list(pair) for pair in PAIRS])["input_ids"]
    assert store.num_tokens_cut.tolist() == [max(len(ids) - max_length, 0) for ids in whole]


def test_a_tokenizer_without_segments_gives_none() -> None:
    task, tokenizer = pair_task(), tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert list(task.encode(task.rows_of(PAIRS), tokenizer, 64, "rows").inputs) == ["input_ids"]


def test_single_texts_need_no_segments() -> None:
    assert list(encoded(make_task()).inputs) == ["input_ids"]


LONG_ROWS = Rows(list("012"), {"text": ["w1 " * 20 + "good", "bad", "slow " * 9], "label": NAMES})


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_logits_of_windows_are_pooled_in_training_and_prediction(pooling: str) -> None:
    recipe = recipes.load(
        {
            "data": {"train": "starter"},
            "preprocessing": {"long_text": "windows", "window_pooling": pooling},
        }
    )
    task = TextClassification.from_rows(LONG_ROWS, recipe, "rows")
    store = task.encode(LONG_ROWS, tiny_tokenizer(), 10, "rows")
    assert store.num_windows.tolist() == [3, 1, 2]
    examples = np.array([2, 0])
    batch = collate(store, examples)
    assert batch.inputs["input_ids"].shape == (5, 10) and batch.targets["labels"].tolist() == [2, 0]
    assert batch.inputs["attention_mask"].sum(1).tolist() == [10, 10, 10, 7, 3], "longest first"
    assert batch.num_tokens == 40
    logits = torch.arange(15, dtype=torch.float32).view(5, 3).sin().requires_grad_()
    owners = batch.features["example_of"]
    function = {"mean": torch.mean, "max": torch.amax}[pooling]
    expected = torch.stack([function(logits[owners == place], dim=0) for place in range(2)])
    assert torch.allclose(task.result({"logits": logits}, batch), expected)
    total = task.loss({"logits": logits}, batch, training=True)
    assert task.weight(batch.targets) == 2
    assert total.item() == pytest.approx(
        torch.nn.functional.cross_entropy(expected, batch.targets["labels"], reduction="sum").item()
    )
    total.backward()
    assert logits.grad.abs().sum() > 0


def test_long_pairs_can_only_be_cut() -> None:
    recipe = recipes.load({"data": {"train": "pairs.csv"}, "preprocessing": {"long_text": "windows"}})
    rows = Rows(list("012"), {"text": ["a"] * 3, "text_pair": ["b"] * 3, "label": NAMES})
    with pytest.raises(RecipeError, match="windows does not work for pairs of texts; truncate cuts"):
        TextClassification.from_rows(rows, recipe, "rows")


@pytest.mark.parametrize(
    ("pairs", "inputs", "message"),
    [
        (False, ["fine", ("one", "two")], r"text 2: found \(.*\), expected text"),
        (False, ["fine", 3], r"text 2: found 3, expected text"),
        (False, ["\udc80"], r"text 1: found .* expected text in UTF-8"),
        (True, ["one"], r"text 1: found 'one', expected two texts"),
        (True, [("one", "two"), ("one", "two", "three")], r"text 2: .* expected two texts"),
        (True, [("one", None)], r"text 1: .* expected two texts"),
    ],
)
def test_what_cannot_be_predicted_is_refused(pairs: bool, inputs: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        (pair_task() if pairs else make_task()).rows_of(inputs)
