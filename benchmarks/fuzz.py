"""Feed damaged and hostile files to each reader: does anything but a clear error come out, and in time?

    python benchmarks/fuzz.py [--seconds 180] [--target csv ...] [--state fuzz.json]

Good files are changed at random (bytes, lines, tokens that matter to a format, parts of other files) and then read. An
error of fasttune's is correct. Any other exception, a read of more than 10 seconds, or one that exceeds the memory
limit is a finding, and its input is kept beside the state file. A campaign resumes at the number where the state file
stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import fasttune
from fasttune import recipe as recipes
from fasttune.data.pipeline import read_splits
from fasttune.data.sources import load_source
from fasttune.runs.checkpoint.verify import fault
from fasttune.tasks import TASKS
from fasttune.training.model import load_config

LIMIT = 10  # seconds per file
MEMORY = 6 << 30
TOKENS = (
    *(b'"', b"'", b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\\", b"{", b"}", b"[", b"]", b":", b"- ", b"&a ", b"*a"),
    *(b"!!python/object:os.system ", b"null", b"NaN", b"1e999", b"-1", b"99999999999999999999", b"\xff", b"\\ud800"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"text", b"label", b"answers", b"../", b"\x1b]0;x\x07", "\u202e".encode()),
    *(b"[" * 2000, b'{"a":' * 500, b"x" * 100_000),
)
ROWS = [
    {"id": str(n), "text": f"good food {n}, 'very' \"good\"", "label": ["a", "b"][n % 2], "n": n} for n in range(30)
]
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "Ann lives in Paris.",
                    "qas": [{"id": "1", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 13}]}],
                }
            ]
        }
    ]
}


def delimited(mark: str) -> bytes:
    lines = [
        mark.join(ROWS[0]),
        *(mark.join(f'"{str(cell).replace(chr(34), chr(34) * 2)}"' for cell in row.values()) for row in ROWS),
    ]
    return "\n".join(lines).encode()


def table(kind: str) -> bytes:
    sink = io.BytesIO()
    made = pa.Table.from_pylist([{**row, "labels": [row["label"]]} for row in ROWS])
    if kind == "parquet":
        pq.write_table(made, sink)
    else:
        with pa.ipc.new_file(sink, made.schema) as writer:
            writer.write_table(made)
    return sink.getvalue()


def read(suffix: str) -> Callable[[Path, bytes], Any]:
    def target(folder: Path, content: bytes) -> None:
        path = folder / f"rows{suffix}"
        path.write_bytes(content)
        load_source(str(path))
        read_splits(recipes.load({"data": {"train": str(path), "max_bytes": 1 << 26}}), TASKS)

    return target


def read_recipe(folder: Path, content: bytes) -> None:
    (folder / "recipe.yaml").write_bytes(content)
    recipes.load(str(folder / "recipe.yaml"))


def read_manifest(folder: Path, content: bytes) -> None:
    checkpoint = folder / "checkpoint-3"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "manifest.json").write_bytes(content)
    fault(checkpoint, None)


def read_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    load_config(str(folder))


MANIFEST = {"format": 1, "step": 3, "run_id": "x", "files": {"trainer_state.json": {"size": 3, "sha256": "0"}}}
CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 79,
    "id2label": {"0": "a"},
}
TARGETS: dict[str, tuple[Callable[[Path, bytes], Any], bytes]] = {
    "csv": (read(".csv"), delimited(",")),
    "tsv": (read(".tsv"), delimited("\t")),
    "txt": (read(".txt"), b"\n".join(row["text"].encode() for row in ROWS)),
    "jsonl": (read(".jsonl"), "\n".join(map(json.dumps, ROWS)).encode()),
    "json": (read(".json"), json.dumps(SQUAD).encode()),
    "parquet": (read(".parquet"), table("parquet")),
    "arrow": (read(".arrow"), table("arrow")),
    "recipe": (read_recipe, recipes.shipped_text("yelp").encode()),
    "manifest": (read_manifest, json.dumps(MANIFEST).encode()),
    "config": (read_config, json.dumps(CONFIG).encode()),
}


def changed(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(made) + 1)
        to = min(len(made), at + draw.choice((0, 1, 4, 50)))
        kind = draw.randrange(6)
        if kind == 0 and made:
            made[min(at, len(made) - 1)] = draw.randrange(256)
        elif kind == 1:
            made[at:to] = draw.choice(TOKENS)
        elif kind == 2:
            del made[at:to]
        elif kind == 3:
            made[at:at] = made[at:to] * draw.choice((1, 10))
        elif kind == 4:
            other = draw.choice(others)
            begin = draw.randrange(len(other))
            made[at:to] = other[begin : begin + draw.choice((4, 40))]
        else:
            made = made[: max(at, 1)]
    return bytes(made)


def too_long(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT} seconds")


def campaign(name: str, seconds: float, state: dict[str, int], kept: Path) -> int:
    """Run one campaign and return how many inputs were read; print findings and keep their inputs."""
    target, good = TARGETS[name]
    others = [content for _, content in TARGETS.values()]
    end, begun, findings = time.monotonic() + seconds, state.get(name, 0), 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            number = state[name] = state.get(name, 0) + 1
            content = changed(good, others, random.Random(f"{name} {number}"))
            signal.alarm(LIMIT)
            try:
                target(Path(folder), content)
            except fasttune.Error:
                pass
            except BaseException as error:
                findings += 1
                kept.mkdir(exist_ok=True)
                (kept / f"{name}-{number}").write_bytes(content)
                frame = traceback.extract_tb(error.__traceback__)[-1]
                print(
                    f"{name} {number}: {type(error).__name__}: {str(error)[:120]} ({frame.filename}:{frame.lineno})",
                    flush=True,
                )
                if isinstance(error, KeyboardInterrupt):
                    raise
            finally:
                signal.alarm(0)
    print(f"{name}: {state[name] - begun:,} files, {findings} findings", flush=True)
    return findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=180, help="for each target")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--state", type=Path, default=Path("fuzz.json"))
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, too_long)
    state = json.loads(asked.state.read_text()) if asked.state.exists() else {}
    found = 0
    for name in asked.target or TARGETS:
        found += campaign(name, asked.seconds, state, asked.state.with_suffix(".findings"))
        asked.state.write_text(json.dumps(state))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
