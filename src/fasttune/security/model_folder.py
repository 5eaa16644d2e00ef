"""Check config.json and tokenizer.json before transformers uses them: sizes within limits, no code loaded by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fasttune.security.tokenizer_probe import TEXTS

MAX_BYTES = 64 << 20  # of a tokenizer.json; one with 250,000 pieces has 17 MB
MAX_CONFIG_BYTES = 4 << 20  # enough for an id2label of 100,000 labels
# The largest encoders have 24 to 60 layers, 250,000 pieces and widths of a few thousand.
LIMITS = {
    **dict.fromkeys(("num_labels",), 100_000),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers"), 1_000),
    **dict.fromkeys(("num_attention_heads", "n_heads"), 10_000),
    **dict.fromkeys(("hidden_size", "dim", "d_model", "embedding_size", "intermediate_size", "hidden_dim"), 1_000_000),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "type_vocab_size"), 10_000_000),
}
MAY_BE_ZERO = ("type_vocab_size", "num_labels", "embedding_size")  # DeBERTa has no segments
MAX_PARAMETERS = 20_000_000_000
# transformers treats other values of these settings as hub repositories, from which the package `kernels` loads code.
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
OWN_IMPLEMENTATIONS = (None, "eager", "sdpa")
ADAPTER = "adapter_config.json"  # the package `peft` would load the adapter instead of the requested model
MAX_GROWTH = 16  # characters or tokens that a tokenizer may produce per character
PROBE, PROBE_SECONDS = Path(__file__).with_name("tokenizer_probe.py"), 30.0
_faults: dict[str, str | None] = {}  # by sha256 of a tokenizer.json: what is wrong with it


def config_fault(text: str) -> str | None:
    """What is wrong with a config.json, in words, or None."""
    if len(text) > MAX_CONFIG_BYTES:
        return f"a config.json of {len(text):,} characters"
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"a config.json that is not valid JSON ({type(error).__name__})"
    if not isinstance(config, dict):
        return "a config.json that is not an object"
    for name, limit in LIMITS.items():
        value = config.get(name)
        minimum = 0 if name in MAY_BE_ZERO else 1
        if isinstance(value, int | float) and not isinstance(value, bool) and not minimum <= value <= limit:
            return f"{name} {value:,} in config.json"
    for name in ("id2label", "label2id"):
        if isinstance(config.get(name), Mapping) and len(config[name]) > LIMITS["num_labels"]:
            return f"{len(config[name]):,} labels in config.json"
    return _too_many_parameters(config)


def _too_many_parameters(config: Mapping[str, Any]) -> str | None:
    def first(*names: str) -> float:
        return next((config[name] for name in names if isinstance(config.get(name), int | float)), 0)

    width = first("hidden_size", "dim", "d_model")
    layers = first("num_hidden_layers", "n_layers", "num_layers")
    inner_width = first("intermediate_size", "hidden_dim")
    embeddings = sum(first(name) for name in ("vocab_size", "max_position_embeddings", "type_vocab_size"))
    number = width * embeddings + layers * width * (4 * width + 2 * inner_width)
    return f"about {number:,.0f} parameters according to config.json" if number > MAX_PARAMETERS else None


def foreign_implementation(config: Mapping[str, Any]) -> str | None:
    """The setting of config.json that would fetch or import code, in words, or None."""
    for name in IMPLEMENTATIONS:
        for key in (name, f"_{name}", f"_{name}_internal"):
            value = config.get(key)
            values = value.values() if isinstance(value, Mapping) else (value,)
            if any(implementation not in OWN_IMPLEMENTATIONS for implementation in values):
                return f"{key} {str(value)[:80]!r} in config.json"
    if config.get("quantization_config") is not None:
        return "a quantization_config in config.json"
    return None


def tokenizer_fault(path: Path) -> str | None:
    """What is wrong with a tokenizer.json, in words, or None. It could make texts grow without limit, or hang."""
    if path.stat().st_size > MAX_BYTES:
        return f"a tokenizer.json of {path.stat().st_size:,} bytes"
    content = path.read_bytes()
    digest = sha256(content).hexdigest()
    if digest not in _faults:
        _faults[digest] = _growth_fault(content) or _probe_fault(content)
    return _faults[digest]


def _growth_fault(file: bytes) -> str | None:
    try:
        content = json.loads(file)
    except (ValueError, RecursionError):
        return None  # the tokenizers library reports the error and its position
    growth = 1.0
    for step in _replacements(content.get("normalizer") if isinstance(content, dict) else None):
        pattern = step.get("pattern")
        text = (
            pattern.get("String") if isinstance(pattern, dict) else None
        )  # a regular expression can match the empty text
        growth *= max(1.0, len(str(step.get("content", ""))) / max(len(text or ""), 1))
    return f"a tokenizer that produces {growth:,.0f} characters per character" if growth > MAX_GROWTH else None


def _probe_fault(content: bytes) -> str | None:
    """Tokenize a few texts in a separate process, and report what goes wrong."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(PROBE)], input=content, capture_output=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"a tokenizer that takes more than {PROBE_SECONDS:.0f} s for {len(TEXTS)} texts"
    stderr = done.stderr.decode(errors="replace")
    if done.returncode < 0 or "memory" in stderr.lower() or "PanicException" in stderr:
        return f"a tokenizer that crashes ({(stderr.strip().splitlines() or ['killed'])[-1][:120]})"
    if done.returncode > 0:
        return None  # the tokenizers library refuses the file, and reports why on loading
    growth = float(done.stdout)
    return (
        f"a tokenizer that produces {growth:,.0f} characters or tokens per character" if growth > MAX_GROWTH else None
    )


def _replacements(normalizer: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(normalizer, dict):
        return
    if normalizer.get("type") == "Replace":
        yield normalizer
    for step in normalizer.get("normalizers") or ():
        yield from _replacements(step)
