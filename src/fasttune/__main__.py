"""`python -m fasttune` and the `fasttune` command: run the command line, turn errors into exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and sys.path[:1] in ([""], [str(Path.cwd())]):
    del sys.path[0]  # the working folder: `python -m` would import a psutil.py that lies beside the data

import shlex
from contextlib import nullcontext

from fasttune.parallel.collectives import is_main
from fasttune.security.text import write_line
from fasttune.training import signals


def main() -> None:
    arguments = sys.argv[1:]
    try:
        # Before the imports, which take seconds in which a signal may arrive.
        with signals.caught() if arguments[:1] in (["train"], ["doctor"]) else nullcontext():
            from fasttune.cli.commands import run

            sys.exit(run(arguments))
    except signals.Stopped as stopped:
        resume = ["--resume"] if arguments[:1] == ["train"] and "--resume" not in arguments else []
        if is_main():
            write_line(f"{stopped}. Resume with: {shlex.join(['fasttune', *arguments, *resume])}", sys.stderr)
        sys.exit(128 + stopped.number)


if __name__ == "__main__":
    main()
