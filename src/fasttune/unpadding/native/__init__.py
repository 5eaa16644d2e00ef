"""C kernels, compiled on the machine that runs them. Without them, torch's operations compute the same."""

from fasttune.unpadding.native.build import BuildResult, find
from fasttune.unpadding.native.library import HEAD_WIDTHS, Library, Settings, draw_seed

__all__ = ["HEAD_WIDTHS", "BuildResult", "Library", "Settings", "draw_seed", "find"]
