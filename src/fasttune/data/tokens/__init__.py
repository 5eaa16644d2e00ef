"""Tokenised rows: cached, memory-mapped stores, windows and words."""
