"""What SIGTERM and SIGINT mean to a command that works: the first drains, the second hands back what runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager

from cabrank.dispatcher import Dispatcher
from cabrank.errors import DispatcherFailed
from cabrank.events import logger

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_S = 0.2  # how soon a failure inside is seen


class Stopping:
    """Signals for one dispatcher. They are counted from before it opens, so none is lost."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._told = asyncio.Event()
        self._again = asyncio.Event()

    @property
    def told(self) -> bool:
        """Whether a signal came."""
        return self._told.is_set()

    @contextmanager
    def signals(self) -> Generator[None]:
        """Let SIGTERM and SIGINT mean a stop."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._tell)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def wanted(self) -> None:
        """Return when a signal came, or when the dispatcher failed inside."""
        while not self.told and not isinstance(self._dispatcher.engine.closed, DispatcherFailed):
            try:
                await asyncio.wait_for(self._told.wait(), LOOK_S)
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Stop the dispatcher: within its grace, or at once when a second signal comes."""
        hurrying = asyncio.get_running_loop().create_task(self._hurry())
        try:
            await self._dispatcher.stop()
        finally:
            hurrying.cancel()

    def _tell(self) -> None:
        grace_s = self._dispatcher.settings.grace_s
        if not self.told:
            logger.info("stopping: what runs may finish within %g s, a second signal hands it back at once", grace_s)
            self._told.set()
        elif not self._again.is_set():
            logger.info("stopping at once: what runs is handed back")
            self._again.set()

    async def _hurry(self) -> None:
        await self._again.wait()
        await self._dispatcher.stop(grace_s=0)
