"""`python -m fasttune` and the `fasttune` command: run the command line, turn errors into exit codes."""

from __future__ import annotations

import sys


def main() -> None:
    from fasttune.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
