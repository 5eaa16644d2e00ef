"""Checkpoints that are either whole or not there: staged, hashed, renamed; verified before anything is read.

This room knows tensors, numbers and files, nothing of training. No pickle: tensors are safetensors, the rest is JSON.
"""

from fasttune.checkpoint.background import Saved, Writer
from fasttune.checkpoint.resume import Checkpoint, in_all_processes, newest_good, open_checkpoint
from fasttune.checkpoint.retention import prune
from fasttune.checkpoint.write import write

__all__ = [
    "Checkpoint",
    "Saved",
    "Writer",
    "in_all_processes",
    "newest_good",
    "open_checkpoint",
    "prune",
    "write",
]
