"""Split questions with their contexts into overlapping windows, and find the answers in them.

Letters: N windows, T tokens in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fasttune.data.problems import counted, row_name, some_of
from fasttune.data.tokens.store import IGNORED, TokenStore, flat
from fasttune.errors import DataError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_AT_ONCE = 50  # bounds the memory of the tokenizer's results

Span = tuple[int, int]  # characters [start, stop) of the context


def windows(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    doc_stride: int,
    where: str,
    place: Callable[[int], str] = row_name,
) -> TokenStore:
    """Return one example per window: the whole question, and as much of the context as fits.

    Neighbouring windows share `doc_stride` tokens of the context. If the tokenizer pads on the left, the context comes
    first. Features: `context` (N, 2), its first token and the one after its last; `cls` (N,), the position that means
    "no answer". Token feature: `offsets` (T, 2), the token's characters in the context, (0, 0) for other tokens.
    """
    check_room(questions, tokenizer, max_length, doc_stride, where, place)
    question_first = tokenizer.padding_side == "right"
    has_types = "token_type_ids" in tokenizer.model_input_names
    parts: dict[str, list[np.ndarray]] = {"input_ids": [], "token_type_ids": [], "offsets": []}
    lengths, rows, spans, cls = [], [], [], []
    for first in range(0, len(questions), ROWS_AT_ONCE):
        chosen = slice(first, first + ROWS_AT_ONCE)
        # Some datasets have a long run of spaces before a question, which could fill the window.
        texts = ([question.lstrip() for question in questions[chosen]], list(contexts[chosen]))
        batch = tokenizer(
            *(texts if question_first else texts[::-1]),
            truncation="only_second" if question_first else "only_first",
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=False,
        )
        rows += [first + row for row in batch["overflow_to_sample_mapping"]]
        parts["input_ids"].append(flat(batch.encodings, "ids", np.int32))
        parts["token_type_ids"].append(flat(batch.encodings, "type_ids", np.int8))
        parts["offsets"].append(flat(batch.encodings, "offsets", np.int32))
        begin = 0
        for encoding in batch.encodings:
            ids, sides = encoding.ids, encoding.sequence_ids
            num_tokens = sides.count(int(question_first))  # 0 if the context yields no tokens
            first_token = sides.index(int(question_first)) if num_tokens else 0
            spans.append((first_token, first_token + num_tokens))
            cls.append(ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0)
            lengths.append(len(ids))
            window_offsets = parts["offsets"][-1][begin : begin + len(ids)]
            window_offsets[:first_token] = 0
            window_offsets[first_token + num_tokens :] = 0
            begin += len(ids)
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    offsets = whole.pop("offsets")
    if not has_types:
        del whole["token_type_ids"]
    return TokenStore(
        whole,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.array(rows, dtype=np.int64),
        num_tokens_cut=np.zeros(len(lengths), dtype=np.int64),
        features={"context": np.array(spans, dtype=np.int64), "cls": np.array(cls, dtype=np.int64)},
        token_features={"offsets": offsets},
    )


def check_room(
    questions: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    doc_stride: int,
    where: str,
    place: Callable[[int], str],
) -> None:
    """Raise DataError if a question leaves at most `doc_stride` tokens for the context, as windows could not advance.

    The tokenizer itself would panic or never return.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - special - doc_stride - 1
    too_long, longest = [], 0
    for first in range(0, len(questions), ROWS_AT_ONCE):
        chosen = [question.lstrip() for question in questions[first : first + ROWS_AT_ONCE]]
        encoded = tokenizer(chosen, add_special_tokens=False, verbose=False)
        for row, ids in enumerate(encoded["input_ids"], start=first):
            longest = max(longest, len(ids))
            if len(ids) > room:
                too_long.append(row)
    if not too_long:
        return
    stride = max_length - special - longest - 1
    hint = f"preprocessing.doc_stride={stride}" if stride >= 0 else "shorter questions, or a larger max_length"
    names = some_of([place(row) for row in too_long])
    questions_leave = f"{counted(len(too_long), 'question')} of up to {longest} tokens ({names}) leave"
    if len(too_long) == 1:
        questions_leave = f"the question of {longest} tokens ({names}) leaves"
    limit = f"questions may have at most {room} tokens" if room > 0 else "no question fits"
    raise DataError(
        Problem(
            code="E257",
            where=where,
            found=f"{questions_leave} too little room for the context: {limit} (preprocessing.max_length {max_length}, "
            f"minus {special} special tokens, minus preprocessing.doc_stride {doc_stride}, minus 1 to advance)",
            hint=hint,
        )
    )


def answer_positions(store: TokenStore, spans: Sequence[Span | None], known: Sequence[bool]) -> dict[str, np.ndarray]:
    """Return `start_positions` and `end_positions` (N,) int64: the first and last token of the answer in each window.

    `spans`: per row, None if it has no answer. A window that does not contain the whole answer points to its `cls`.
    IGNORED for rows whose answer is not `known` or lies in no window.
    """
    cls, offsets = store.features["cls"], store.token_features["offsets"]
    positions = np.stack([cls, cls], axis=1)
    rows = store.rows
    is_found = np.zeros(len(spans), dtype=bool)  # whether some window shows the answer of the row
    for window, row in enumerate(rows):
        span = spans[row]
        if span is None:
            is_found[row] = known[row]
            continue
        begin, end = store.features["context"][window]
        characters = offsets[store.starts[window] + begin : store.starts[window] + end]
        # At the ends of a context an answer may reach beyond the tokens, into characters that have no token.
        starts_before = window > 0 and rows[window - 1] == row and len(characters) and span[0] < characters[0, 0]
        ends_behind = (
            window + 1 < len(rows) and rows[window + 1] == row and len(characters) and span[1] > characters[-1, 1]
        )
        first = int(np.searchsorted(characters[:, 1], span[0], side="right"))
        last = int(np.searchsorted(characters[:, 0], span[1], side="left")) - 1
        if first <= last and not starts_before and not ends_behind:
            positions[window] = begin + first, begin + last
            is_found[row] = True
    positions[~is_found[rows]] = IGNORED
    return {"start_positions": positions[:, 0].copy(), "end_positions": positions[:, 1].copy()}
