"""How the processes of a launch find each other and exchange messages before and beside training.

Messages go through the launcher's store: a process may take its time, and one that is gone is noticed. Gradients go
through gloo or NCCL.
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

# All processes of a launch come within this, or none trains. Later one may wait for hours for another that tokenises,
# as long as it gives signs of life; what hangs in training is ended by the watchdog, before the group's own time-out.
JOIN_TIMEOUT, WAIT_TIMEOUT, COLLECTIVE_TIMEOUT = timedelta(minutes=10), timedelta(hours=24), timedelta(minutes=30)
# Seconds. Signs of life come from a thread, which waits while a library holds Python's lock: for a sort or a dump of
# millions of rows that may be a minute.
HEARTBEAT, HEARTBEAT_TIMEOUT = 5.0, 300.0
EXIT_GRACE = 2.0  # seconds that process 0 waits at its end: the others look every LONGEST_PAUSE
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25  # seconds between two looks whether another process has spoken
LOOPBACK = ("127.0.0.1", "localhost")
LAUNCH_KEY = "FASTTUNE_LAUNCH_KEY"  # a secret that all processes of a launch have, and nobody else
Value = TypeVar("Value")


@dataclass
class RendezvousStore:
    """The processes that a launcher started, as they reach each other through its store."""

    store: torch.distributed.Store
    rank: int
    num_processes: int
    num_rounds: int = 0

    def start_heartbeat(self) -> None:
        """Give signs of life until this process ends; `exchange` gives up on one that has stopped."""
        import torch

        is_over = Event()

        def work() -> None:
            for beat in itertools.count():
                try:
                    self.store.set(f"alive/{self.rank}", str(beat))
                except torch.distributed.DistError:
                    return  # the store is gone, which whoever waits finds out
                if is_over.wait(HEARTBEAT):
                    return

        thread = Thread(target=work, daemon=True)
        thread.start()

        def leave() -> None:
            """Before Python ends: threads of torch that outlive it may bring down a process that has done its work."""
            is_over.set()
            thread.join(HEARTBEAT)
            # NCCL would wait for one that is gone.
            if torch.distributed.is_initialized() and not _has_lost:
                torch.distributed.destroy_process_group()
            if not _has_lost:
                self._wait_for_exits()

        atexit.register(leave)

    def _wait_for_exits(self) -> None:
        """Process 0 may hold the store: it leaves when all have left, so that none asks a store that is gone."""
        import torch

        begin = time.monotonic()
        try:
            self.store.set(f"left/{self.rank}", "")
            everyone = [f"left/{rank}" for rank in range(self.num_processes)]
            while self.rank == 0 and not self.store.check(everyone) and time.monotonic() < begin + EXIT_GRACE:
                time.sleep(FIRST_PAUSE)
        except torch.distributed.DistError:
            return  # the store went with whoever held it: nobody is left to wait for

    def exchange(self, value: Any, patience: timedelta = WAIT_TIMEOUT) -> list[Any]:
        """What each process gives, by rank; all have to call it. Values are sent as JSON."""
        self.num_rounds += 1
        key = f"{self.num_rounds}/{self.rank}"
        self._call(lambda: self.store.set(key, signed(key, json.dumps(value))))
        return [self._receive(rank, patience) for rank in range(self.num_processes)]

    def _receive(self, rank: int, patience: timedelta) -> Any:
        key, alive, pause = f"{self.num_rounds}/{rank}", f"alive/{rank}", FIRST_PAUSE
        begin, beat = time.monotonic(), b""
        heard = begin
        while not self._call(lambda: self.store.check([key])):
            now = time.monotonic()
            if now > begin + patience.total_seconds():
                raise unreachable(f"no word from process {rank} within {patience.total_seconds():,.0f} s")
            if now > heard + HEARTBEAT and self._call(lambda: self.store.check([alive])):
                newest = self._call(lambda: self.store.get(alive))
                if newest == beat and now > heard + HEARTBEAT_TIMEOUT:
                    raise unreachable(f"no sign of life from process {rank} for {HEARTBEAT_TIMEOUT:,.0f} s")
                heard, beat = (now, newest) if newest != beat else (heard, beat)
            time.sleep(pause)  # where signals are heard, as they are not inside the store
            pause = min(2 * pause, LONGEST_PAUSE)
        message = verified(key, self._call(lambda: self.store.get(key)))
        if message is None:
            raise unreachable(
                f"a message in the name of process {rank} without the signature of this launch's {LAUNCH_KEY}"
            )
        return json.loads(message)

    def compare(self, facts: Mapping[str, str], hint: str, patience: timedelta = WAIT_TIMEOUT) -> None:
        """EnvironmentProblem unless all ranks have the same facts. All have to call it."""
        for rank, (host, theirs) in enumerate(self.exchange([platform.node(), facts], patience)):
            names = [name for name in {**facts, **theirs} if facts.get(name) != theirs.get(name)]
            if names:
                ours, found = (", ".join(f"{name} {of.get(name, 'none')}" for name in names) for of in (facts, theirs))
                raise EnvironmentProblem(
                    Problem(
                        where=f"process {rank} on {host}",
                        found=found,
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
            raise unreachable(f"the launcher's store is gone ({str(error).splitlines()[0]})") from None


def signed(place: str, message: str) -> str:
    """The message behind its HMAC-SHA256 by the launch's key, which holds for this place of this launch alone."""
    return _signature(place, message) + message


def verified(place: str, received: bytes) -> str | None:
    """The message, or None where the signature is not that of the launch's key."""
    text = received.decode(errors="replace")
    length = len(_signature(place, ""))
    signature, message = text[:length], text[length:]
    return message if hmac.compare_digest(signature.encode(), _signature(place, message).encode()) else None


def _signature(place: str, message: str) -> str:
    key = os.environ.get(LAUNCH_KEY, "")
    if not key:
        return ""
    launch = [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")]
    return hmac.new(key.encode(), json.dumps([*launch, place, message]).encode(), "sha256").hexdigest()


_store: RendezvousStore | None = None  # of this process, once it has met the others
_has_lost = False  # another process


def current_store() -> RendezvousStore | None:
    """None where this process is alone."""
    return _store


def has_unsigned_messages() -> bool:
    """Whether the processes are on several machines and no key signs what they send to each other."""
    is_local = os.environ.get("MASTER_ADDR") in LOOPBACK
    return _store is not None and not is_local and not os.environ.get(LAUNCH_KEY)


def unreachable(found: str) -> EnvironmentProblem:
    global _has_lost
    _has_lost = True
    own = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} on {platform.node()}"
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    return EnvironmentProblem(
        Problem(
            where=own,
            found=found,
            expected=f"all processes of the launch, by way of {address}",
            hint="see what the others said; on every machine the launcher needs the same address, a port that is free "
            "and open, the same number of machines, and a rank of its own",
            code="E540",
        )
    )


def rendezvous(facts: Mapping[str, str]) -> None:
    """Where a launcher started several processes: wait for all, and make sure that they belong together.

    `facts`: what has to be the same in all of them, such as versions. EnvironmentProblem where it is not, where one
    does not come, or where they were launched with different numbers of processes.
    """
    global _store
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _store is not None:
        return
    rank, num_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = RendezvousStore(_open_store(rank), rank, num_processes)
    store.start_heartbeat()
    hint = "install the versions in requirements.lock on every machine, and launch the same number of processes"
    store.compare({"processes": str(num_processes), **facts}, hint, JOIN_TIMEOUT)
    _store = store


def _open_store(rank: int) -> torch.distributed.Store:
    """The launcher's, or where it has none the main process's; unlike torch's own it does not wait for all to come."""
    import torch

    is_launchers = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

    answer: SimpleQueue[torch.distributed.Store | Exception] = SimpleQueue()

    def connect() -> None:
        try:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            own = rank == 0 and not is_launchers
            how: dict[str, Any] = {}
            if own and address in LOOPBACK:  # torch's own would listen to the whole network, and asks nobody who he is
                listener = socket.create_server((address, port))
                how = {"master_listen_fd": listener.detach(), "use_libuv": False}
            store = torch.distributed.TCPStore(address, port, None, own, JOIN_TIMEOUT, wait_for_workers=False, **how)
            answer.put(store)
        except Exception as error:
            answer.put(error)

    # In a thread: where something else listens at the port, torch waits for its answer beyond any time-out.
    Thread(target=connect, daemon=True).start()
    try:
        store = answer.get(timeout=JOIN_TIMEOUT.total_seconds() + 1)
    except Empty:
        raise unreachable(f"no answer within {JOIN_TIMEOUT.total_seconds():,.0f} s") from None
    if isinstance(store, Exception):
        raise unreachable((str(store).splitlines() or [type(store).__name__])[0])
    # A launcher that starts its processes again keeps the store, and what was said in it.
    return torch.distributed.PrefixStore(f"fasttune/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def init_process_group(device: str) -> None:
    """Start the group in which the processes that met train; `device` as the recipe has it."""
    if _store is None or process_group() is not None:
        return
    import torch
    from accelerate.state import PartialState

    if device != "cpu" and 0 < torch.cuda.device_count() <= int(os.environ.get("LOCAL_RANK", "0")):
        found, expected = f"{torch.cuda.device_count()} CUDA devices", "one for each process of this machine"
        hint = "as many processes as devices, or training.device=cpu"
        raise EnvironmentProblem(Problem(where=platform.node(), found=found, expected=expected, hint=hint, code="E544"))
    PartialState._reset_state()  # of a time when this process was alone
    with hide_launcher():
        state = PartialState(
            cpu=device == "cpu" or not torch.cuda.is_available(),
            store=torch.distributed.PrefixStore("group", _store.store),
            rank=_store.rank,
            world_size=_store.num_processes,
            timeout=COLLECTIVE_TIMEOUT,
        )
    if state.num_processes != _store.num_processes:  # each would train alone, and none would know
        raise unreachable(f"{state.num_processes} in accelerate's group")


def explain_connection_error(error: RuntimeError) -> EnvironmentProblem | None:
    """What it means when gloo or NCCL fails in training: another process is gone. None for any other error."""
    text = str(error)
    if process_group() is None or not any(word in text for word in ("gloo", "NCCL", "c10d", "Connection")):
        return None
    global _has_lost
    _has_lost = True
    return EnvironmentProblem(
        Problem(
            where=f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} on {platform.node()}",
            found=f"the connection to another process lost ({text.strip().splitlines()[0][:200]})",
            expected="all processes until the end",
            hint="see what ended the other one, then go on from the newest checkpoint: the same command, --resume",
            code="E542",
        )
    )
