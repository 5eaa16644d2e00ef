"""Training: preparing a run, the loop, checkpoints on the way, results at the end."""
