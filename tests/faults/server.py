"""Runs fasttune's command line again and again, each time in a fork of a process that has its libraries loaded.

Reads one JSON object a line: {"arguments": [...], "fault": {...} or null, "signal": number or null, "after": seconds,
"when": a file to wait for or null, "limit": seconds}; answers {"code", "output", "seconds", "count"}. See ../faulty.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import sklearn.metrics  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

import fasttune.api  # noqa: F401
from fasttune.__main__ import main

SHIM = ctypes.CDLL(None)


def child(job: dict, output: str) -> None:
    """Never returns."""
    code = 70
    try:
        descriptor = os.open(output, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(job.get("environment") or {})
        fault = job.get("fault")
        if fault:
            at, error, times, room = (fault[name] for name in ("at", "error", "times", "bytes"))
            folder, calls, until, log = (fault[name].encode() for name in ("folder", "calls", "until", "log"))
            numbers = (ctypes.c_long(at), ctypes.c_int(error), ctypes.c_long(times), ctypes.c_long(room))
            SHIM.fault_arm(folder, calls, *numbers, until, log)
        sys.argv = ["fasttune", *job["arguments"]]
        main()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        code = 130
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(job: dict) -> dict:
    begin = time.monotonic()
    descriptor, output = tempfile.mkstemp(prefix="fasttune-server-")
    os.close(descriptor)
    number = os.fork()
    if number == 0:
        child(job, output)
    told = job.get("signal") is None
    waiting_for, started = job.get("when"), None if job.get("when") else begin
    while True:
        ended, status = os.waitpid(number, os.WNOHANG)
        now = time.monotonic()
        if ended:
            break
        if started is None and Path(waiting_for).exists():
            started = now
        if not told and started is not None and now - started >= job.get("after", 0):
            os.kill(number, job["signal"])
            told = True
        if now - begin > job.get("limit", 120):
            os.kill(number, 9)
            os.waitpid(number, 0)
            status = None
            break
        time.sleep(0.001)
    text = Path(output).read_text(errors="replace")
    Path(output).unlink()
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return {"code": code, "output": text, "seconds": time.monotonic() - begin}


def serve() -> None:
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
