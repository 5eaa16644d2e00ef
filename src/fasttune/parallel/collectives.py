"""Operations of all ranks together: broadcast, raise the same error everywhere, reduce to the maximum.

In a single process, every function returns its input.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fasttune.errors import EnvironmentProblem, Error, Problem, as_json, from_json
from fasttune.parallel.rendezvous import current_store, host_group, process_group

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")


def is_main() -> bool:
    """Whether this is rank 0, which writes files, prints and decides for all ranks."""
    store = current_store()
    return store.rank == 0 if store is not None else os.environ.get("RANK", "0") == "0"


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on all ranks. The value must be JSON."""
    store = current_store()
    if store is None:
        return value
    return store.exchange(value if store.rank == 0 else None)[0]


def broadcast_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rank 0's tensors on all ranks, on the CPU. The other ranks' argument is ignored."""
    group = process_group()
    if group is None:
        return tensors
    import torch

    sizes = {name: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for name, tensor in tensors.items()}
    received = {}
    for name, (dtype, *shape) in broadcast_object(sizes).items():
        tensor = tensors[name] if is_main() else torch.empty(shape, dtype=getattr(torch, dtype))
        on_device = tensor.to(group.device)
        torch.distributed.broadcast(on_device, src=0)
        received[name] = tensor if is_main() else on_device.cpu()
    return received


def raise_on_all_ranks(work: Callable[[], Value], local_rank_first: bool = False) -> Value:
    """Call `work` on every rank and return its result; if it fails on one rank, all ranks raise.

    A fasttune Error is raised on every rank; any other exception is raised on its own rank, and an EnvironmentProblem
    on the others. `local_rank_first`: local rank 0 of each machine runs first, so the others find what it downloaded or
    computed.
    """
    store = current_store()
    if store is None:
        return work()
    results: list[Value] = []
    error: Exception | None = None
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    for turn in (True, False) if local_rank_first else (is_first,):
        if turn == is_first:
            try:
                results.append(work())
            except Exception as raised:
                error = raised
        messages = store.exchange(None if error is None else [platform.node(), _as_message(error)])
        if error is not None and not isinstance(error, Error):
            raise error  # on its own rank, with its traceback
        if any(messages):
            raise _first_error(messages)
    return results[0]


def _as_message(error: Exception) -> dict[str, Any]:
    if isinstance(error, Error):
        return as_json(error)
    found = f"failed with {type(error).__name__}: {error}"
    return as_json(EnvironmentProblem(Problem(where="a step before training", found=found, hint="check its output")))


def _first_error(messages: list[Any]) -> Error:
    """The error of the lowest rank that has one; ranks other than 0 are named."""
    rank, (host, content) = next((rank, message) for rank, message in enumerate(messages) if message is not None)
    if rank > 0:  # rank 0 reports the error but did not raise it
        source = f"process {rank} on {host}"
        content["problems"] = [{**problem, "where": f"{source}: {problem['where']}"} for problem in content["problems"]]
    error = from_json(content)
    error.reported_by_main = not is_main()
    return error


def assert_equal_on_all_ranks(facts: Mapping[str, str], hint: str) -> None:
    """EnvironmentProblem on all ranks unless `facts` are equal on all of them."""
    store = current_store()
    if store is not None:
        store.compare(facts, hint)


def all_gather_numbers(*values: float) -> list[list[float]]:
    """The numbers of each rank, by rank, for use during training. Every rank must call it with as many.

    They go from host to host, so nobody waits for a device.
    """
    group = host_group()
    if group is None:
        return [[float(value) for value in values]]
    import torch

    own = torch.tensor(values, dtype=torch.float64)
    gathered = [torch.empty_like(own) for _ in range(group.size())]
    torch.distributed.all_gather(gathered, own, group)
    return [row.tolist() for row in gathered]


def all_reduce_max(*values: int) -> Sequence[int]:
    """The maximum of each number over all ranks, for use during training. Every rank must call it."""
    return [int(max(column)) for column in zip(*all_gather_numbers(*values), strict=True)]


def barrier() -> None:
    broadcast_object(None)
