"""Several processes with nothing but torch.distributed: DistributedDataParallel round a model without padding.

    torchrun --nproc-per-node 2 examples/plain_ddp.py

The loop of custom_loop.py, with what Accelerate does for one written out: a process group, a sampler that gives each
rank its share, the model wrapped so that gradients are averaged, sums of counts for the scores. Gradients are averaged
over ranks, so the shares must be equal: `drop_last` here, where Accelerate would repeat rows.
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from custom_loop import make_examples, make_model, make_schedule, parse
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler


def train(arguments: argparse.Namespace, **settings) -> tuple[list[float], float]:
    """The loss of each step over all ranks, and the accuracy at the end."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    rows, validation, collate = make_examples(arguments.rows)
    sampler = DistributedSampler(rows, num_ranks, rank, seed=arguments.seed, drop_last=True)
    loader = DataLoader(rows, arguments.batch_size // num_ranks, sampler=sampler, drop_last=True, collate_fn=collate)
    # The same seed in all: DDP sends the weights of rank 0 round as well.
    model = DistributedDataParallel(make_model(arguments, **settings).to(device), [device] if on_gpu else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
    schedule = make_schedule(optimizer, arguments.epochs * len(loader))
    losses = []
    for epoch in range(arguments.epochs):
        sampler.set_epoch(epoch)  # or every epoch has the order of the first
        model.train()
        for batch in loader:
            loss = model(**batch.to(device)).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            mean = loss.detach() / num_ranks
            dist.all_reduce(mean)
            losses.append(mean.item())
    model.eval()
    counts = torch.zeros(2, device=device)  # right, all
    with torch.no_grad():
        for batch in DataLoader(validation[rank::num_ranks], arguments.batch_size, collate_fn=collate):
            # Not the wrapped model: ranks may have unequal numbers of batches here.
            predicted = model.module(**batch.to(device)).logits.argmax(-1)
            counts += torch.tensor([(predicted == batch["labels"]).sum(), len(predicted)], device=device)
    dist.all_reduce(counts)
    return losses, (counts[0] / counts[1]).item()


def main() -> None:
    arguments = parse()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        losses, accuracy = train(arguments)
        if dist.get_rank() == 0:
            print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, accuracy {accuracy:.3f}")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
