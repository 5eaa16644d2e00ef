"""report.html: complete, offline, in two languages, and a text of the data never becomes part of the page."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reported import fit, with_hostile_texts
from sklearn.metrics import confusion_matrix
from tiny import make_questions, make_rows, make_sentences, write_csv
from typer.testing import CliRunner

import fasttune
from fasttune.cli.commands import app
from fasttune.errors import UsageError
from fasttune.runs.folder import RunFolder, read_json, write_json

PACKAGE = Path(fasttune.__file__).parent / "report"
pytestmark = pytest.mark.report


class Page(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._style = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    # The fixture that leaves reports out is of single tests, so this one is made by the command.
    folder = tmp_path_factory.mktemp("report")
    training = {"preset": "tutorial", "num_train_epochs": 6, "precision": "fp32", "learning_rate": 3e-3}
    rows = make_rows(300, longest=6)
    for row in rows[::9]:  # mistakes
        row["label"] = "negative" if row["label"] == "positive" else "positive"
    made = fit(tiny_model, folder, rows, training=training)
    fasttune.write_report(made.path, progress=False)
    return made


def check_policy(text: str) -> Page:
    """The page has no script, no inline style, loads nothing, and its policy allows exactly its own style."""
    page = Page(text)
    policy = next(found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy is not None and policy.startswith("default-src 'none'") and f"'sha256-{digest}'" in policy
    for tag, found in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form")
        assert not any(name.startswith("on") or name == "style" for name in found)
        for name in ("src", "srcset"):
            assert (found.get(name) or "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
        assert (found.get("href") or "#").startswith("#")
        assert tag != "img" or found.get("alt")
    return page


def test_the_page_has_the_scores_of_the_run(run: RunFolder) -> None:
    text = run.report.read_text("utf-8")
    page, results = check_policy(text), read_json(run.all_results)
    assert len(text) < 5_000_000
    for name in ("accuracy", "f1"):
        assert f"{results[f'eval_{name}']:.4f}" in page.text
        assert f"{results[f'eval_{name}_low']:.4f}" in page.text
    assert f"{100 * results['eval_accuracy']:.1f} %" in page.text
    for one in read_json(run.baselines):
        assert one["name"] in page.text and f"{one['value']:.4f}" in page.text
    assert "fasttune reproduce" in page.text and "num_train_epochs: 6" in page.text
    assert {path.name for path in run.plots.iterdir()} >= {
        "training.svg",
        "training.png",
        "confusion.png",
        "baselines.svg",
    }


def test_the_analysis_agrees_with_scikit_learn(run: RunFolder) -> None:
    analysis = read_json(run.analysis)
    predicted = [json.loads(line) for line in run.predictions("validation").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in (run.path.parent / "rows.jsonl").read_text("utf-8").splitlines()]
    gold = [rows[int(one["id"])]["label"] for one in predicted]
    table = confusion_matrix(gold, [one["label"] for one in predicted], labels=analysis["confusions"]["names"])
    assert analysis["confusions"]["counts"] == table.tolist()
    wrong = [one for one, label in zip(predicted, gold, strict=True) if one["label"] != label]
    worst = sorted(wrong, key=lambda one: -one["score"])[:20]
    assert {one["id"] for one in analysis["mistakes"]} == {one["id"] for one in worst}
    unlikely = [one["id"] for one in worst if 1 - one["score"] < 0.2]  # two labels
    assert [one["id"] for one in analysis["suspects"]][: len(unlikely)] == unlikely
    for one in analysis["mistakes"]:
        assert one["label"] == rows[int(one["id"])]["label"] and one["inputs"]["text"] == rows[int(one["id"])]["text"]


def test_words_behind_a_mistake_are_measured_by_leaving_them_out(run: RunFolder) -> None:
    attributions, mistakes = read_json(run.attributions), read_json(run.analysis)["mistakes"]
    model = fasttune.load(run.path)
    measured = 0
    for one in mistakes[:5]:
        text, found = one["inputs"]["text"], attributions[str(one["row"])]
        whole = model.predict([text])[0]["probabilities"][found["label"]]
        assert found["score"] == pytest.approx(whole, abs=1e-5) and found["label"] == one["prediction"]
        for word in found["words"]:
            shorter = " ".join((text[: word["start"]] + " " + text[word["end"] :]).split())
            effect = whole - model.predict([shorter])[0]["probabilities"][found["label"]]
            assert word["effect"] == pytest.approx(effect, abs=1e-5)
            assert text[word["start"] : word["end"]] == word["word"]
            measured += 1
    assert measured


def test_chinese(run: RunFolder) -> None:
    result = CliRunner().invoke(app, ["report", str(run.path), "--lang", "zh", "--quiet"])
    assert result.exit_code == 0 and result.stdout.strip() == str(run.report)
    page = check_policy(run.report.read_text("utf-8"))
    assert "混淆矩阵" in page.text and "错误示例" in page.text and "Mistakes" not in page.text
    with pytest.raises(UsageError, match="one of en, zh"):
        fasttune.write_report(run.path, language="xx")
    fasttune.write_report(run.path, progress=False)


def test_every_sentence_has_a_chinese_one() -> None:
    known = json.loads((PACKAGE / "zh.json").read_text("utf-8"))
    templates = "\n".join(path.read_text("utf-8") for path in (PACKAGE / "templates").glob("*.html"))
    used = {json.loads(f'"{found}"') for found in re.findall(r'say\("((?:[^"\\]|\\.)*)"', templates)}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("say", "Sentence"):
                used |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    used -= {"By "}  # the beginning of a title
    assert used and not used - set(known)
    names = re.compile(r"\{(\w+)\}")
    for english, chinese in known.items():
        assert sorted(names.findall(english)) == sorted(names.findall(chinese)), english


def test_hostile_texts_stay_texts(run: RunFolder, tmp_path: Path) -> None:
    text = with_hostile_texts(run, tmp_path).report.read_text("utf-8")
    page = check_policy(text)
    assert "<script>window.hurt = 1</script>" in page.text and "<script" not in text
    assert "{{ ''.__class__" in page.text and "subclass_of" not in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", text)


def test_questions_and_words_have_their_own_tables(tiny_model: Path, tmp_path: Path) -> None:
    for name, rows, task in (
        ("questions", make_questions(60), "question-answering"),
        ("sentences", make_sentences(60), "token-classification"),
    ):
        (tmp_path / name).mkdir()
        preprocessing = {"doc_stride": 8} if task == "question-answering" else {}
        made = fit(tiny_model, tmp_path / name, rows, task=task, preprocessing=preprocessing)
        fasttune.write_report(made.path, progress=False)
        page, analysis = check_policy(made.report.read_text("utf-8")), read_json(made.analysis)
        assert analysis["mistakes"] and not made.attributions.exists()
        if task == "question-answering":
            assert "By words of the shortest answer" in page.text
        else:
            kinds = analysis["entity_errors"]["kinds"]
            true = sum(one["num_true"] for one in analysis["by_label"])
            assert sum(number for kind, number in kinds.items() if kind != "invented") == true
            assert kinds["correct"] == round(sum(one["recall"] * one["num_true"] for one in analysis["by_label"]))
            assert "wrong boundary" in page.text


def test_a_run_without_an_analysis_gets_one(run: RunFolder) -> None:
    before = read_json(run.analysis)
    run.analysis.unlink()
    run.attributions.unlink()
    fasttune.write_report(run.path, progress=False)
    after = read_json(run.analysis)
    before.pop("earlier_scorings")
    assert set(after) == set(before)
    for name in ("confusions", "by_label", "drift", "shortcuts", "few_rows", "searched"):
        assert after[name] == before[name]
    assert {one["id"] for one in after["mistakes"]} == {one["id"] for one in before["mistakes"]}


def test_training_ends_with_a_report_unless_told_not_to(tiny_model: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", make_rows(60))
    recipe = {"model": str(tiny_model), "data": {"train": str(data)}, "training": {"max_steps": 2}}
    first = fasttune.fit(recipe, output=tmp_path / "with", progress=False)
    second = fasttune.fit({**recipe, "output": {"report": False}}, output=tmp_path / "without", progress=False)
    assert (first.folder / "report.html").exists() and (first.folder / "plots" / "training.png").exists()
    assert not (second.folder / "report.html").exists()


def test_a_report_that_fails_costs_no_run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("no fonts")

    monkeypatch.setattr("fasttune.report.page.write_report", fail)
    data = write_csv(tmp_path / "rows.csv", make_rows(60))
    recipe = {"model": str(tiny_model), "data": {"train": str(data)}, "training": {"max_steps": 2}}
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert run.is_complete and not (run.folder / "report.html").exists()


def test_new_rows_beside_the_training_rows(run: RunFolder, tmp_path: Path) -> None:
    same = [{"text": row["text"]} for row in make_rows(200, seed=5, longest=6)]
    longer = [{"text": " ".join([row["text"]] * 4)} for row in make_rows(200, seed=5, longest=6)]
    said = {}
    for name, rows in (("same", same), ("longer", longer)):
        data = write_csv(tmp_path / f"{name}.csv", rows)
        result = CliRunner().invoke(app, ["report", str(run.path), "--data", str(data), "--quiet"])
        assert result.exit_code == 0, result.output
        said[name] = check_policy(run.report.read_text("utf-8")).text
    assert f"{tmp_path / 'longer.csv'}: words differs from the training rows" in said["longer"]
    assert "words differs from the training rows" not in said["same"] and "same.csv" in said["same"]


def test_seeds_and_comparison(tiny_model: Path, tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        training = {"preset": "tutorial", "max_steps": 3, "precision": "fp32", "seed": seed}
        runs.append(fit(tiny_model, tmp_path / str(seed), make_rows(100), training=training).path)
    html = tmp_path / "compare.html"
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "--html", str(html)])
    assert result.exit_code == 0, result.output
    page = check_policy(html.read_text("utf-8"))
    for one in fasttune.compare(*runs, progress=False):
        assert one.sentence in page.text


def test_earlier_scorings_of_the_same_test_rows_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    for name, number in (("rows", 60), ("test", 30)):
        write_csv(tmp_path / f"{name}.csv", make_rows(number, seed=number))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(tmp_path / "rows.csv"), "test": str(tmp_path / "test.csv")},
        "training": {"max_steps": 2},
    }
    counts = []
    for number in range(3):
        run = fasttune.fit(recipe, output=tmp_path / f"run-{number}", progress=False)
        counts.append(read_json(RunFolder(run.folder).analysis)["earlier_scorings"])
    assert counts == [0, 1, 2]
    assert "scored the same test rows 2 times" in (tmp_path / "run-2" / "report.html").read_text("utf-8")


def test_numbers_that_are_not_finite_are_no_obstacle(run: RunFolder) -> None:
    results = read_json(run.all_results)
    write_json(run.all_results, {**results, "eval_f1": None, "train_mfu": None})
    fasttune.write_report(run.path, progress=False)
    page = check_policy(run.report.read_text("utf-8"))
    write_json(run.all_results, results)
    assert "eval_f1" in results and "share of the machine's peak" not in page.text
    assert page.text.count(f"{results['eval_accuracy']:.4f}") and "None" not in page.text and "nan" not in page.text


def test_the_words_are_those_of_the_label_that_is_shown(tiny_model: Path, tmp_path: Path) -> None:
    """With a threshold the predicted label is not always the more probable one; of several labels one is wrong."""
    rare = [row for row in make_rows(200, longest=6) if row["label"] == "negative"] + make_rows(40, seed=1, longest=6)
    evaluation = {"tune_threshold": True, "baselines": False}
    training = {"preset": "tutorial", "num_train_epochs": 2, "precision": "fp32", "learning_rate": 3e-3}
    (tmp_path / "two").mkdir()
    two = fit(tiny_model, tmp_path / "two", rare, evaluation=evaluation, training=training)
    fasttune.write_report(two.path, progress=False)
    attributions = read_json(two.attributions)
    for one in read_json(two.analysis)["mistakes"][:10]:
        assert attributions[str(one["row"])]["label"] == one["prediction"]
    labels = [{**row, "label": [row["label"], "long"] if len(row["text"]) > 15 else [row["label"]]} for row in rare]
    (tmp_path / "several").mkdir()
    several = fit(tiny_model, tmp_path / "several", labels, problem="multi-label", training=training)
    fasttune.write_report(several.path, progress=False)
    attributions = read_json(several.attributions)
    for one in read_json(several.analysis)["mistakes"][:10]:
        predicted, gold = ({*one[name].split(", ")} for name in ("prediction", "label"))
        assert attributions[str(one["row"])]["label"] in predicted ^ gold


def test_mistakes_of_words_come_by_their_number(tiny_model: Path, tmp_path: Path) -> None:
    rows = [
        {"tokens": row["tokens"], "tags": ["LONG" if len(word) > 2 else "SHORT" for word in row["tokens"]]}
        for row in make_sentences(60)
    ]
    made = fit(tiny_model, tmp_path, rows, task="token-classification", training={"max_steps": 3, "precision": "fp32"})
    mistakes = read_json(made.analysis)["mistakes"]
    errors = [one["error"] for one in mistakes]
    assert errors == sorted(errors, reverse=True) and 0 < errors[-1] <= 1
    fasttune.write_report(made.path, progress=False)
    assert "The largest errors on the validation rows" in check_policy(made.report.read_text("utf-8")).text


def test_the_metric_of_the_recipe_is_the_headline(tiny_model: Path, tmp_path: Path) -> None:
    evaluation = {"metric_for_best_model": "f1_macro"}
    made = fit(tiny_model, tmp_path, make_rows(300), evaluation=evaluation)
    fasttune.write_report(made.path, progress=False)
    page, results = check_policy(made.report.read_text("utf-8")), read_json(made.all_results)
    assert f"reaches {100 * results['eval_f1_macro']:.1f} % f1_macro" in page.text
    assert "baselines.png" in {path.name for path in made.plots.iterdir()}


def test_a_ranking_that_a_spreadsheet_has_saved_is_shown_and_a_broken_one_is_not(run: RunFolder) -> None:
    line = "7;positive;negative;3.1;a text of the file\n"
    run.label_ranking.write_text("\ufeffrow;label;suggestion;loss;text\n" + line, encoding="utf-8")
    fasttune.write_report(run.path, progress=False)
    assert "a text of the file" in check_policy(run.report.read_text("utf-8")).text
    run.label_ranking.write_bytes(b"\xff\xfe nothing")
    fasttune.write_report(run.path, progress=False)
    assert "Training labels" not in check_policy(run.report.read_text("utf-8")).text
    run.label_ranking.unlink()


def test_highlights_say_what_is_so() -> None:
    from fasttune.report.highlights import highlights

    evaluations = [
        {"epoch": epoch, "eval_loss": loss, "is_best": epoch == 1}
        for epoch, loss in ((1.0, 0.3), (2.0, 0.4), (3.0, 0.6))
    ]
    warning = {"code": "W250", "where": "validation", "found": "2 rows repeat train: the score may be optimistic"}
    for keeps_best, ending in ((True, "the model is from there."), (False, "as no checkpoint was kept.")):
        said = [
            one.template.format(**one.values)
            for one in highlights({"num_rows": 400}, {"warnings": [warning]}, evaluations, "accuracy", keeps_best)
        ]
        assert "The model overfits: the validation loss was lowest, 0.300, after epoch 1 and rose to 0.600." in said
        assert any(sentence.endswith(ending) for sentence in said)
        assert "validation: 2 rows repeat train: the score may be optimistic." in said
