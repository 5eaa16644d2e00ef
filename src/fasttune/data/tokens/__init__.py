"""Rows as tokens: stores that are kept and mapped into memory, windows, words."""
