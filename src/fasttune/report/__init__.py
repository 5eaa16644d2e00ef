"""What is written about a run for people to read."""
