"""fasttune's command line, or a script, in a fork of a server that has the libraries loaded.

A cold Python takes five to ten seconds to import torch, transformers and datasets on a slow machine; a fork takes a
few milliseconds. The server is multiprocessing's: it starts with the first fork and ends with this process. Its forks
run one thread each, and every one has the shim of `faulty.py` in its way, which does nothing until it is armed.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIBRARIES = (
    "datasets",
    "sklearn.metrics",
    "sklearn.model_selection",
    "transformers.optimization",
    "transformers.models.bert.modeling_bert",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "accelerate.utils",
    "fasttune.api",
    "fasttune.cli.commands",
)
SHIM = Path(__file__).parent / "faults" / "shim.c"
CAN_INJECT_FAULTS = sys.platform == "linux" and shutil.which("gcc") is not None
LIMIT = 120  # seconds

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LIBRARIES))
_folder = tempfile.TemporaryDirectory(prefix="fasttune-forks-")


@dataclass(frozen=True)
class Job:
    """What a fork runs: `python -m fasttune ARGUMENTS`, or `python SCRIPT ARGUMENTS`."""

    arguments: Sequence[str]
    script: str | None
    folder: str  # the working directory
    environment: Mapping[str, str]
    stdout: str
    stderr: str
    fault: Mapping[str, Any] | None  # the fields of faulty.Fault


@dataclass
class Fork:
    """A running job; the methods are those of subprocess.Popen."""

    process: Any
    stdout: Path
    stderr: Path
    args: Sequence[str] = field(default_factory=tuple)

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def returncode(self) -> int | None:
        """Negative where a signal killed it; None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout)
        return self.returncode

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """stdout and stderr; both in stderr's place where they were one."""
        self.wait(timeout)
        return self.stdout.read_text(errors="replace"), self.stderr.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        if self.returncode is None:
            self.kill()
        self.process.join()


def start(
    arguments: Sequence[object],
    *,
    script: Path | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    fault: Mapping[str, Any] | None = None,
) -> Fork:
    """`environment`: what is set besides this process's own."""
    _ensure_server()
    words = [str(word) for word in arguments]
    outputs = []
    for name in ("stdout", "stderr"):
        descriptor, path = tempfile.mkstemp(prefix=f"{name}-", dir=_folder.name)
        os.close(descriptor)
        outputs.append(path)
    job = Job(
        arguments=words,
        script=None if script is None else str(script),
        folder=str(cwd or Path.cwd()),
        environment={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=outputs[0],
        stderr=outputs[1],
        fault=fault,
    )
    process = _context.Process(target=_run, args=(job,))
    process.start()
    return Fork(process, Path(outputs[0]), Path(outputs[1]), [str(script or "fasttune"), *words])


def run(arguments: Sequence[object], *, timeout: float = LIMIT, **how: Any) -> subprocess.CompletedProcess[str]:
    """`start` to its end; as subprocess.run(..., capture_output=True, text=True)."""
    with start(arguments, **how) as fork:
        stdout, stderr = fork.communicate(timeout)
    return subprocess.CompletedProcess(fork.args, fork.wait(), stdout, stderr)


@dataclass(frozen=True)
class Ranks:
    """Processes of one launch that have ended, by rank."""

    codes: list[int]
    outputs: list[str]
    errors: list[str]

    @property
    def returncode(self) -> int:
        """0 where all ended with it, otherwise that of the first rank that did not."""
        return next((code for code in self.codes if code != 0), 0)

    @property
    def stdout(self) -> str:
        return "".join(self.outputs)

    @property
    def stderr(self) -> str:
        return "".join(self.errors)


def start_ranks(num_processes: int, arguments: Sequence[object], **how: Any) -> list[Fork]:
    """As a launcher starts the processes of one machine; there is no launcher that ends them when one fails."""
    given = dict(how.pop("environment", None) or {})
    common = {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank), **given} for rank in range(num_processes)]
    return [start(arguments, environment=environment, **how) for environment in ranks]


def run_ranks(num_processes: int, arguments: Sequence[object], *, timeout: float = LIMIT, **how: Any) -> Ranks:
    """`start_ranks` to the end of all."""
    return ended(start_ranks(num_processes, arguments, **how), timeout)


def ended(ranks: Sequence[Fork], timeout: float = LIMIT) -> Ranks:
    """Wait for all; subprocess.TimeoutExpired, with all of them killed, where one takes longer."""
    until = time.monotonic() + timeout
    try:
        texts = [rank.communicate(max(until - time.monotonic(), 0)) for rank in ranks]
    finally:
        for rank in ranks:
            if rank.returncode is None:
                rank.kill()
    return Ranks([rank.wait() for rank in ranks], [text[0] for text in texts], [text[1] for text in texts])


def free_port() -> int:
    with socket.socket() as anybody:
        anybody.bind(("127.0.0.1", 0))
        return int(anybody.getsockname()[1])


def wait_for(condition: Callable[[], bool], process: Any = None, limit: float = LIMIT) -> None:
    """Look again and again until the condition holds; AssertionError where `process` ends before, or time is up."""
    until = time.monotonic() + limit
    while not condition():
        assert process is None or process.poll() is None or condition(), "it ended before"
        assert time.monotonic() < until, f"not within {limit} s"
        time.sleep(0.002)


# --- in the server and its forks ----------------------------------------------------------------------------------


@functools.cache
def built_shim() -> Path:
    target = Path(_folder.name) / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(target), str(SHIM), "-ldl"], check=True)
    return target


@functools.cache
def _ensure_server() -> None:
    changes = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # read when the libraries are loaded
    if CAN_INJECT_FAULTS:
        changes["LD_PRELOAD"] = str(built_shim())
    with _environment(changes):
        multiprocessing.forkserver.ensure_running()


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(job: Job) -> None:
    """Only in a fork. Raises SystemExit, which multiprocessing makes the exit code of the process."""
    gc.freeze()  # a run ends with a collection, which need not walk through what the libraries hold
    missing = [name for name in LIBRARIES if name not in sys.modules]
    assert not missing, f"the server has not loaded {missing}, so that every fork would"
    for descriptor, path in ((1, job.stdout), (2, job.stderr)):
        output = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(output, descriptor)
        os.close(output)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    if job.fault:
        fault = job.fault
        folder, calls, until, log = (fault[name].encode() for name in ("folder", "calls", "until", "log"))
        numbers = (ctypes.c_long(fault["at"]), ctypes.c_int(fault["error"]))
        room = (ctypes.c_long(fault["times"]), ctypes.c_long(fault["bytes"]))
        ctypes.CDLL(None).fault_arm(folder, calls, *numbers, *room, until, log)
    try:
        if job.script is None:
            from fasttune.__main__ import main

            sys.argv = ["fasttune", *job.arguments]
            main()
        else:
            sys.argv = [job.script, *job.arguments]
            sys.path.insert(0, str(Path(job.script).parent))
            runpy.run_path(job.script, run_name="__main__")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out, and a group of processes is left in one
