"""Checkpoints that are either whole or not there: staged, hashed, renamed; verified before anything is read.

This room knows tensors, numbers and files, nothing of training. No pickle: tensors are safetensors, the rest is JSON.
"""

from fasttune.runs.checkpoint.background import Saved, Writer
from fasttune.runs.checkpoint.resume import Checkpoint, newest_good, open_checkpoint
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
