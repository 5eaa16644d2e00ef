"""Data sets of one's own: defined in a file, made of files or of another definition, written as Parquet with a card."""

from fasttune.data.builder.making import Built, build

__all__ = ["Built", "build"]
