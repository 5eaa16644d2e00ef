"""Atomic checkpoints: staged, hashed and renamed on write, verified before anything is read.

This package knows tensors, numbers and files, but nothing about training. There is no pickle: tensors are safetensors,
everything else is JSON.
"""

from fasttune.runs.checkpoint.background import Saved, Writer
from fasttune.runs.checkpoint.find import Checkpoint, newest_good, open_checkpoint
from fasttune.runs.checkpoint.retention import prune
from fasttune.runs.checkpoint.write import write

__all__ = [
    "Checkpoint",
    "Saved",
    "Writer",
    "newest_good",
    "open_checkpoint",
    "prune",
    "write",
]
