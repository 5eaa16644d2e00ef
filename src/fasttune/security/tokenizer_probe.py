"""Tokenize a few texts within limits of time and memory; `model_folder.tokenizer_fault` runs this as a process.

    python tokenizer_probe.py < tokenizer.json

Prints the maximum number of characters or tokens per input character. A tokenizer.json that the library refuses is not
checked here: loading it reports the error.
"""

from __future__ import annotations

import sys
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows: the caller's timeout is the only limit
    resource = None  # type: ignore[assignment]

SECONDS, BYTES = 20, 4 << 30
# Words, digits and symbols; then texts on which regular expressions backtrack, and that normalizers lengthen.
TEXTS = (
    "The café's 2nd menu, e.g. fish & chips (£9.50)!",
    "a" * 2_000,
    "a " * 1_000,
    " " * 2_000,
    "1" * 2_000,
    "ﷺ中é\n" * 300,
)


def main() -> None:
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with suppress(ValueError):  # the limit is already lower
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(sys.stdin.buffer.read())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    growth = 0.0
    for text in TEXTS:
        normalized = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer is not None else text
        growth = max(growth, len(normalized) / len(text), len(tokenizer.encode(text).ids) / len(text))
    print(growth)


if __name__ == "__main__":
    main()
