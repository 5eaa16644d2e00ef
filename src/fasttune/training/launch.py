"""Runs in child processes: `--restarts N` resumes after a kill, `--processes N` trains with N ranks.

`python -m fasttune.training.launch N train ...` is accelerate's launcher; its exit code is that of the rank that failed
first.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from fasttune.errors import Error
from fasttune.parallel.rendezvous import LAUNCH_KEY, LOOPBACK
from fasttune.security.text import write_line
from fasttune.training.signals import STOPS

# SIGINT comes from a person. A run that a signal ended after a save exits with 128 + its number.
FROM_OUTSIDE = tuple(number for number in STOPS if number != signal.SIGINT)
SIGKILL = getattr(signal, "SIGKILL", 9)  # Windows has no name for it
ENDED_FROM_OUTSIDE = {
    -SIGKILL,
    128 + SIGKILL,
    *(-number for number in FROM_OUTSIDE),
    *(128 + number for number in FROM_OUTSIDE),
}
Process = subprocess.Popen[bytes]


class Child:
    """Runs child processes one after the other and forwards signals to them."""

    def __init__(self, forward: Callable[[Process, int], None]):
        self.forward = forward
        self.received: int | None = None
        self.waiting: int | None = None  # a signal that arrived while no child was running
        self.process: Process | None = None

    def run(self, command: Sequence[str]) -> int:
        """Run a command; returns its exit code, negative if a signal killed it."""
        # In a new session, so that a terminal's Ctrl-C reaches this process only, and once. PYTHONSAFEPATH keeps
        # `python -m` from importing files of the working folder, such as a psutil.py beside the data.
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        self.process = subprocess.Popen(command, start_new_session=True, env=environment)
        if self.waiting is not None:
            self.forward(self.process, self.waiting)
        return self.process.wait()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self.process is None or self.process.returncode is not None:
            self.waiting = number
        else:
            self.forward(self.process, number)

    def __enter__(self) -> Child:
        self.previous = {number: signal.signal(number, self._note) for number in STOPS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def as_exit_code(code: int) -> int:
    """The shell's exit code for a return code of subprocess: 128 + number for a signal."""
    return code if code >= 0 else 128 - code


def with_restarts(arguments: Sequence[str], max_restarts: int, log: Callable[[str], None]) -> int:
    """Run `fasttune ARGUMENTS` in a child process, resume it at most `max_restarts` times, and return its exit code.

    It restarts only if something outside ended the child: a scheduler's signal, or the kernel for lack of memory.
    Errors, divergence and hangs need a person, so they end it. So does a signal to this process.
    """
    command = [sys.executable, "-m", "fasttune", *arguments]
    with Child(lambda process, number: process.send_signal(number)) as child:
        for number in range(max_restarts + 1):
            code = child.run(command)
            if child.received is not None or code not in ENDED_FROM_OUTSIDE or number == max_restarts:
                break
            log(f"the run was killed (exit code {code}): restart {number + 1} of {max_restarts}")
            command += [] if "--resume" in command else ["--resume"]
    return as_exit_code(code)


def with_processes(arguments: Sequence[str], num_processes: int) -> int:
    """Run `fasttune ARGUMENTS` in `num_processes` ranks with accelerate's launcher; the exit code of the first to fail.

    Signals go to the ranks directly: the launcher would kill them after 30 seconds and pass on Ctrl-C twice.
    """
    import psutil

    def forward(process: Process, number: int) -> None:
        try:
            workers = psutil.Process(process.pid).children()
            for worker in workers:
                worker.send_signal(number)
        except psutil.NoSuchProcess:
            return
        if not workers:
            process.send_signal(number)

    with Child(forward) as child:
        return as_exit_code(
            child.run([sys.executable, "-m", "fasttune.training.launch", str(num_processes), *arguments])
        )


def accelerate_launch(num_processes: int, arguments: Sequence[str]) -> int:
    """Run `accelerate launch` of `fasttune ARGUMENTS` in this process, sharded as its config file says.

    EnvironmentProblem if the config file asks for DeepSpeed.
    """
    import psutil
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from fasttune.training.wrapping import USE_FSDP2, unsupported

    # The launcher's own failure reports would bury the messages of the ranks.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    cores = psutil.cpu_count(logical=False) or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // num_processes, 1)))
    options = ["--num_processes", str(num_processes), "--dynamo_backend", "no", "--mixed_precision", "no"]
    config = load_config_from_file(None) if Path(default_config_file).is_file() else None
    if config is not None and config.distributed_type == "DEEPSPEED":
        raise unsupported("distributed_type: DEEPSPEED", USE_FSDP2)
    if config is None or config.distributed_type != "FSDP":
        # accelerate's name for several processes on any device; without it a CPU gets one.
        options += ["--multi_gpu"]
        if config is None or (config.num_machines or 1) == 1:
            options += ["--num_machines", "1", "--main_process_port", "0"]
    parsed = launch_command_parser().parse_args([*options, "-m", "fasttune", *arguments])
    if config is None or (config.num_machines or 1) == 1:
        os.environ.setdefault(LAUNCH_KEY, secrets.token_hex(32))
        # On one machine nothing may listen to the network, as the launcher's own store would: rendezvous uses a file,
        # and rank 0 keeps a store on the loopback address (parallel/rendezvous.py).
        parsed.rdzv_backend, parsed.rdzv_conf, parsed.local_addr = "c10d", "store_type=file", LOOPBACK[0]
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        launch_command(parsed)
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode < 0:
            write_line(f"rank {rank} was killed by {signal.Signals(-first.exitcode).name}", sys.stderr)
        return as_exit_code(first.exitcode)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(accelerate_launch(int(sys.argv[1]), sys.argv[2:]))
    except Error as error:
        write_line(f"error: {error}", sys.stderr)
        sys.exit(error.exit_code)
