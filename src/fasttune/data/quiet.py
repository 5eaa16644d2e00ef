"""transformers without its loading bars and advice: what matters of them, fasttune says itself, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it transformers logs errors only and shows no progress bars; afterwards its settings are as before."""
    from transformers.utils import logging as log

    verbosity, had_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if had_bars:
            log.enable_progress_bar()
