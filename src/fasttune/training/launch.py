"""A run in processes of its own: `--restarts N` goes on after a kill, `--processes N` trains with several at once.

`python -m fasttune.training.launch N train ...` is the second of these: accelerate's launcher, which ends with the exit
code of the process that failed first.
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

# SIGINT comes from a person. What ends a run after a safe save has 128 added to its number.
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
    """Processes one after the other, to which signals that come here are handed on."""

    def __init__(self, hand_on: Callable[[Process, int], None]):
        self.hand_on = hand_on
        self.told: int | None = None
        self.waiting: int | None = None  # came when there was nobody to hand it on to
        self.process: Process | None = None

    def run(self, command: Sequence[str]) -> int:
        """Its exit code, negative where a signal killed it."""
        # In a session of its own: a terminal's Ctrl-C comes here alone, and once. `python -m` would import what lies in
        # the working folder, such as a psutil.py beside somebody's data.
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        self.process = subprocess.Popen(command, start_new_session=True, env=environment)
        if self.waiting is not None:
            self.hand_on(self.process, self.waiting)
        return self.process.wait()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.told = number
        if self.process is None or self.process.returncode is not None:
            self.waiting = number
        else:
            self.hand_on(self.process, number)

    def __enter__(self) -> Child:
        self.previous = {number: signal.signal(number, self._note) for number in STOPS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def as_exit_code(code: int) -> int:
    """Of what a process ended with: a signal is 128 more than its number."""
    return code if code >= 0 else 128 - code


def with_restarts(arguments: Sequence[str], most: int, log: Callable[[str], None]) -> int:
    """Run `fasttune ARGUMENTS` in a process of its own, and with --resume again at most `most` times; its exit code.

    It goes on where something outside ended it: a scheduler's signal, the kernel for lack of memory. Errors, divergence
    and hangs are for a person to look at, and end it as they would have. A signal that comes here ends it for good.
    """
    command = [sys.executable, "-m", "fasttune", *arguments]
    with Child(lambda process, number: process.send_signal(number)) as child:
        for number in range(most + 1):
            code = child.run(command)
            if child.told is not None or code not in ENDED_FROM_OUTSIDE or number == most:
                break
            log(f"ended from outside (exit code {code}): restart {number + 1} of {most}")
            command += [] if "--resume" in command else ["--resume"]
    return as_exit_code(code)


def with_processes(arguments: Sequence[str], num_processes: int) -> int:
    """Run `fasttune ARGUMENTS` in so many processes at once, by accelerate's launcher; the exit code of the first to
    fail.

    A signal is handed on to all of them: the launcher would give them 30 seconds to save, and a Ctrl-C twice.
    """
    import psutil

    def hand_on(process: Process, number: int) -> None:
        try:
            workers = psutil.Process(process.pid).children()
            for one in workers:
                one.send_signal(number)
        except psutil.NoSuchProcess:
            return
        if not workers:
            process.send_signal(number)

    with Child(hand_on) as child:
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

    # Its own reports of a failure would bury what the processes say.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    cores = psutil.cpu_count(logical=False) or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // num_processes, 1)))
    own = ["--num_processes", str(num_processes), "--dynamo_backend", "no", "--mixed_precision", "no"]
    config = load_config_from_file(None) if Path(default_config_file).is_file() else None
    if config is not None and config.distributed_type == "DEEPSPEED":
        raise unsupported("distributed_type: DEEPSPEED", USE_FSDP2)
    if config is None or config.distributed_type != "FSDP":
        # So it calls several processes on any device; without it a CPU gets one.
        own += ["--multi_gpu"]
        if config is None or (config.num_machines or 1) == 1:
            own += ["--num_machines", "1", "--main_process_port", "0"]
    asked = launch_command_parser().parse_args([*own, "-m", "fasttune", *arguments])
    if config is None or (config.num_machines or 1) == 1:
        os.environ.setdefault(LAUNCH_KEY, secrets.token_hex(32))
        # Of one machine nobody outside is let in: the launcher's own store would listen to the whole network. It meets
        # in a file, and process 0 has a store on the loopback address (distributed.py).
        asked.rdzv_backend, asked.rdzv_conf, asked.local_addr = "c10d", "store_type=file", LOOPBACK[0]
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        launch_command(asked)
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode < 0:
            write_line(f"process {rank} was ended by {signal.Signals(-first.exitcode).name}", sys.stderr)
        return as_exit_code(first.exitcode)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(accelerate_launch(int(sys.argv[1]), sys.argv[2:]))
    except Error as error:
        write_line(f"error: {error}", sys.stderr)
        sys.exit(error.exit_code)
