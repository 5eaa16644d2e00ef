"""Kernels in C, compiled on the machine that runs them; where that cannot be, torch's own operations do the same."""

from fasttune.padding_free.native.build import Found, find
from fasttune.padding_free.native.library import HEAD_WIDTHS, Library, Settings, draw_seed

__all__ = ["Found", "HEAD_WIDTHS", "Library", "Settings", "draw_seed", "find"]
