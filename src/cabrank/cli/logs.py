"""The log of a server: to stderr, one line for each entry, so that it can be searched and counted line by line."""

from __future__ import annotations

import logging
import sys


class OneLine(logging.Formatter):
    """Whatever an entry contains, it stays one line: text that came from outside cannot pass for another entry."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


def log_to_stderr() -> None:
    """From INFO up. A person at a terminal sees tracebacks as they are used to."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(form) if sys.stderr.isatty() else OneLine(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its start and its end are ours to tell
