"""What SIGTERM and SIGINT mean to a command that works: the first drains, the second hands back what runs."""

from __future__ import annotations

import asyncio

from cabrank.dispatcher import Dispatcher
from cabrank.errors import DispatcherFailed
from cabrank.events import logger

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

    def tell(self) -> None:
        """A signal came."""
        grace_s = self._dispatcher.settings.grace_s
        if not self.told:
            logger.info("stopping: what runs may finish within %g s, a second signal hands it back at once", grace_s)
            self._told.set()
        elif not self._again.is_set():
            logger.info("stopping at once: what runs is handed back")
            self._again.set()

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

    async def _hurry(self) -> None:
        await self._again.wait()
        await self._dispatcher.stop(grace_s=0)
