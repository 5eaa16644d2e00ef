"""The run folder: names of files, checkpoints, the mirror."""
