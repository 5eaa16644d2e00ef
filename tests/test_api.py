"""A run from recipe to prediction, through the public names only."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from sklearn.metrics import accuracy_score, f1_score
from tiny import make_rows, save_tiny_model, write_csv, write_jsonl

import fasttune
from fasttune.training.callbacks.early_stopping import EarlyStopping
from fasttune.training.events import Started, StepDone
from fasttune.training.loop import TrainState

EIGHT_ROWS = [
    {"text": text, "label": label}
    for text, label in [
        ("the food was good", "positive"),
        ("the food was bad", "negative"),
        ("the room was not good", "negative"),
        ("the room was not bad", "positive"),
        ("staff great", "positive"),
        ("staff slow and bad", "negative"),
        ("never again", "negative"),
        ("very very good and great", "positive"),
    ]
]


@pytest.fixture(scope="module")
def overfitted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    folder = tmp_path_factory.mktemp("overfit")
    data = str(write_csv(folder / "eight.csv", EIGHT_ROWS))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": data, "validation": data, "test": data},
        "training": {
            "preset": "tutorial",
            "max_steps": 80,
            "learning_rate": 3e-3,
            "precision": "fp32",
            "device": "cpu",
        },
        "evaluation": {"eval_strategy": "steps", "eval_steps": 40},
        "output": {"save_strategy": "steps", "save_steps": 40},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_learns_eight_rows_and_gives_them_back_after_loading(overfitted: fasttune.Run) -> None:
    assert overfitted.metrics["eval_accuracy"] == overfitted.metrics["test_accuracy"] == 1.0
    predictor = fasttune.load(overfitted.folder)
    found = predictor.predict([row["text"] for row in EIGHT_ROWS])
    assert [prediction["label"] for prediction in found] == [row["label"] for row in EIGHT_ROWS]
    assert [prediction["id"] for prediction in found] == [str(number) for number in range(8)]
    for prediction in found:
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert prediction["score"] == max(prediction["probabilities"].values())


def test_a_batch_predicts_as_its_texts_one_by_one(overfitted: fasttune.Run) -> None:
    predictor = fasttune.load(overfitted.folder)
    texts = [row["text"] for row in make_rows(20)]
    together = predictor.predict(texts)
    for text, expected in zip(texts, together, strict=True):
        assert predictor.predict(text)[0]["score"] == pytest.approx(expected["score"], abs=1e-5)
    assert predictor.predict([]) == []


def test_transformers_reads_the_folder_and_gives_the_same_probabilities(overfitted: fasttune.Run) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(overfitted.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(overfitted.folder)
    texts = [row["text"] for row in EIGHT_ROWS]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    expected = logits.softmax(-1).numpy()
    found = fasttune.predict(overfitted.folder, texts)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    ours = np.array([list(prediction["probabilities"].values()) for prediction in found])
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_the_saved_files_are_a_plain_model(overfitted: fasttune.Run) -> None:
    config = json.loads((overfitted.folder / "config.json").read_text())
    assert config["attention_probs_dropout_prob"] == 0.1, "the model's own, not the recipe's"
    tokenizer = json.loads((overfitted.folder / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None
    names = {path.name for path in overfitted.folder.iterdir()}
    assert names == {
        "README.md", "all_results.json", "checkpoints", "config.json", "data_report.json", "environment.json",
        "checksums.json", "eval_results.json", "events.jsonl", "model.safetensors", "predictions", "recipe.yaml",
        "test_results.json", "tokenizer.json", "tokenizer_config.json", "train_results.json",
        "analysis.json", "attributions.json", "plots", "report.html",
    }  # fmt: skip


ENDS = ("low", "high")  # of the 95 % interval of a metric


def test_results_have_transformers_names_and_the_reference_s_values(overfitted: fasttune.Run) -> None:
    results = json.loads((overfitted.folder / "all_results.json").read_text())
    assert results == overfitted.metrics
    assert set(results) == {
        "epoch", "train_loss", "train_runtime", "train_samples", "train_samples_per_second",
        "train_steps_per_second", "train_tokens_per_second", "total_flos", "peak_memory_bytes",
        "eval_loss", "eval_accuracy", "eval_f1", "eval_samples", "eval_runtime", "eval_samples_per_second",
        "test_loss", "test_accuracy", "test_f1", "test_samples", "test_runtime", "test_samples_per_second",
        *(f"{split}_{metric}_{end}" for split in ("eval", "test") for metric in ("accuracy", "f1") for end in ENDS),
    }  # fmt: skip
    predictions = read_lines(overfitted.folder / "predictions" / "test.jsonl")
    labels = [row["label"] for row in EIGHT_ROWS]
    predicted = [prediction["label"] for prediction in predictions]
    assert results["test_accuracy"] == accuracy_score(labels, predicted)
    assert results["test_f1"] == f1_score(labels, predicted, pos_label="positive")
    chosen = [prediction["probabilities"][label] for prediction, label in zip(predictions, labels, strict=True)]
    assert results["test_loss"] == pytest.approx(-np.log(chosen).mean(), abs=1e-5)


def test_events_tell_every_step(overfitted: fasttune.Run) -> None:
    events = read_lines(overfitted.folder / "events.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 81))
    assert set(steps[0]) >= {"event", "step", "epoch", "time", "loss", "learning_rate", "grad_norm", "num_tokens"}
    assert [event["step"] for event in events if event["event"] == "evaluation"] == [40, 80]
    assert events[0]["event"] == "start" and events[-1]["event"] == "end"
    train_loss = np.mean([event["loss"] for event in steps])
    assert overfitted.metrics["train_loss"] == pytest.approx(train_loss)


def test_the_saved_recipe_makes_the_same_run(overfitted: fasttune.Run, tmp_path: Path) -> None:
    saved = yaml.safe_load((overfitted.folder / "recipe.yaml").read_text())
    assert saved["training"]["attention_dropout"] == 0.0
    assert saved["training"]["tokens_per_microbatch"] > 0
    assert saved["data"]["columns"] == {
        "text": "text",
        "text_pair": None,
        "label": "label",
        "group": None,
        "time": None,
    }
    assert saved["problem"] == "single-label"
    again = fasttune.fit(overfitted.folder / "recipe.yaml", output=tmp_path / "again", progress=False)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (overfitted, again)]
    assert weights[0] == weights[1]


def test_best_weights_are_published_and_early_stopping_ends_the_run(recipe: dict, tmp_path: Path) -> None:
    recipe["training"] |= {"num_train_epochs": 40, "learning_rate": 5e-3}
    recipe["evaluation"] = {"early_stopping_patience": 2}
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    evaluations = [event for event in read_lines(run.folder / "events.jsonl") if event["event"] == "evaluation"]
    accuracies = [event["eval_accuracy"] for event in evaluations]
    assert run.reason == "eval_accuracy has not improved for 2 evaluations"
    assert len(accuracies) < 40 and accuracies.index(max(accuracies)) == len(accuracies) - 3
    assert run.metrics["eval_accuracy"] == max(accuracies)
    kept = sorted(int(path.name.removeprefix("checkpoint-")) for path in (run.folder / "checkpoints").iterdir())
    assert len(kept) == 3 and evaluations[-3]["step"] in kept


def test_the_loss_can_decide(recipe: dict, tmp_path: Path) -> None:
    recipe["training"]["num_train_epochs"] = 12
    recipe["evaluation"] = {"metric_for_best_model": "loss", "metrics": ["f1_macro"]}
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    losses = [event["eval_loss"] for event in read_lines(run.folder / "events.jsonl") if event["event"] == "evaluation"]
    assert run.metrics["eval_loss"] == pytest.approx(min(losses), abs=1e-6)
    assert "eval_f1_macro" in run.metrics


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_padded_training_gives_the_same_losses(
    recipe: dict, tiny_model_without_dropout: Path, tmp_path: Path, padding: str
) -> None:
    recipe["model"] = str(tiny_model_without_dropout)
    losses = []
    for name in ("none", padding):
        changed = {**recipe, "preprocessing": {"padding": name, "max_length": 40}}
        run = fasttune.fit(changed, output=tmp_path / name, progress=False)
        losses.append([event["loss"] for event in read_lines(run.folder / "events.jsonl") if "loss" in event])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-4)


SMALL = {
    "vocab_size": 79,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}


def train_family(recipe: dict, folder: Path, config: transformers.PreTrainedConfig) -> dict[str, Any]:
    """environment.json of a run that starts from a random model of `config`, with the tiny tokenizer."""
    save_tiny_model(folder / "model")
    transformers.AutoModel.from_config(config).save_pretrained(folder / "model")
    recipe["training"]["num_train_epochs"] = 1
    run = fasttune.fit({**recipe, "model": str(folder / "model")}, output=folder / "run", progress=False)
    assert 0 < run.metrics["eval_loss"] < 2
    return json.loads((run.folder / "environment.json").read_text())


def test_an_unsupported_family_trains_padded_and_says_why(recipe: dict, tmp_path: Path) -> None:
    kernel = train_family(recipe, tmp_path, transformers.RoFormerConfig(**SMALL))["kernel"]
    assert kernel == {"value": "padded to longest", "reason": "the roformer family is not supported yet"}


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        (transformers.AlbertConfig(**SMALL, embedding_size=8), "torch"),
        (transformers.MPNetConfig(**SMALL), "the model's own"),
        (transformers.DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["c2p"]), "the model's own"),
        (transformers.ModernBertConfig(**SMALL, local_attention=8), "torch"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_families_with_an_adapter_train_without_padding(
    recipe: dict, tmp_path: Path, config: transformers.PreTrainedConfig, attention: str
) -> None:
    environment = train_family(recipe, tmp_path, config)
    assert (environment["kernel"]["value"], environment["attention"]["value"]) == ("padding-free", attention)


def test_labels_by_number_get_names_and_new_data_may_use_either(recipe: dict, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": int(row["label"] == "positive")} for row in make_rows(60)]
    recipe["data"] = {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "label_names": ["no", "yes"]}
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert json.loads((run.folder / "config.json").read_text())["id2label"] == {"0": "no", "1": "yes"}
    by_number = fasttune.evaluate(run.folder, data=str(tmp_path / "rows.jsonl"))
    named = [{**row, "label": ["no", "yes"][row["label"]]} for row in rows]
    by_name = fasttune.evaluate(run.folder, data=str(write_jsonl(tmp_path / "named.jsonl", named)))
    assert by_number["eval_accuracy"] == by_name["eval_accuracy"]


def test_evaluate_repeats_the_scores_of_training(recipe: dict, tmp_path: Path) -> None:
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    again = fasttune.evaluate(run.folder)
    assert again["eval_accuracy"] == run.metrics["eval_accuracy"]
    assert again["eval_loss"] == pytest.approx(run.metrics["eval_loss"], abs=1e-6)


def test_predict_reads_rows_without_labels_and_writes_json_lines(overfitted: fasttune.Run, tmp_path: Path) -> None:
    rows = [{"id": f"row-{number}", "text": row["text"]} for number, row in enumerate(EIGHT_ROWS)]
    data = write_csv(tmp_path / "new.csv", rows)
    found = fasttune.predict(overfitted.folder, data=str(data), output=tmp_path / "out.jsonl")
    assert read_lines(tmp_path / "out.jsonl") == [
        {**one, "text": row["text"]} for one, row in zip(found, rows, strict=True)
    ]
    assert [prediction["id"] for prediction in found] == [row["id"] for row in rows]


def test_weights_that_are_not_finite_stop_the_run_and_are_never_saved(recipe: dict, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "broken")
    tensors = transformers.BertModel.from_pretrained(model)
    with torch.no_grad():
        tensors.encoder.layer[1].output.dense.bias[0] = float("inf")
    tensors.save_pretrained(model)
    with pytest.raises(fasttune.Error, match=r"step 1, training rows .*training diverged: loss nan") as raised:
        fasttune.fit({**recipe, "model": str(model)}, output=tmp_path / "run", progress=False)
    assert raised.value.exit_code == 6
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    last = read_lines(tmp_path / "run" / "events.jsonl")[-1]
    assert (last["event"], last["step"], last["loss"], len(last["rows"])) == ("diverged", 0, "nan", 8)


def test_an_interrupted_cell_saves_and_returns_the_run_so_far(recipe: dict, tmp_path: Path) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            signal.raise_signal(signal.SIGINT)

    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False, observers=[interrupt])
    assert (run.is_complete, run.signal, run.reason) == (False, signal.SIGINT, "stopped by SIGINT")
    assert (run.folder / "checkpoints" / "checkpoint-4").is_dir()
    assert fasttune.load(run.folder).predict("good")[0]["label"] in ("negative", "positive")
    resumed = fasttune.fit(recipe, output=run.folder, resume=True, progress=False)
    undisturbed = fasttune.fit(recipe, output=tmp_path / "other", progress=False)
    weights = [(one.folder / "model.safetensors").read_bytes() for one in (resumed, undisturbed)]
    assert weights[0] == weights[1]


def test_the_caller_s_random_numbers_are_left_alone(recipe: dict, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert torch.equal(torch.rand(2), expected)


def test_a_setting_without_effect_is_said_once(recipe: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe["training"] |= {"max_steps": 10, "num_train_epochs": 2}
    recipe["evaluation"] = {"early_stopping_patience": 2}
    fasttune.fit(recipe, output=tmp_path / "run")
    said = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert said == [
        "  no effect: evaluation.early_stopping_patience=2, because there are only 2 evaluations",
        "  no effect: training.num_train_epochs, because training.max_steps is set",
    ]


def test_f1_of_one_class_is_refused_where_there_are_three(recipe: dict, tmp_path: Path) -> None:
    rows = [{"text": f"good w{number}", "label": str(number % 3)} for number in range(30)]
    recipe["data"] = {"train": str(write_csv(tmp_path / "three.csv", rows))}
    recipe["evaluation"] = {"metrics": ["f1"]}
    with pytest.raises(fasttune.Error, match="metric f1 is not available for these labels") as raised:
        fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert raised.value.exit_code == 3


def test_a_run_killed_between_the_last_evaluation_and_the_stop_stops_when_it_goes_on() -> None:
    state = TrainState(evaluations=[{"step": step, "eval_accuracy": value} for step, value in [(1, 0.9), (2, 0.8)]])
    started = Started(step=2, epoch=2.0, num_steps=9, num_examples=8, batch_size=8, num_processes=1)
    assert EarlyStopping("eval_accuracy", 1, state)(started) == "eval_accuracy has not improved for 1 evaluations"
    assert EarlyStopping("eval_accuracy", 2, state)(started) is None


def test_pairs_from_file_to_the_same_answers_as_the_plain_model(tiny_model: Path, tmp_path: Path) -> None:
    texts = [row["text"] for row in make_rows(120, seed=4)]
    rows = [
        {"sentence1": texts[2 * number], "sentence2": texts[2 * number + 1], "label": ["no", "yes"][number % 2]}
        for number in range(60)
    ]
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "pairs.csv", rows)), "test": str(tmp_path / "pairs.csv")},
        "training": {"num_train_epochs": 1, "precision": "fp32", "device": "cpu", "learning_rate": 1e-3},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows[:8]]
    found = fasttune.load(run.folder).predict(pairs)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    with torch.no_grad():
        logits = model(**tokenizer([list(pair) for pair in pairs], padding=True, return_tensors="pt")).logits
    for prediction, expected in zip(found, logits.softmax(1).tolist(), strict=True):
        assert list(prediction["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    flipped = fasttune.load(run.folder).predict([pair[::-1] for pair in pairs])
    assert [one["score"] for one in flipped] != [one["score"] for one in found], "which text comes first matters"
    assert fasttune.predict(run.folder, data=str(tmp_path / "pairs.csv"))[:8] == [
        {
            **one,
            "score": pytest.approx(one["score"], abs=1e-5),
            "probabilities": pytest.approx(one["probabilities"], abs=1e-5),
        }
        for one in found
    ]


def test_windows_of_long_texts_are_pooled_as_the_plain_model_would(tiny_model: Path, tmp_path: Path) -> None:
    rows = make_rows(60, seed=6)
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_csv(tmp_path / "rows.csv", rows))},
        "preprocessing": {"max_length": 10, "long_text": "windows"},
        "training": {"num_train_epochs": 2, "precision": "fp32", "device": "cpu", "tokens_per_microbatch": 64},
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    report = json.loads((run.folder / "data_report.json").read_text())["splits"]["train"]
    assert report["windows"]["num_windows"] > report["num_rows"] > report["windows"]["num_rows_in_several"] > 0
    assert report["truncated"]["num_tokens"] == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    found = fasttune.load(run.folder).predict([row["text"] for row in rows[:12]])
    for row, prediction in zip(rows, found, strict=False):
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        windows = [torch.tensor([[2, *ids[begin : begin + 8], 3]]) for begin in range(0, len(ids), 8)]
        with torch.no_grad():
            logits = torch.cat([model(window).logits for window in windows]).mean(0)
        assert list(prediction["probabilities"].values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)


@pytest.mark.parametrize("problem", ["multi-label", "regression"])
def test_labels_and_numbers_from_file_to_prediction(problem: str, tiny_model: Path, tmp_path: Path) -> None:
    rows = []
    for row in make_rows(160, seed=5):
        has = {"good": "good" in row["text"], "bad": "bad" in row["text"], "not": "not" in row["text"].split()}
        labels = [name for name, there in has.items() if there]
        rows.append({"text": row["text"], "label": labels if problem == "multi-label" else 0.5 + 2 * has["good"]})
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(write_jsonl(tmp_path / "rows.jsonl", rows))},
        "training": {
            "preset": "tutorial",
            "num_train_epochs": 12,
            "precision": "fp32",
            "device": "cpu",
            "learning_rate": 3e-3,
        },
        "tracking": {"report_to": "none"},
    }
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text())["problem"] == problem
    notes = json.loads((run.folder / "data_report.json").read_text())["notes"]
    assert any(problem in note for note in notes), "the inferred problem is reported"
    deciding = {"multi-label": "eval_f1_micro", "regression": "eval_pearson"}[problem]
    assert run.metrics[deciding] > 0.9
    again = fasttune.evaluate(run.folder)
    assert again[deciding] == pytest.approx(run.metrics[deciding]), "thresholds travel with the model"
    found = fasttune.load(run.folder).predict([row["text"] for row in rows[:20]])
    if problem == "multi-label":
        thresholds = json.loads((run.folder / "config.json").read_text())["thresholds"]
        for prediction in found:
            expected = [name for name, share in prediction["probabilities"].items() if share >= thresholds[name]]
            assert prediction["labels"] == expected
    else:
        wanted = [row["label"] for row in rows[:20]]
        assert np.corrcoef([prediction["score"] for prediction in found], wanted)[0, 1] > 0.9
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder)
    assert plain.config.problem_type == {"multi-label": "multi_label_classification"}.get(problem, problem)
