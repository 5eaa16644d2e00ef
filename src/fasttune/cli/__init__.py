"""What a person types and reads: commands, tables, `doctor`. No logic."""

from fasttune.cli.commands import app, run

__all__ = ["app", "run"]
