"""Extractive question answering: the answer is a span of the context, or there is none.

A row becomes one or more windows (data/tokens/windows.py). Shapes: N windows, B windows of a micro-batch, S tokens of
the longest window, n spans kept per window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fasttune.data.answer_cells import flag_of
from fasttune.data.answers import NOWHERE, Answer, read_answers
from fasttune.data.columns import Column, cells_of, is_text, resolve, text_values
from fasttune.data.holdout import GROUP
from fasttune.data.problems import Problems, counted, some_of
from fasttune.data.rows import Rows, ids_of
from fasttune.data.sources import Source
from fasttune.data.tokens.store import IGNORED, TokenStore
from fasttune.data.tokens.windows import answer_positions, windows
from fasttune.errors import DataError, Problem, shown
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Task, chosen_metrics
from fasttune.tasks.metrics import squad, sums
from fasttune.tasks.metrics.sums import RowSums, keys_of, numbered

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from fasttune.data.batching.collate import MicroBatch

THRESHOLD = "null_score_diff_threshold"  # in config.json; same name in the recipe and in transformers' scripts
SURELY_NONE = 1e9  # if no span was found; the official scorer needs a number to compare
INPUTS = ("question", "context")


class Candidate(NamedTuple):
    """Characters [start, end) of the context; `score` is the sum of two logits."""

    answer: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """`threshold`: the model gives no answer if "no answer" scores better than the best span by more than this.

    None: every question has an answer. `tunes`: whether the threshold is calibrated on the validation split, because
    the recipe does not set it.
    """

    doc_stride: int
    n_best_size: int
    max_answer_length: int
    metrics: tuple[str, ...]
    threshold: float | None = None
    tunes: bool = False
    notes: tuple[str, ...] = ()

    name: ClassVar[str] = "question-answering"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    default_max_length: ClassVar[int | None] = 384
    needs_offsets: ClassVar[bool] = True
    columns: ClassVar[tuple[Column, ...]] = (
        Column(role="question", description="the question to answer", required=True, guesses=("question", "query")),
        Column(
            role="context",
            description="the text that holds the answer",
            required=True,
            guesses=("context", "passage", "paragraph", "document", "text"),
        ),
        Column(
            role="answers",
            description="the correct answers: texts from the context, with their starts",
            required=True,
            guesses=("answers", "answer", "answer_text", "answers.text"),
            last_guesses=("text",),  # beside a context; there is a well-known table of SQuAD with this column
            is_target=True,
            may_be_empty=True,
        ),
        Column(
            role="answer_start",
            description="the first character of the answer, if answers are plain texts",
            required=False,
            guesses=(
                "answer_start",
                "start",
                "answers.answer_start",
                "answer_begin",
                "answer_offset",
                "answer_start_index",
                "start_index",
                "start_char",
            ),
            follows="answers",
            is_target=True,
            may_be_empty=True,
        ),
    )

    @classmethod
    def recognises(cls, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
        """Also by common names of all required roles, if there are starts of answers, which no other task has."""
        if super().recognises(names, rows):
            return True
        with suppress(DataError):
            return "answer_start" in resolve(cls.columns, {}, names, "").names
        return False

    @classmethod
    def read(cls, source: Source, columns: Mapping[str, str], recipe: Recipe) -> Rows:
        dataset, where = source.dataset, source.description.partition(":")[0]
        problems, values, notes = Problems(where), dict[str, Sequence[Any]](), []
        for role in INPUTS:
            with problems.collected():
                values[role] = text_values(dataset, columns[role], where, source.place, role)
        problems.raise_if_any()
        if "answers" in columns:
            cells = cells_of(dataset, columns["answers"])
            starts = cells_of(dataset, columns["answer_start"]) if "answer_start" in columns else None
            answers = read_answers(cells, starts, values["context"], where, source.place, recipe.data.fix_spans)
            values["answers"] = answers.rows
            _check_flags(source, answers.rows, where)
            notes = [f"{where}: {answers.note}"] if answers.note else []
        ids = ids_of(source)
        twice = next((row_id for row_id, count in Counter(ids).items() if count > 1), None)
        if twice is not None:
            found = f"several questions have the id {shown(twice)}; predictions are stored by id"
            raise DataError(Problem(code="E249", where=where, found=found, hint="give each question a unique id"))
        return Rows(ids, values, tuple(notes))

    def rows_of(self, inputs: Any) -> Rows:
        """Rows from a tuple or a dict of a question and its context, or from several of them."""
        inputs = [inputs] if isinstance(inputs, tuple | dict) else list(inputs)
        pairs, problems = [], []
        for number, given in enumerate(inputs, start=1):
            pair = tuple(given.get(role) for role in INPUTS) if isinstance(given, dict) else given
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_text, pair)) and all(pair)):
                expected = "a question and its context, such as ('Who came?', 'Ann came.')"
                problems.append(Problem(where=f"question {number}", found=shown(given), expected=expected))
            else:
                pairs.append(pair)
        if problems:
            raise DataError(*problems)
        values = {role: [pair[position] for pair in pairs] for position, role in enumerate(INPUTS)}
        return Rows([str(number) for number in range(len(pairs))], values)

    @classmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> QuestionAnswering:
        unanswered = sum(not answers for answers in rows.values["answers"])
        task = cls._of(recipe)
        if not unanswered:
            return task
        note = f"{where}: {unanswered:,} of {len(rows):,} questions have no answer; the model learns to leave them open"
        return replace(task, threshold=task.threshold or 0.0, tunes=task.threshold is None, notes=(note,))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> QuestionAnswering:
        task = cls._of(recipe)
        return task if task.threshold is not None else replace(task, threshold=state[THRESHOLD])

    @classmethod
    def _of(cls, recipe: Recipe) -> QuestionAnswering:
        evaluation = recipe.evaluation
        metrics = chosen_metrics(recipe, "f1", squad.METRICS, squad.METRICS)
        return cls(
            recipe.preprocessing.doc_stride,
            evaluation.n_best_size,
            evaluation.max_answer_length,
            metrics,
            evaluation.null_score_diff_threshold,
        )

    @property
    def example(self) -> str:
        return '--question "Who came?" --context "Ann came at noon."'

    @property
    def primary_metric(self) -> str:
        return "f1"

    def state(self) -> dict[str, Any]:
        # A span has two logits, start and end; the config of a former classifier has as many as it had classes.
        return {THRESHOLD: self.threshold, "num_labels": 2}

    def groups(self, rows: Rows) -> Sequence[str]:
        return rows.values["context"]

    def describe(self, store: TokenStore) -> dict[str, Any]:
        positions = store.targets["start_positions"]
        in_window = (positions != store.features["cls"]) & (positions != IGNORED)
        questions, answered = len(np.unique(store.rows)), len(np.unique(store.rows[in_window]))
        lost = len(np.unique(store.rows[positions == IGNORED]))
        return {
            "questions with an answer": answered,
            "questions without": questions - answered - lost,
            "questions whose answer no window holds": lost,
            "windows with the answer": int(in_window.sum()),
            "windows without": int((~in_window).sum()),
        }

    def unanswerable(self, store: TokenStore) -> Sequence[int]:
        start, end = store.targets["start_positions"], store.targets["end_positions"]
        has_answer = (start != store.features["cls"]) & (start != IGNORED)
        fits = has_answer & (end - start < self.max_answer_length)
        answered = np.union1d(store.rows[has_answer], store.rows[start == IGNORED])
        return np.setdiff1d(answered, store.rows[fits]).tolist()

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        store = windows(
            rows.values["question"],
            rows.values["context"],
            tokenizer,
            max_length,
            self.doc_stride,
            where,
            lambda row: f"id {rows.ids[row]}",
        )
        if "answers" not in rows.values:
            return store
        placed = [[answer for answer in answers if answer.start != NOWHERE] for answers in rows.values["answers"]]
        # Train on the first of several correct answers, as the transformers tutorials do.
        spans = [_span(answers[0]) if answers else None for answers in placed]
        known = [bool(usable) or not answers for usable, answers in zip(placed, rows.values["answers"], strict=True)]
        return replace(store, targets=answer_positions(store, spans, known))

    def encoding(self) -> str:
        return repr(self.doc_stride)

    def weight(self, targets: Mapping[str, Any]) -> float:
        return float((targets["start_positions"] != IGNORED).sum())

    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> torch.Tensor:
        """The mean of the losses of start and end, as in transformers, but with padding masked out of the softmax."""
        from torch.nn.functional import cross_entropy

        padding = batch.inputs["attention_mask"] == 0

        def loss_of(end: str) -> torch.Tensor:
            logits = outputs[f"{end}_logits"].float().masked_fill(padding, float("-inf"))
            return cross_entropy(logits, batch.targets[f"{end}_positions"], reduction="sum", ignore_index=IGNORED)

        return (loss_of("start") + loss_of("end")) / 2

    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, 1 + 3n]: the score of no answer, then scores, starts and ends (in tokens) of the best spans."""
        import torch

        from fasttune.tasks.spans import best_spans

        start_logits, end_logits = outputs["start_logits"].float(), outputs["end_logits"].float()
        places = torch.arange(start_logits.shape[1], device=start_logits.device)
        first, last = batch.features["context"].T
        allowed = (places >= first[:, None]) & (places < last[:, None])
        spans = best_spans(start_logits, end_logits, allowed, self.max_answer_length, self.n_best_size)
        cls = batch.features["cls"][:, None]
        none = start_logits.gather(1, cls) + end_logits.gather(1, cls)
        return torch.cat([none, spans.scores, spans.starts.float(), spans.ends.float()], dim=1)

    def candidates(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[tuple[list[Candidate], float]]:
        """For each row, the best spans of all windows, best first, and the score of no answer."""
        none, scores, starts, ends = np.split(results, [1, *(1 + part * self.n_best_size for part in (1, 2))], axis=1)
        starts, ends = (store.starts[:-1, None] + positions.astype(np.int64) for positions in (starts, ends))
        offsets = store.token_features["offsets"]
        bounds = np.searchsorted(store.rows, np.arange(len(rows) + 1))
        for row, context in enumerate(rows.values["context"]):
            of_row = slice(bounds[row], bounds[row + 1])
            order = np.argsort(-scores[of_row], axis=None, kind="stable")
            found: dict[tuple[int, int], Candidate] = {}
            for position in order[np.isfinite(scores[of_row].flat[order])]:
                start = int(offsets[starts[of_row].flat[position], 0])
                end = int(offsets[ends[of_row].flat[position], 1])
                # In some tokenizers a word includes the space before it.
                text = context[start:end]
                start += len(text) - len(text.lstrip())
                text = text.strip()
                # Windows overlap, so the same span may come from two of them.
                if text and (start, start + len(text)) not in found:
                    score = float(scores[of_row].flat[position])
                    found[start, start + len(text)] = Candidate(text, start, start + len(text), score)
                if len(found) == self.n_best_size:
                    break
            yield list(found.values()), float(none[of_row].min())

    def answers(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[str]:
        """The predicted answer of each row; "" if the model gives none."""
        for found, none in self.candidates(results, store, rows):
            yield found[0].answer if found and not self._gives_no_answer(found, none) else ""

    def _gives_no_answer(self, found: Sequence[Candidate], none: float) -> bool:
        return self.threshold is not None and none - found[0].score > self.threshold

    def calibrated(self, results: np.ndarray, store: TokenStore, rows: Rows) -> QuestionAnswering:
        if not self.tunes:
            return self
        differences, f1, has_answer = [], [], []
        for (found, none), gold in zip(self.candidates(results, store, rows), rows.values["answers"], strict=True):
            if found:  # without a span there is no answer at any threshold
                differences.append(none - found[0].score)
                f1.append(squad.f1(found[0].answer, [answer.text for answer in gold]))
                has_answer.append(bool(gold))
        if not differences:
            return self
        return replace(self, threshold=squad.best_threshold(np.array(differences), np.array(f1), np.array(has_answer)))

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        """Scores are a softmax over the best spans and, if the model may give no answer, "no answer"."""
        for row_id, (found, none) in zip(rows.ids, self.candidates(results, store, rows), strict=True):
            scores = np.array([candidate.score for candidate in found] + ([none] if self.threshold is not None else []))
            exponentials = np.exp(scores - scores.max()) if len(scores) else scores
            probabilities = exponentials / exponentials.sum()
            no_answer = float(probabilities[-1]) if self.threshold is not None else 0.0
            n_best = [
                {"answer": text, "start": start, "end": end, "score": float(probability)}
                for (text, start, end, _), probability in zip(found, probabilities, strict=False)
            ]
            best: dict[str, Any] = {"answer": "", "start": None, "end": None, "score": no_answer}
            if found and not self._gives_no_answer(found, none):
                best = n_best[0]
            yield {"id": row_id, **best, "no_answer_probability": no_answer, "n_best": n_best}

    def files(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, Any]:
        """The files of transformers' scripts: answers for the official scorer, the n best, and score differences."""
        answers: dict[str, str] = {}
        n_best: dict[str, list[dict[str, Any]]] = {}
        for prediction in self.decode(results, store, rows):
            answers[prediction["id"]] = prediction["answer"]
            n_best[prediction["id"]] = [
                {"text": candidate["answer"], "probability": candidate["score"]} for candidate in prediction["n_best"]
            ]
        content: dict[str, Any] = {"predictions": answers, "nbest_predictions": n_best}
        if self.threshold is not None:
            content["null_odds"] = {
                row_id: none - best[0].score if best else SURELY_NONE
                for row_id, (best, none) in zip(rows.ids, self.candidates(results, store, rows), strict=True)
            }
        return content

    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        gold = [[answer.text for answer in answers] for answers in rows.values["answers"]]
        return squad.score(list(self.answers(results, store, rows)), gold, self.metrics)

    def row_sums(self, results: np.ndarray, store: TokenStore, rows: Rows) -> RowSums:
        answers, gold = list(self.answers(results, store, rows)), rows.values["answers"]
        texts = [[answer.text for answer in answers] for answers in gold]
        exact, f1 = (
            np.array([score(answer, correct) for answer, correct in zip(answers, texts, strict=True)])
            for score in (squad.exact_match, squad.f1)
        )
        has_answer = np.array([len(correct) > 0 for correct in texts])
        of_rows = sums.of_answers(
            exact, f1, has_answer, self.metrics, numbered(rows.values.get(GROUP, rows.values["context"]))
        )
        content = zip(rows.values["question"], rows.values["context"], texts, strict=True)
        return replace(of_rows, keys=keys_of(content, len(rows)))


def _check_flags(source: Source, answers: Sequence[Sequence[Answer]], where: str) -> None:
    """DataError for rows whose column is_impossible, if there is one, contradicts their answers."""
    name = next((name for name in source.dataset.column_names if name.strip().lower() == "is_impossible"), None)
    if name is None:
        return
    problems = Problems(where)
    by_flag: dict[bool, list[str]] = {True: [], False: []}
    for row, (cell, given) in enumerate(zip(cells_of(source.dataset, name), answers, strict=True)):
        try:
            impossible = flag_of(cell)
        except ValueError:
            return  # another column that happens to have this name
        if impossible is not None and impossible == bool(given):
            by_flag[impossible].append(source.place(row))
    for impossible, places in by_flag.items():
        if places:
            answer, flag = ("an answer", "true") if impossible else ("no answer", "false")
            found = f"{counted(len(places), 'question')} with is_impossible: {flag} and {answer} ({some_of(places)})"
            hint = "leave the answer empty, or set is_impossible: false" if impossible else "set is_impossible: true"
            problems.add(Problem(code="E247", where=where, found=found, hint=hint))
    problems.raise_if_any()


def _span(answer: Answer) -> tuple[int, int]:
    """The characters of the answer, without surrounding blanks, which belong to no token."""
    text = answer.text
    start = answer.start + len(text) - len(text.lstrip())
    return start, start + len(text.strip())
