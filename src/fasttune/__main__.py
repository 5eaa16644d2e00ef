"""`python -m fasttune` and the `fasttune` command: run the command line, turn errors into exit codes."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext

from fasttune import signals


def main() -> None:
    arguments = sys.argv[1:]
    try:
        # From here on, since importing libraries takes seconds in which a run can be asked to stop, too.
        with signals.caught() if "train" in arguments[:1] else nullcontext():
            from fasttune.cli import run

            sys.exit(run(arguments))
    except signals.Stopped as stopped:
        resume = [] if "--resume" in arguments else ["--resume"]
        print(f"{stopped}. resume with: {shlex.join(['fasttune', *arguments, *resume])}", file=sys.stderr)
        sys.exit(128 + stopped.number)


if __name__ == "__main__":
    main()
