"""The command line: `cabrank serve`, `work`, `run` and what people look after jobs with; `commands.py` lists them all."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name."""
    try:
        from cabrank.cli.commands import run  # noqa: PLC0415 -- the library itself is installed without what this needs
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "cabrank":
            raise
        print(f"cabrank: {error.name} is missing, and the command needs it: pip install 'cabrank[serve]'", file=sys.stderr)
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))
