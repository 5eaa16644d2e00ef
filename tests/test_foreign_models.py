"""Models and tokenizers as people publish them: one segment, added tokens, positions behind the padding id."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import make_questions, make_rows, make_sentences, tiny_tokenizer, write_csv, write_jsonl

import fasttune
from fasttune.training.model import load_config, longest_input

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TRAINING = {"max_steps": 3, "precision": "fp32", "device": "cpu"}


def save(folder: Path, model: transformers.PreTrainedModel, tokenizer: Any = None) -> Path:
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def fit(folder: Path, model: Path, data: Path, **sections: Any) -> fasttune.Run:
    recipe = {"model": str(model), "data": {"train": str(data)}, "training": TRAINING}
    return fasttune.fit(recipe, output=folder / "run", progress=False, tracking={"report_to": "none"}, **sections)


@pytest.fixture
def one_segment(tmp_path: Path) -> Path:
    """A RoBERTa body under a BERT tokenizer, which calls the second text segment 1."""
    config = transformers.RobertaConfig(
        vocab_size=79, max_position_embeddings=66, type_vocab_size=1, pad_token_id=0, **SIZES
    )
    return save(tmp_path / "model", transformers.RobertaModel(config))


def test_pairs_and_questions_on_a_model_with_one_segment(one_segment: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "text_pair": "good food", "label": row["label"]} for row in make_rows(30, longest=8)]
    pairs = fit(tmp_path, one_segment, write_csv(tmp_path / "pairs.csv", rows))
    assert fasttune.predict(pairs.folder, [("good", "bad")])[0]["label"]
    (tmp_path / "questions").mkdir()
    questions = write_jsonl(tmp_path / "questions.jsonl", make_questions(30, longest=20))
    how = {"task": "question-answering", "preprocessing": {"doc_stride": 8}}
    assert fit(tmp_path / "questions", one_segment, questions, **how).is_complete


def with_more_tokens(folder: Path, number: int) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<url{place}>" for place in range(number)])
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=79, max_position_embeddings=64, **SIZES)
    return save(folder, transformers.BertModel(config), tokenizer)


def test_tokens_that_were_added_to_the_tokenizer_alone_get_rows(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = with_more_tokens(tmp_path / "model", 1)
    rows = [{**row, "text": f"{row['text']} <url0>"} for row in make_rows(40)]
    recipe = {"model": str(model), "data": {"train": str(write_csv(tmp_path / "rows.csv", rows))}, "training": TRAINING}
    run = fasttune.fit(recipe, output=tmp_path / "run", tracking={"report_to": "none"})
    assert " 80 rows  1 new ones, initialised with seed" in re.sub(r" {3,}", "  ", capsys.readouterr().err)
    assert json.loads((run.folder / "config.json").read_text())["vocab_size"] == 80
    assert fasttune.predict(run.folder, ["good <url0>"])[0]["label"]
    again = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder)
    assert again.get_input_embeddings().num_embeddings == 80


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model = with_more_tokens(tmp_path / "model", 1_500)
    with pytest.raises(fasttune.Error, match=r"E407 .*the tokenizer has 1,579 tokens, but the weights only 79 rows"):
        fit(tmp_path, model, write_csv(tmp_path / "rows.csv", make_rows(40)))


@pytest.mark.parametrize(
    "kind", ["RobertaPreLayerNorm", "Data2VecText", "IBert", "XLMRobertaXL", "Xmod", "Longformer", "Luke", "Esm"]
)
def test_positions_that_begin_behind_the_padding_id(kind: str, tmp_path: Path) -> None:
    config_class = getattr(transformers, f"{kind}Config")
    config = config_class(vocab_size=79, max_position_embeddings=66, pad_token_id=1, **SIZES)
    config.save_pretrained(tmp_path)
    assert longest_input(load_config(str(tmp_path))) == 64


def test_a_long_text_is_cut_to_the_positions_there_are(tmp_path: Path) -> None:
    config = transformers.RobertaPreLayerNormConfig(vocab_size=79, max_position_embeddings=66, pad_token_id=1, **SIZES)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    model = save(tmp_path / "model", transformers.RobertaPreLayerNormModel(config), tokenizer)
    rows = [{**row, "text": " ".join(["good w1"] * 60)} for row in make_rows(20)]
    run = fit(tmp_path, model, write_csv(tmp_path / "rows.csv", rows))
    report = json.loads((run.folder / "data_report.json").read_text())
    assert report["splits"]["train"]["tokens_per_example"]["max"] == 64


@pytest.fixture
def python_tokenizer(tmp_path: Path) -> Path:
    """A model whose tokenizer is written in Python and splits these texts as the tiny BERT tokenizer does."""
    config = transformers.BertConfig(vocab_size=79, max_position_embeddings=64, **SIZES)
    model = save(tmp_path / "python", transformers.BertModel(config))
    shutil.copytree(model, tmp_path / "fast")
    pieces = sorted(tiny_tokenizer().get_vocab().items(), key=lambda item: item[1])
    for path in model.glob("token*"):
        path.unlink()
    (model / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces))
    settings = {
        "tokenizer_class": "BertJapaneseTokenizer",
        "word_tokenizer_type": "basic",
        "subword_tokenizer_type": "wordpiece",
        "model_max_length": 64,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


@pytest.mark.parametrize("how", ["single texts", "pairs", "head_tail"])
def test_a_tokenizer_in_python_trains_classifiers_as_a_fast_one_does(
    tmp_path: Path, python_tokenizer: Path, how: str
) -> None:
    rows = [
        {**row, "text": " ".join([row["text"]] * (30 if number % 9 == 0 else 1))}
        for number, row in enumerate(make_rows(40))
    ]
    if how == "pairs":
        rows = [{"text": row["text"], "text_pair": "bad food", "label": row["label"]} for row in rows]
    path = write_csv(tmp_path / "rows.csv", rows)
    preprocessing = {"long_text": "head_tail"} if how == "head_tail" else {}
    runs = [fit(tmp_path / name, tmp_path / name, path, preprocessing=preprocessing) for name in ("python", "fast")]
    reports = [json.loads((run.folder / "data_report.json").read_text())["splits"] for run in runs]
    assert reports[0] == reports[1] and reports[0]["train"]["truncated"]["num_examples"] > 1
    assert runs[0].metrics["eval_loss"] == runs[1].metrics["eval_loss"]
    assert fasttune.evaluate(runs[0].folder)["eval_loss"] == pytest.approx(runs[0].metrics["eval_loss"])
    assert fasttune.load(runs[0].folder).predict([("good food", "bad food") if how == "pairs" else "good food"])


def test_a_tokenizer_in_python_is_refused_where_tokens_are_mapped_to_words(
    tmp_path: Path, python_tokenizer: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", make_sentences(20))
    with pytest.raises(fasttune.Error, match=r"E403 .*BertJapaneseTokenizer cannot map tokens to characters") as caught:
        fit(tmp_path, python_tokenizer, path, task="token-classification")
    assert caught.value.exit_code == 5


def test_a_sentencepiece_model_without_the_library_says_what_to_install(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    if __import__("importlib.util").util.find_spec("sentencepiece") is not None:
        pytest.skip("sentencepiece is installed")
    config = transformers.DebertaV2Config(vocab_size=79, max_position_embeddings=64, **SIZES)
    transformers.DebertaV2Model(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "spm.model").write_bytes(b"\n\x05")
    (tmp_path / "model" / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    with pytest.raises(fasttune.Error) as caught:
        fit(tmp_path, tmp_path / "model", write_csv(tmp_path / "rows.csv", make_rows(40)))
    assert caught.value.problems[0].hint == "pip install sentencepiece protobuf"
