"""What is computed when (`plan`), and as which tensors (`collate`)."""
