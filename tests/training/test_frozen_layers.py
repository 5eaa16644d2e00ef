"""Frozen layers keep their weights, and their kept output trains the layers above as running them again would."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import FAMILIES, SIZES
from safetensors.torch import load_file
from tiny import make_questions, make_rows, make_sentences, tiny_tokenizer, write_csv, write_jsonl

import fasttune
from fasttune.errors import RecipeError
from fasttune.training import frozen
from fasttune.training.events import Event, StepDone
from fasttune.training.frozen import KEEPABLE, FrozenLayers


def recipe(model: Path, data: Path, task: str = "text-classification", **training: Any) -> dict[str, Any]:
    return {
        "task": task,
        "model": str(model),
        "data": {"train": str(data)},
        "training": {
            "preset": "tutorial",
            "precision": "fp32",
            "device": "cpu",
            "num_train_epochs": 2,
            "learning_rate": 1e-3,
            "freeze_layers": 1,
            **training,
        },
        "tracking": {"report_to": "none"},
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("frozen") / "rows.csv", make_rows(60))


def changed(before: Path, after: Path) -> set[str]:
    """Names of the encoder's weights that differ, without the prefix of the head's model."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    return {name for name, value in old.items() if not torch.equal(value, new[f"bert.{name}"])}


def test_only_the_layers_above_are_trained(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    run = fasttune.fit(recipe(tiny_model, rows), output=tmp_path / "run", progress=False)
    names = changed(tiny_model, run.folder)
    assert {name.split(".")[0] for name in names} == {"encoder", "pooler"}
    assert {name.split(".")[2] for name in names if name.startswith("encoder")} == {"1"}
    optimizer = load_file(sorted(run.folder.glob("checkpoints/*"))[-1] / "optimizer.safetensors")
    assert not any(".embeddings." in name or ".layer.0." in name for name in optimizer)


TASKS = {
    "text-classification": (write_csv, "rows.csv", make_rows(60)),
    "question-answering": (write_jsonl, "rows.jsonl", make_questions(40)),
    "token-classification": (write_jsonl, "rows.jsonl", make_sentences(40)),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("padding", ["none", "longest"])
def test_kept_output_trains_as_running_the_layers_in_every_step_does(
    task: str, padding: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, name, content = TASKS[task]
    settings = recipe(tiny_model, write(tmp_path / name, content), task)
    windows = {"doc_stride": 16} if task == "question-answering" else {}
    settings["preprocessing"] = {"padding": padding, **windows}
    kept = fasttune.fit(settings, output=tmp_path / "kept", progress=False)
    monkeypatch.setattr(frozen, "LARGEST_SHARE", 0.0)
    run = fasttune.fit(settings, output=tmp_path / "run", progress=False)
    reasons = [
        fasttune.runs.folder.read_json(folder / "environment.json")["frozen_layers"]["reason"]
        for folder in (kept.folder, run.folder)
    ]
    assert reasons[0].startswith("computed once (") and reasons[1].startswith("computed in every step: ")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (kept.folder, run.folder))
    ours.pop("qa_outputs.bias", None)  # the loss does not depend on it: its gradient is rounding alone
    for tensor, value in ours.items():
        torch.testing.assert_close(value, theirs[tensor], atol=2e-5, rtol=1e-4, msg=tensor)
    assert kept.metrics["train_loss"] == pytest.approx(run.metrics["train_loss"], abs=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family].model_type in KEEPABLE])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_states_in_place_of_tokens_give_the_same_logits_and_gradients(family: str, num_layers: int) -> None:
    config = FAMILIES[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(type(config).from_dict(config.to_dict())).eval()
    ids, mask = torch.randint(5, 200, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    parts = FrozenLayers(model, num_layers)
    with parts.applied():
        assert not any(p.requires_grad for p in model.base_model.embeddings.parameters())
        states = frozen._UpTo(model, parts.layers[-1], torch.no_grad)(input_ids=ids, attention_mask=mask)
        expected = model(input_ids=ids, attention_mask=mask).logits
        logits = model(inputs_embeds=states, attention_mask=mask).logits
        torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)
        parameters = [p for p in model.parameters() if p.requires_grad]
        for ours, theirs in zip(
            torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True),
            torch.autograd.grad(expected.square().sum(), parameters, allow_unused=True),
            strict=True,
        ):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert all(p.requires_grad for p in model.parameters())
    assert not any("forward" in vars(m) or "train" in vars(m) for m in model.modules())


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bytes(
    tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    settings = recipe(tiny_model, rows)
    whole = fasttune.fit(settings, output=tmp_path / "whole", progress=False)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            signal.raise_signal(signal.SIGINT)

    assert not fasttune.fit(settings, output=tmp_path / "run", progress=False, observers=[stop]).is_complete
    run = fasttune.fit(settings, output=tmp_path / "run", resume=True, progress=False)
    assert (run.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_signal_while_the_layers_run_once_stops_the_run(
    tiny_model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = FrozenLayers.kept

    def signalled(self: FrozenLayers, *args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return kept(self, *args)

    steps: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(FrozenLayers, "kept", signalled)
        run = fasttune.fit(
            recipe(tiny_model, rows),
            output=tmp_path / "run",
            progress=False,
            observers=[lambda event: steps.append(event) if isinstance(event, StepDone) else None],
        )
    assert not run.is_complete and not steps
    assert fasttune.fit(recipe(tiny_model, rows), output=tmp_path / "run", resume=True, progress=False).is_complete


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_more_layers_than_the_model_has_are_refused(family: str, rows: Path, tmp_path: Path) -> None:
    config = transformers.AlbertConfig(**SIZES, embedding_size=16) if family == "albert" else FAMILIES[family]
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(RecipeError) as caught:
        fasttune.fit(recipe(tmp_path, rows, freeze_layers=3), output=tmp_path / "run", progress=False)
    (problem,) = caught.value.problems
    assert problem.code == "E413"
    if family == "bert":
        assert "3, but model" in problem.found and "has 2 layers" in problem.found
        assert problem.hint == "training.freeze_layers=1"
    else:
        assert "share their weights" in problem.found and problem.hint == "training.freeze_layers=0"
