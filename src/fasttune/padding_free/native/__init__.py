"""C kernels, compiled on the machine that runs them. Without them, torch's operations compute the same."""

from fasttune.padding_free.native.build import BuildResult, find
from fasttune.padding_free.native.library import HEAD_WIDTHS, Library, Settings, draw_seed

__all__ = ["HEAD_WIDTHS", "BuildResult", "Library", "Settings", "draw_seed", "find"]
