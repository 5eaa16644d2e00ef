"""Which examples each step computes (`plan`), and their tensors (`collate`, `prefetch`, `stream`)."""
