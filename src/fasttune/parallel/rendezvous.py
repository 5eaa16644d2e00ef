"""How the processes of a launch find each other, and exchange messages before and during training.

Messages go through the launcher's store, with heartbeats: a slow process is waited for, and a dead one is noticed.
Gradients go through gloo or NCCL.
"""

from __future__ import annotations

import atexit
import hmac
import itertools
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from fasttune.errors import EnvironmentProblem, Problem
from fasttune.parallel.launcher import hide_launcher, process_group

if TYPE_CHECKING:
    import torch

JOIN_TIMEOUT = timedelta(minutes=10)  # for all processes of a launch to join
WAIT_TIMEOUT = timedelta(hours=24)  # for a process that is alive and, for example, tokenizes
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # of gloo and NCCL; in training, the watchdog ends a hang earlier
# Seconds. Heartbeats come from a thread, which stalls while a library holds Python's GIL: up to a minute for a sort or
# a dump of millions of rows.
HEARTBEAT, HEARTBEAT_TIMEOUT = 5.0, 300.0
EXIT_GRACE = 2.0  # seconds that process 0 waits for the others at exit; they poll every LONGEST_PAUSE
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25  # seconds between two polls for a message
LOOPBACK = ("127.0.0.1", "localhost")
LAUNCH_KEY = "FASTTUNE_LAUNCH_KEY"  # a secret shared by the processes of a launch only
Value = TypeVar("Value")


@dataclass
class RendezvousStore:
    """The launcher's store, through which the processes it started exchange messages."""

    store: torch.distributed.Store
    rank: int
    num_processes: int
    num_rounds: int = 0

    def start_heartbeat(self) -> None:
        """Send heartbeats until this process ends; `exchange` gives up on a process whose heartbeats stop."""
        import torch

        is_over = Event()

        def work() -> None:
            for beat in itertools.count():
                try:
                    self.store.set(f"alive/{self.rank}", str(beat))
                except torch.distributed.DistError:
                    return  # the store is gone; the next exchange reports it
                if is_over.wait(HEARTBEAT):
                    return

        thread = Thread(target=work, daemon=True)
        thread.start()

        def leave() -> None:
            """Run before Python exits: threads of torch that outlive it can crash a process that has finished."""
            is_over.set()
            thread.join(HEARTBEAT)
            # With a lost process, NCCL would wait forever.
            if torch.distributed.is_initialized() and not _has_lost:
                torch.distributed.destroy_process_group()
            if not _has_lost:
                self._wait_for_exits()

        atexit.register(leave)

    def _wait_for_exits(self) -> None:
        """Process 0 may host the store, so it exits last."""
        import torch

        begin = time.monotonic()
        try:
            self.store.set(f"left/{self.rank}", "")
            everyone = [f"left/{rank}" for rank in range(self.num_processes)]
            while self.rank == 0 and not self.store.check(everyone) and time.monotonic() < begin + EXIT_GRACE:
                time.sleep(FIRST_PAUSE)
        except torch.distributed.DistError:
            return  # the store is gone, and with it the process that hosted it

    def exchange(self, value: Any, patience: timedelta = WAIT_TIMEOUT) -> list[Any]:
        """All-gather JSON values: return the value of each process, by rank. Every process must call it."""
        self.num_rounds += 1
        key = f"{self.num_rounds}/{self.rank}"
        self._call(lambda: self.store.set(key, signed(key, json.dumps(value))))
        return [self._receive(rank, patience) for rank in range(self.num_processes)]

    def _receive(self, rank: int, patience: timedelta) -> Any:
        key = f"{self.num_rounds}/{rank}"
        heartbeat_key = f"alive/{rank}"
        pause = FIRST_PAUSE
        begin = last_change = time.monotonic()
        last_beat = b""
        while not self._call(lambda: self.store.check([key])):
            now = time.monotonic()
            if now > begin + patience.total_seconds():
                raise unreachable(f"rank {rank} did not respond within {patience.total_seconds():,.0f} s")
            if now > last_change + HEARTBEAT and self._call(lambda: self.store.check([heartbeat_key])):
                beat = self._call(lambda: self.store.get(heartbeat_key))
                if beat != last_beat:
                    last_change, last_beat = now, beat
                elif now > last_change + HEARTBEAT_TIMEOUT:
                    raise unreachable(f"no heartbeat from rank {rank} for {HEARTBEAT_TIMEOUT:,.0f} s")
            time.sleep(pause)  # Python handles signals here, but not inside the store
            pause = min(2 * pause, LONGEST_PAUSE)
        message = verified(key, self._call(lambda: self.store.get(key)))
        if message is None:
            raise unreachable(f"a message from rank {rank} is not signed with this launch's {LAUNCH_KEY}")
        return json.loads(message)

    def compare(self, facts: Mapping[str, str], hint: str, patience: timedelta = WAIT_TIMEOUT) -> None:
        """EnvironmentProblem unless all ranks have the same facts. Every process must call it."""
        for rank, (host, their_facts) in enumerate(self.exchange([platform.node(), facts], patience)):
            names = [name for name in {**facts, **their_facts} if facts.get(name) != their_facts.get(name)]
            if names:
                ours = ", ".join(f"{name} {facts.get(name, 'none')}" for name in names)
                theirs = ", ".join(f"{name} {their_facts.get(name, 'none')}" for name in names)
                raise EnvironmentProblem(
                    Problem(
                        where=f"process {rank} on {host}",
                        found=theirs,
                        expected=f"{ours}, as in process {self.rank} on {platform.node()}",
                        hint=hint,
                        code="E541",
                    )
                )

    @staticmethod
    def _call(call: Callable[[], Value]) -> Value:
        import torch

        try:
            return call()
        except torch.distributed.DistError as error:
            raise unreachable(f"lost the connection to the launcher's store ({str(error).splitlines()[0]})") from None


def signed(store_key: str, message: str) -> str:
    """Prefix the message with its HMAC-SHA256, which is valid only for this key of the store in this launch."""
    return _signature(store_key, message) + message


def verified(store_key: str, received: bytes) -> str | None:
    """The message without its signature, or None if the signature is wrong."""
    text = received.decode(errors="replace")
    length = len(_signature(store_key, ""))
    signature, message = text[:length], text[length:]
    return message if hmac.compare_digest(signature.encode(), _signature(store_key, message).encode()) else None


def _signature(store_key: str, message: str) -> str:
    secret = os.environ.get(LAUNCH_KEY, "")
    if not secret:
        return ""
    launch = [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")]
    return hmac.new(secret.encode(), json.dumps([*launch, store_key, message]).encode(), "sha256").hexdigest()


_store: RendezvousStore | None = None  # set once this process has joined the others
_has_lost = False  # whether another process was lost
_host_group: torch.distributed.ProcessGroup | None = None  # of gloo, for numbers that no device needs


def current_store() -> RendezvousStore | None:
    """The store, or None in a single process."""
    return _store


def host_group() -> torch.distributed.ProcessGroup | None:
    """The group for messages between hosts during training, or None in a single process."""
    return _host_group


def has_unsigned_messages() -> bool:
    """Whether the processes run on several machines without a key to sign their messages."""
    is_local = os.environ.get("MASTER_ADDR") in LOOPBACK
    return _store is not None and not is_local and not os.environ.get(LAUNCH_KEY)


def unreachable(reason: str) -> EnvironmentProblem:
    """The error for a process of the launch that cannot be reached."""
    global _has_lost
    _has_lost = True
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    return EnvironmentProblem(
        Problem(
            where=_this_process(),
            found=f"{reason}; the processes connect through {address}",
            hint="check the output of the other processes; on every machine, launch with the same address, a free and "
            "open port, the same number of machines, and a different machine rank",
            code="E540",
        )
    )


def _this_process() -> str:
    return f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} on {platform.node()}"


def rendezvous(facts: Mapping[str, str]) -> None:
    """If a launcher started several processes, wait until all have joined, and check that they match.

    `facts` must be equal in all of them, such as versions. EnvironmentProblem if they differ, if a process does not
    join, or if the processes were launched with different numbers of processes.
    """
    global _store
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _store is not None:
        return
    rank, num_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = RendezvousStore(_open_store(rank), rank, num_processes)
    store.start_heartbeat()
    hint = "install the versions in requirements.lock and launch the same number of processes on every machine"
    store.compare({"processes": str(num_processes), **facts}, hint, JOIN_TIMEOUT)
    _store = store


def _open_store(rank: int) -> torch.distributed.Store:
    """Connect to the launcher's store, or to one that process 0 hosts, without waiting for all processes to join."""
    import torch

    launcher_hosts = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    answer: SimpleQueue[torch.distributed.Store | Exception] = SimpleQueue()

    def connect() -> None:
        try:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            is_host = rank == 0 and not launcher_hosts
            options: dict[str, Any] = {"wait_for_workers": False}
            if is_host and address in LOOPBACK:
                # torch's own listener would accept connections from the whole network, without authentication.
                listener = socket.create_server((address, port))
                options |= {"master_listen_fd": listener.detach(), "use_libuv": False}
            answer.put(torch.distributed.TCPStore(address, port, None, is_host, JOIN_TIMEOUT, **options))
        except Exception as error:
            answer.put(error)

    # In a thread: if another program listens at the port, torch waits for its answer beyond any timeout.
    Thread(target=connect, daemon=True).start()
    try:
        store = answer.get(timeout=JOIN_TIMEOUT.total_seconds() + 1)
    except Empty:
        raise unreachable(f"the store did not respond within {JOIN_TIMEOUT.total_seconds():,.0f} s") from None
    if isinstance(store, Exception):
        raise unreachable((str(store).splitlines() or [type(store).__name__])[0])
    # A launcher that restarts its processes keeps the store with the messages of the earlier attempt.
    return torch.distributed.PrefixStore(f"fasttune/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def init_process_group(device: str) -> None:
    """Start the process group for training. `device`: the recipe's `training.device`."""
    global _host_group
    if _store is None:
        return
    import torch

    if process_group() is None:
        _start_process_group(_store, device)
    if _host_group is None:
        try:
            _host_group = torch.distributed.new_group(timeout=COLLECTIVE_TIMEOUT, backend="gloo")
        except RuntimeError as error:
            raise EnvironmentProblem(
                Problem(
                    where=_this_process(),
                    found=f"gloo cannot connect the machines ({str(error).splitlines()[0][:200]})",
                    hint="on every machine, export GLOO_SOCKET_IFNAME=NAME, the network interface that reaches the "
                    "others (ip -brief address)",
                    code="E540",
                )
            ) from None


def _start_process_group(store: RendezvousStore, device: str) -> None:
    import torch
    from accelerate.state import PartialState

    if device != "cpu" and 0 < torch.cuda.device_count() <= int(os.environ.get("LOCAL_RANK", "0")):
        found, expected = f"{torch.cuda.device_count()} CUDA devices", "one for each process on this machine"
        hint = "launch one process per device, or set training.device=cpu"
        raise EnvironmentProblem(Problem(where=platform.node(), found=found, expected=expected, hint=hint, code="E544"))
    PartialState._reset_state()  # accelerate may have been used before, in a single process
    with hide_launcher():
        state = PartialState(
            cpu=device == "cpu" or not torch.cuda.is_available(),
            store=torch.distributed.PrefixStore("group", store.store),
            rank=store.rank,
            world_size=store.num_processes,
            timeout=COLLECTIVE_TIMEOUT,
        )
    if state.num_processes != store.num_processes:  # otherwise each process would silently train alone
        raise unreachable(f"accelerate's process group has {state.num_processes} processes")


def explain_connection_error(error: RuntimeError) -> EnvironmentProblem | None:
    """The error for a failure of gloo or NCCL, which means that another process is gone; None for any other error."""
    text = str(error)
    if process_group() is None or not any(word in text for word in ("gloo", "NCCL", "c10d", "Connection")):
        return None
    global _has_lost
    _has_lost = True
    return EnvironmentProblem(
        Problem(
            where=_this_process(),
            found=f"lost the connection to another process ({text.strip().splitlines()[0][:200]})",
            hint="check why the other process ended, then rerun the same command with --resume",
            code="E542",
        )
    )
