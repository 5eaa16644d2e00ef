"""How many tokens one forward and backward may hold."""

from __future__ import annotations

from fasttune.engine.precision import Choice

# CPU: measured, tokens/s are flat from 2,048 to 8,192; smaller starves the matrix products, larger only costs memory.
# GPU: 16,384 tokens of a BERT-base in bf16 hold about 10 GB of activations (from layer sizes; not measured).
TOKENS_PER_MICROBATCH = {"cpu": 4096, "cuda": 16384, "mps": 4096}


def choose_tokens_per_microbatch(asked: int | str, device: str) -> Choice:
    if asked != "auto":
        return Choice(str(asked), "asked for")
    return Choice(str(TOKENS_PER_MICROBATCH[device]), f"a good size for {device}")
