"""Run hostile cases one after the other, under an audit hook: `python guard.py FOLDER RESULTS NAME ...`.

Alarms are: a program started, code of a case's folder compiled or run, a connection other than to what HF_ENDPOINT and
MASTER_PORT name, a file of the system read, a file changed outside FOLDER.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pty.spawn", "pickle.find_class", "ctypes.dlopen")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# A handle of this process itself, and what torch for CUDA asks for a driver.
HARMLESS = ((None,), ("libnvidia-ml.so.1",))
FIRST = "first"
SECONDS = 60  # a case, before it counts as one that hangs


def main(folder: Path, results: Path, names: list[str]) -> None:
    from fasttune import api  # noqa: F401  what is imported before the hook is no alarm
    from fasttune.cli import commands as cli
    from fasttune.security.model_folder import PROBE
    from fasttune.unpadding.native import find

    find()  # asks for the compiler
    made = prepared(folder, names)
    warm_up(made.pop(FIRST)["words"])
    allowed_ports = {urlsplit(os.environ.get("HF_ENDPOINT", "")).port, int(os.environ.get("MASTER_PORT", "0"))}
    place, alarms = folder / "nowhere", []

    def is_inside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True  # a descriptor that was opened before
        full = str(Path(os.fsdecode(path)).resolve())
        return full.startswith((str(folder), "/dev/", "/proc/"))

    def hook(event: str, arguments: tuple) -> None:
        if event == "subprocess.Popen" and arguments[1] == [sys.executable, "-P", str(PROBE)]:
            return
        is_alarm = event in RUNS and arguments not in HARMLESS
        if event == "open":
            path, _, flags = arguments
            is_alarm = (bool(flags & WRITES) and not is_inside(path)) or str(path).startswith("/etc/passwd")
        elif event in CHANGES:
            is_alarm = not is_inside(arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0])
        elif event == "socket.connect":
            address = arguments[1]
            is_alarm = isinstance(address, tuple) and address[1] not in allowed_ports
        elif event == "socket.getaddrinfo":
            is_alarm = arguments[0] not in ("127.0.0.1", "localhost", None)
        elif event in ("import", "compile", "exec"):
            is_alarm = str(place) in repr(arguments)[:300]
        if is_alarm:
            alarms.append([event, repr(arguments)[:300]])

    def hangs(*_: object) -> None:
        alarms.append(["hangs", str(place)])
        raise TimeoutError

    sys.addaudithook(hook)
    signal.signal(signal.SIGALRM, hangs)
    found = {}
    for name, case in made.items():
        place, out = Path(case["place"]), io.StringIO()
        alarms.clear()
        os.chdir(place)
        signal.alarm(SECONDS)
        with ExitStack() as stack:
            if not sys.stdout.isatty():
                stack.enter_context(redirect_stdout(out))
                stack.enter_context(redirect_stderr(out))
            code = cli.run(case["words"])
        signal.alarm(0)
        found[name] = {"code": code, "said": out.getvalue(), "alarms": list(alarms), "place": str(place)}
    results.write_text(json.dumps(found))


def prepared(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """The files and command lines of all cases, made by the first of several processes."""
    from hostile import CASES, command

    file = folder / "cases.json"
    if os.environ.get("RANK", "0") == "0":
        made = {}
        for number, (name, case) in enumerate({FIRST: command, **{name: CASES[name] for name in names}}.items()):
            place = folder / f"case-{number}"
            place.mkdir()
            made[name] = {"place": str(place), "words": case(place)}
        file.with_suffix(".new").write_text(json.dumps(made))
        file.with_suffix(".new").rename(file)
    while not file.exists():
        time.sleep(0.05)
    return dict(json.loads(file.read_text()))


def warm_up(words: list[str]) -> None:
    """A run of its own: what libraries load at the first step or save is no alarm of a case."""
    from fasttune.cli import commands as cli

    out = io.StringIO()
    with redirect_stderr(out), redirect_stdout(out):
        code = cli.run(words)
    assert code == 0, out.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
