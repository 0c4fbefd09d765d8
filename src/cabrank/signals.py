"""SIGTERM and SIGINT, which mean a stop to whatever runs until it is told, and SIGUSR1, which asks what runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heard(tell: Callable[[], None]) -> Generator[None]:
    """Let the running event loop call `tell` for each of them that comes."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, tell)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def asked(say: Callable[[], str]) -> Generator[None]:
    """Print what `say` says to stderr whenever SIGUSR1 comes, though the event loop may be blocked. To be used in the main thread."""

    def print_it(*_: object) -> None:
        try:
            text = say()
        except Exception as error:  # noqa: BLE001 -- whatever is interrupted here has nothing to do with it
            text = f"what runs cannot be said: {error!r}"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, f"{text}\n".encode())

    before = signal.signal(signal.SIGUSR1, print_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
