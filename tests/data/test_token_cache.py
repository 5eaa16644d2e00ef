"""The token cache returns only stores of the same content, and recomputes damaged ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny import make_rows, tiny_tokenizer

from fasttune.data.tokens import cache as token_cache
from fasttune.data.tokens.cache import cached, key_of
from fasttune.data.tokens.store import TokenStore, tokenize

TEXTS = [row["text"] for row in make_rows(30)]
VALUES = {"text": TEXTS, "label": ["a", "b"] * 15}
SETTINGS = {"task": "text", "max_length": 20}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fasttune" / "tokens"


@dataclass
class Maker:
    """Counts how often the tokenizer ran."""

    times: int = 0

    def __call__(self) -> TokenStore:
        self.times += 1
        store = tokenize(TEXTS, tiny_tokenizer(), 20)
        store.targets["labels"] = np.arange(30)
        return store


def assert_equal(found: TokenStore, expected: TokenStore) -> None:
    for name in ("starts", "rows", "num_tokens_cut"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert found.inputs.keys() == expected.inputs.keys()
    assert np.array_equal(found.inputs["input_ids"], expected.inputs["input_ids"])
    assert found.targets.keys() == expected.targets.keys()
    assert np.array_equal(found.targets["labels"], expected.targets["labels"])
    assert found.fingerprint == expected.fingerprint


def test_the_second_time_nothing_is_tokenised() -> None:
    make = Maker()
    first, second = (cached("k" * 40, make) for _ in range(2))
    assert make.times == 1
    assert_equal(second, first)
    for store in (first, second):
        assert isinstance(store.inputs["input_ids"], np.memmap), "mapped, so that processes share it"


def test_everything_that_goes_in_is_in_the_key() -> None:
    tokenizer = tiny_tokenizer()
    keys = [
        key_of(VALUES, tokenizer, SETTINGS),
        key_of({**VALUES, "text": [*TEXTS[:-1], TEXTS[-1] + "!"]}, tokenizer, SETTINGS),
        key_of({**VALUES, "text": TEXTS[::-1]}, tokenizer, SETTINGS),
        key_of({**VALUES, "text": ["ab", "c"]}, tokenizer, SETTINGS),
        key_of({**VALUES, "text": ["a", "bc"]}, tokenizer, SETTINGS),
        key_of({**VALUES, "label": ["b", "a"] * 15}, tokenizer, SETTINGS),
        key_of(VALUES, tokenizer, {**SETTINGS, "max_length": 21}),
        key_of(VALUES, tokenizer, {**SETTINGS, "task": "other"}),
    ]
    tokenizer.truncation_side = "left"
    keys.append(key_of(VALUES, tokenizer, SETTINGS))
    tokenizer.add_tokens(["wonderful"])
    keys.append(key_of(VALUES, tokenizer, SETTINGS))
    assert len(set(keys)) == len(keys)


def test_the_key_is_the_same_before_and_after_use() -> None:
    tokenizer = tiny_tokenizer()
    before = key_of(VALUES, tokenizer, SETTINGS)
    tokenize(TEXTS, tokenizer, 7)
    assert key_of(VALUES, tokenizer, SETTINGS) == before == key_of(VALUES, tiny_tokenizer(), SETTINGS)


@pytest.mark.parametrize("damage", ["flipped", "short", "missing", "no fingerprint", "garbage"])
def test_what_is_damaged_is_made_again(folder: Path, damage: str) -> None:
    make = Maker()
    expected = make()
    cached("k" * 40, make)
    tokens, fingerprint = (next(folder.glob(f"*/{name}")) for name in ("inputs.input_ids.npy", "fingerprint.json"))
    content = tokens.read_bytes()
    if damage == "flipped":
        tokens.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage == "short":
        tokens.write_bytes(content[:-8])
    elif damage == "missing":
        tokens.unlink()
    elif damage == "no fingerprint":
        fingerprint.unlink()
    else:
        fingerprint.write_text("{")
    for _ in range(2):
        assert_equal(cached("k" * 40, make), expected)
    assert make.times == 3, "made for this test, at first, and once again"


def test_without_a_place_to_write_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    make = Maker()
    assert_equal(cached("k" * 40, make), cached("k" * 40, make))
    assert make.times == 2


def test_what_was_used_longest_ago_makes_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    for age, key in enumerate("cba"):
        cached(key * 40, make)
        os.utime(next(folder.glob(f"{key}*/fingerprint.json")), (1000 + age, 1000 + age))
    (folder / "tmpkilled" / "store").mkdir(parents=True)  # of a writer that was killed
    os.utime(folder / "tmpkilled", (900, 900))
    cached("c" * 40, make)  # used again
    size = sum(path.stat().st_size for path in folder.glob("c*/*"))
    monkeypatch.setattr(token_cache, "LARGEST_CACHE", 2 * size)
    cached("d" * 40, make)
    assert {path.name[0] for path in folder.iterdir()} == {"c", "d"}


def test_every_part_of_a_store_is_read_back() -> None:
    number = np.arange(6)
    store = TokenStore(
        {"input_ids": number.astype(np.int32)},
        starts=np.array([0, 6]),
        rows=np.array([0]),
        num_tokens_cut=np.array([2]),
        targets={"labels": np.array([1])},
        token_targets={"tags": number},
        features={"context": np.array([[1, 2]])},
        token_features={"offsets": np.stack([number, number], 1)},
        sequences=np.array([0, 4, 6]),
    )
    cached("a" * 40, lambda: store)
    found = cached("a" * 40, lambda: pytest.fail("it is there"))
    assert found.token_targets["tags"].tolist() == number.tolist() and found.sequences.tolist() == [0, 4, 6]
    assert found.features["context"].tolist() == [[1, 2]] and found.token_features["offsets"].shape == (6, 2)
    assert found.fingerprint == store.fingerprint


def test_one_store_with_windows_and_one_without_are_not_the_same() -> None:
    parts = ({"input_ids": np.arange(6, dtype=np.int32)}, np.array([0, 6]), np.array([0]), np.array([0]))
    assert TokenStore(*parts).fingerprint != TokenStore(*parts, sequences=np.array([0, 4, 6])).fingerprint
