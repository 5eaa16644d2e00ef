"""Build a dataset from a definition file, and write it as Parquet with a dataset card."""

from fasttune.data.builder.making import Built, build

__all__ = ["Built", "build"]
