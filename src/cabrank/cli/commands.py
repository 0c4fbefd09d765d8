"""The commands, as cyclopts reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App

import cabrank
from cabrank.cli.jobs import jobs
from cabrank.cli.queues import queues
from cabrank.cli.run import run_items
from cabrank.cli.schedules import schedules
from cabrank.cli.serve import serve
from cabrank.cli.settings import settings
from cabrank.cli.store import store
from cabrank.cli.why import why
from cabrank.cli.work import work
from cabrank.errors import CabrankError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # this and the next as shells report them
EXIT_PIPE = 141

program = App(
    name="cabrank",
    help=f"{cabrank.__doc__}\n\nThe shortest way to see it work: `cabrank serve path/to/file.py:app`.",
    version=f"cabrank {cabrank.__version__}",
    help_format="markdown",
    result_action="return_value",
)
program.command(serve)
program.command(work)
program.command(jobs)
program.command(queues)
program.command(why)
program.command(store)
program.command(run_items, name="run")
program.command(settings)
program.command(schedules)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status; what is wrong is said in one line on stderr."""
    try:
        status: object = program(arguments)
    except CabrankError as error:
        print(f"cabrank: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # who read what is printed wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    return status if isinstance(status, int) else 0
