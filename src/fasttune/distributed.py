"""Devices and processes, through accelerate; one process on one device unless a launcher started more.

With one process everything here that concerns several does nothing. What processes say to each other round training
goes through the launcher's store: one may take its time, and one that is gone is noticed. What they add up in training
goes through gloo or NCCL.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from fasttune.errors import EnvironmentProblem, Error, Problem, as_json, from_json

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from accelerate.state import PartialState

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
# All processes of a launch come within this, or none trains. Later one may wait for hours for another that tokenises,
# as long as it gives signs of life; what hangs in training is ended by the watchdog, before the group's own time-out.
MEETING, LONGEST_WAIT, IN_TRAINING = timedelta(minutes=10), timedelta(hours=24), timedelta(minutes=30)
# Seconds. Signs of life come from a thread, which waits while a library holds Python's lock: for a sort or a dump of
# millions of rows that may be a minute.
SIGN_OF_LIFE, SILENCE = 5.0, 300.0
PARTING = 2.0  # seconds that process 0 waits at its end: the others look every LONGEST_PAUSE
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25  # seconds between two looks whether another process has spoken
LOOPBACK = ("127.0.0.1", "localhost")
LAUNCH_KEY = "FASTTUNE_LAUNCH_KEY"  # a secret that all processes of a launch have, and nobody else
LAUNCHERS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # variables that accelerate's launcher sets
Value = TypeVar("Value")


def make_accelerator(device: str, precision: str) -> Accelerator:
    """An accelerator for `device` (cpu | cuda | mps) and `precision` (fp32 | bf16 | fp16).

    accelerate keeps device and precision for the whole process. One Python session may train in bf16 and then predict
    in fp32, so what an earlier call left is dropped first; only a process group, once started, stays.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    AcceleratorState._reset_state(reset_partial_state=_group() is None)
    # Else a launcher's gradient_accumulation_steps would divide losses that a step has divided already.
    whole = GradientAccumulationPlugin(num_steps=1)
    with launcher_hidden():
        return Accelerator(
            cpu=device == "cpu", mixed_precision=MIXED_PRECISION[precision], gradient_accumulation_plugin=whole
        )


@dataclass
class Meeting:
    """The processes that a launcher started, as they reach each other through its store."""

    store: torch.distributed.Store
    rank: int
    num_processes: int
    num_rounds: int = 0

    def begin_to_live(self) -> None:
        """Give signs of life until this process ends; `exchange` gives up on one that has stopped."""
        import torch

        is_over = Event()

        def work() -> None:
            for beat in itertools.count():
                try:
                    self.store.set(f"alive/{self.rank}", str(beat))
                except torch.distributed.DistError:
                    return  # the store is gone, which whoever waits finds out
                if is_over.wait(SIGN_OF_LIFE):
                    return

        thread = Thread(target=work, daemon=True)
        thread.start()

        def leave() -> None:
            """Before Python ends: threads of torch that outlive it may bring down a process that has done its work."""
            is_over.set()
            thread.join(SIGN_OF_LIFE)
            # NCCL would wait for one that is gone.
            if torch.distributed.is_initialized() and not _has_lost:
                torch.distributed.destroy_process_group()
            if not _has_lost:
                self._part()

        atexit.register(leave)

    def _part(self) -> None:
        """Process 0 may hold the store: it leaves when all have left, so that none asks a store that is gone."""
        import torch

        begin = time.monotonic()
        try:
            self.store.set(f"left/{self.rank}", "")
            everyone = [f"left/{rank}" for rank in range(self.num_processes)]
            while self.rank == 0 and not self.store.check(everyone) and time.monotonic() < begin + PARTING:
                time.sleep(FIRST_PAUSE)
        except torch.distributed.DistError:
            return  # the store went with whoever held it: nobody is left to wait for

    def exchange(self, value: Any, patience: timedelta = LONGEST_WAIT) -> list[Any]:
        """What each process gives, by rank; all have to call it. Values are sent as JSON."""
        self.num_rounds += 1
        key = f"{self.num_rounds}/{self.rank}"
        self._ask(lambda: self.store.set(key, signed(key, json.dumps(value))))
        return [self._heard(rank, patience) for rank in range(self.num_processes)]

    def _heard(self, rank: int, patience: timedelta) -> Any:
        key, alive, pause = f"{self.num_rounds}/{rank}", f"alive/{rank}", FIRST_PAUSE
        begin, beat = time.monotonic(), b""
        heard = begin
        while not self._ask(lambda: self.store.check([key])):
            now = time.monotonic()
            if now > begin + patience.total_seconds():
                raise missing(f"no word from process {rank} within {patience.total_seconds():,.0f} s")
            if now > heard + SIGN_OF_LIFE and self._ask(lambda: self.store.check([alive])):
                newest = self._ask(lambda: self.store.get(alive))
                if newest == beat and now > heard + SILENCE:
                    raise missing(f"no sign of life from process {rank} for {SILENCE:,.0f} s")
                heard, beat = (now, newest) if newest != beat else (heard, beat)
            time.sleep(pause)  # where signals are heard, as they are not inside the store
            pause = min(2 * pause, LONGEST_PAUSE)
        message = verified(key, self._ask(lambda: self.store.get(key)))
        if message is None:
            raise missing(
                f"a message in the name of process {rank} without the signature of this launch's {LAUNCH_KEY}"
            )
        return json.loads(message)

    @staticmethod
    def _ask(call: Callable[[], Value]) -> Value:
        import torch

        try:
            return call()
        except torch.distributed.DistError as error:
            raise missing(f"the launcher's store is gone ({str(error).splitlines()[0]})") from None


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


def has_open_messages() -> bool:
    """Whether the processes are on several machines and no key signs what they send to each other."""
    is_local = os.environ.get("MASTER_ADDR") in LOOPBACK
    return _meeting is not None and not is_local and not os.environ.get(LAUNCH_KEY)


_meeting: Meeting | None = None
_has_lost = False  # another process


def missing(found: str) -> EnvironmentProblem:
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


def meet(facts: Mapping[str, str]) -> None:
    """Where a launcher started several processes: wait for all, and make sure that they belong together.

    `facts`: what has to be the same in all of them, such as versions. EnvironmentProblem where it is not, where one
    does not come, or where they were launched with different numbers of processes.
    """
    global _meeting
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _meeting is not None:
        return
    rank, num_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = Meeting(_open_store(rank), rank, num_processes)
    meeting.begin_to_live()
    own = {"processes": str(num_processes), **facts}
    _compare(meeting, own, "install the same versions everywhere (requirements.lock), launch the same number", MEETING)
    _meeting = meeting


def same_everywhere(facts: Mapping[str, str], hint: str) -> None:
    """EnvironmentProblem, in all processes, where these are not the same in all."""
    if _meeting is not None:
        _compare(_meeting, facts, hint)


def _compare(meeting: Meeting, own: Mapping[str, str], hint: str, patience: timedelta = LONGEST_WAIT) -> None:
    for other, (host, theirs) in enumerate(meeting.exchange([platform.node(), own], patience)):
        different = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
        if different:
            mine, other_s = (", ".join(f"{name} {of.get(name, 'none')}" for name in different) for of in (own, theirs))
            raise EnvironmentProblem(
                Problem(
                    where=f"process {other} on {host}",
                    found=other_s,
                    expected=f"{mine}, as in process {meeting.rank} on {platform.node()}",
                    hint=hint,
                    code="E541",
                )
            )


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
            store = torch.distributed.TCPStore(address, port, None, own, MEETING, wait_for_workers=False, **how)
            answer.put(store)
        except Exception as error:
            answer.put(error)

    # In a thread: where something else listens at the port, torch waits for its answer beyond any time-out.
    Thread(target=connect, daemon=True).start()
    try:
        store = answer.get(timeout=MEETING.total_seconds() + 1)
    except Empty:
        raise missing(f"no answer within {MEETING.total_seconds():,.0f} s") from None
    if isinstance(store, Exception):
        raise missing((str(store).splitlines() or [type(store).__name__])[0])
    # A launcher that starts its processes again keeps the store, and what was said in it.
    return torch.distributed.PrefixStore(f"fasttune/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def join(device: str) -> None:
    """Start the group in which the processes that met train; `device` as the recipe has it."""
    if _meeting is None or _group() is not None:
        return
    import torch
    from accelerate.state import PartialState

    if device != "cpu" and 0 < torch.cuda.device_count() <= int(os.environ.get("LOCAL_RANK", "0")):
        found, expected = f"{torch.cuda.device_count()} CUDA devices", "one for each process of this machine"
        hint = "as many processes as devices, or training.device=cpu"
        raise EnvironmentProblem(Problem(where=platform.node(), found=found, expected=expected, hint=hint, code="E544"))
    PartialState._reset_state()  # of a time when this process was alone
    with launcher_hidden():
        state = PartialState(
            cpu=device == "cpu" or not torch.cuda.is_available(),
            store=torch.distributed.PrefixStore("group", _meeting.store),
            rank=_meeting.rank,
            world_size=_meeting.num_processes,
            timeout=IN_TRAINING,
        )
    if state.num_processes != _meeting.num_processes:  # each would train alone, and none would know
        raise missing(f"{state.num_processes} in accelerate's group")


def lost(error: RuntimeError) -> EnvironmentProblem | None:
    """What it means when gloo or NCCL fails in training: another process is gone. None for any other error."""
    text = str(error)
    if _group() is None or not any(word in text for word in ("gloo", "NCCL", "c10d", "Connection")):
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


def launcher_asks(variable: str) -> bool:
    """Whether the launcher set one of LAUNCHERS to true."""
    return os.environ.get(variable, "false").lower() in ("true", "1")


@contextmanager
def launcher_hidden() -> Iterator[None]:
    """Within it accelerate and transformers do not see LAUNCHERS; afterwards other libraries see them as before.

    fasttune shares the model itself: accelerate would do it on some devices and not on others, and transformers would
    give all processes but the first a model without weights.
    """
    hidden = {variable: os.environ.pop(variable) for variable in LAUNCHERS if variable in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def is_main() -> bool:
    """Whether this process writes, prints and decides for all."""
    return (_meeting.rank == 0) if _meeting is not None else os.environ.get("RANK", "0") == "0"


def from_main(value: Any) -> Any:
    """What the main process has, in all processes; any value that JSON knows."""
    if _meeting is None:
        return value
    return _meeting.exchange(value if _meeting.rank == 0 else None)[0]


def tensors_from_main(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors on the CPU as the main process has them, in all processes."""
    group = _group()
    if group is None:
        return tensors
    import torch

    shapes = from_main({name: [str(one.dtype).removeprefix("torch."), *one.shape] for name, one in tensors.items()})
    received = {}
    for name, (dtype, *shape) in shapes.items():
        own = tensors[name] if is_main() else torch.empty(shape, dtype=getattr(torch, dtype))
        on_device = own.to(group.device)
        torch.distributed.broadcast(on_device, src=0)
        received[name] = own if is_main() else on_device.cpu()
    return received


def agreed(work: Callable[[], Value], in_turn: bool = False) -> Value:
    """What `work` returns; where it fails in one process, it does in all: with the same Error, if it is one.

    `in_turn`: one process of each machine goes first, and the others find what it has fetched or computed.
    """
    if _meeting is None:
        return work()
    result: list[Value] = []
    error: Exception | None = None
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    for turn in (True, False) if in_turn else (is_first,):
        if turn == is_first:
            try:
                result.append(work())
            except Exception as own:
                error = own
        said = _meeting.exchange(None if error is None else [platform.node(), _told(error)])
        if error is not None and not isinstance(error, Error):
            raise error  # with its traceback, where it happened
        if any(said):
            raise _of(said)
    return result[0]


def _told(error: Exception) -> dict[str, Any]:
    if isinstance(error, Error):
        return as_json(error)
    found, hint = f"{type(error).__name__}: {error}", "see what it printed"
    return as_json(EnvironmentProblem(Problem(where="a step before training", found=found, expected="none", hint=hint)))


def _of(said: list[Any]) -> Error:
    """The error of the first process that has one."""
    rank, (host, content) = next((rank, one) for rank, one in enumerate(said) if one is not None)
    if rank > 0:  # the main process tells it, and has no such problem
        own = f"process {rank} on {host}"
        content["problems"] = [{**problem, "where": f"{own}: {problem['where']}"} for problem in content["problems"]]
    error = from_json(content)
    error.is_told_elsewhere = not is_main()
    return error


def greatest(*values: int) -> Sequence[int]:
    """Of each number the greatest that any process has; all processes have to ask. For use in training."""
    group = _group()
    if group is None:
        return values
    import torch

    together = torch.tensor(values, device=group.device)
    torch.distributed.all_reduce(together, torch.distributed.ReduceOp.MAX)
    return [int(value) for value in together.tolist()]


def wait_for_all() -> None:
    from_main(None)


def _group() -> PartialState | None:
    """The process group, where one is started."""
    from accelerate.state import PartialState

    return PartialState() if PartialState._shared_state and PartialState().use_distributed else None
