"""Estimate what devices lose to communication. This is a model, not a measurement: every number is an assumption,
listed in docs/scaling.md.

    python benchmarks/communication.py

A step of `batch_size` examples is divided among N devices; each computes 1/N of it. DDP sums the gradients in a ring:
every device sends and receives 2 (N - 1) / N times 4 bytes per trained weight. Buckets of 25 MB are sent during the
backward pass, two thirds of the time of a step; the last bucket cannot be hidden. Each of the 2 (N - 1) rounds of a
bucket adds a latency. FSDP2 sends half as much again: weights for forward and backward, gradients once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BUCKET = 25e6  # bytes; torch's default
BYTES = 4  # per gradient, in fp32
BACKWARD = 2 / 3  # share of the time of a step
OTHER = 3e-4  # seconds per step: sums of counts and losses, agreement on memory and stops


@dataclass(frozen=True)
class Links:
    name: str
    bytes_per_second: float  # one way, of one device
    latency: float  # seconds


@dataclass(frozen=True)
class Job:
    name: str
    num_weights: float  # trained
    flops_per_token: float  # forward and backward
    tokens_per_step: float


LINKS = (
    Links("NVLink, one machine of 8", 300e9, 5e-6),
    Links("InfiniBand 400 Gbit/s for each device", 40e9, 1e-5),
    Links("Ethernet 25 Gbit/s for 8 devices", 0.35e9, 5e-5),
)
JOBS = (
    Job("BERT-base, 64 examples of 180 tokens", 110e6, 6 * 86e6, 64 * 180),
    Job("BERT-base, 512 examples of 180 tokens", 110e6, 6 * 86e6, 512 * 180),
    Job("BERT-large, 512 examples of 180 tokens", 335e6, 6 * 303e6, 512 * 180),
)
DEVICE_FLOPS, MFU = 989e12, 0.40  # bf16 on an H100 or H200 without sparsity; the share is our target
NUMBERS = (2, 8, 16, 64)


def seconds(job: Job, links: Links, num_devices: int, factor: float = 1.0) -> float:
    """Seconds of one step; `factor` is the amount sent, relative to DDP."""
    computing = job.tokens_per_step * job.flops_per_token / (DEVICE_FLOPS * MFU) / num_devices
    sent = factor * 2 * (num_devices - 1) / num_devices * BYTES * job.num_weights
    num_buckets = max(BYTES * job.num_weights / BUCKET, 1)
    sending = sent / links.bytes_per_second + num_buckets * 2 * (num_devices - 1) * links.latency
    last = sending / num_buckets
    return computing + max(sending - last - BACKWARD * computing, 0.0) + last + OTHER


def share(job: Job, links: Links, num_devices: int, factor: float = 1.0) -> float:
    """The share of N times the speed of one device."""
    alone = job.tokens_per_step * job.flops_per_token / (DEVICE_FLOPS * MFU)
    return alone / num_devices / seconds(job, links, num_devices, factor)


def table(title: str, jobs: tuple[Job, ...], is_for_each: bool) -> list[str]:
    """A table of all links and jobs; with `is_for_each` a job is one device's work in a step, so steps grow with N."""
    lines = [f"| {title} | links | {' | '.join(f'{number} devices' for number in NUMBERS)} |"]
    lines.append("|---|---" + "|---" * len(NUMBERS) + "|")
    for job in jobs:
        for links in LINKS:
            cells = []
            for number in NUMBERS:
                own = replace(job, tokens_per_step=job.tokens_per_step * number) if is_for_each else job
                cells.append(f"{share(own, links, number):.0%} ({share(own, links, number, 1.5):.0%})")
            lines.append(f"| {job.name} | {links.name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    print("\n".join([*table("a step of", JOBS, False), "", *table("for each device", JOBS[:1], True)]))


if __name__ == "__main__":
    main()
