"""Calls of an executor that are made in worker processes: a line, and behind it a dispatcher in memory in a loop of its own.

A call costs no change of thread of its own: the loop takes what has gathered in the line, and gives out what has ended, many at a time.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from cabrank.dispatcher import Dispatcher
from cabrank.handle import JobHandle
from cabrank.handler import Isolated, isolated
from cabrank.loopthread import LoopThread
from cabrank.promise import Call
from cabrank.queue import HOLD, HOLD_S
from cabrank.settings import Kind


def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What every worker process runs: with one function for all, calls of different functions are alike to the dispatcher."""
    return function(*args, **kwargs)


def each(function: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What a chunk of a map is: calls that travel together, and whose results do."""
    return [function(*args) for args in items]


CALLED = isolated(called)
UNBOUNDED = 2**62  # calls: more than memory holds
LOOK_S = 60.0  # how long nothing need happen: whatever does is told


class Processes:
    """At most `size` worker processes, each started when it is needed.

    A call leaves the line, and counts as running, when a process is to begin it within `HOLD_S`, by the measured time of calls: of
    long calls there are never more than `size`, of short ones up to `HOLD` for each process.
    """

    def __init__(self, size: int, name: str, *, freed: Callable[[], None]) -> None:
        self._size = size
        self._freed = freed
        self._line: deque[Call] = deque()
        self._begun: list[tuple[Future[Any], JobHandle[Any]]] = []  # calls that left the line and have not ended
        self._looks = False  # whether the loop is to look at the line anyway
        self._closing = False
        self._news: asyncio.Future[None] | None = None
        self.thread = LoopThread(name)
        self.thread.start()
        try:
            self._dispatcher = self.thread.run(Dispatcher(store="memory://", max_workers=size, max_queue=UNBOUNDED).__aenter__)
        except BaseException:
            self.thread.stop()
            raise
        self._queue = self._dispatcher.pools[Kind.PROCESS].queue
        self.thread.call(self._live).add_done_callback(lambda _: self.thread.end())

    @property
    def waiting(self) -> int:
        """How many calls are in the line."""
        return len(self._line)

    def take(self, call: Call) -> None:
        """Put a call into the line."""
        self._line.append(call)
        if not self._looks:
            self._looks = True
            self.thread.soon(self._come)

    def close(self) -> None:
        """Let everything run to its end, and the loop after it."""
        self._closing = True
        self.thread.soon(self._come)

    def cancel_waiting(self) -> None:
        """Cancel what is in the line."""
        for future, *_ in tuple(self._line):
            future.cancel()

    def join(self) -> None:
        """Wait for the loop to end."""
        self.thread.join()

    # ------------------------------------------------------------------------------------------------- in the loop's thread

    async def _live(self) -> None:
        engine, loop = self._dispatcher.engine, asyncio.get_running_loop()
        try:
            while True:
                since, self._news = engine.progressed, loop.create_future()
                await self._answer()
                await self._fill()
                if self._closing and not self._line and not self._begun:
                    return
                await engine.progress(LOOK_S, since=since, until=self._news)
        finally:
            await self._dispatcher.stop(grace_s=math.inf)

    def _come(self) -> None:
        """There is something in the line, or there will be no more."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _answer(self) -> None:
        """Give out what has ended; all, if nothing ends any more."""
        failed = self._dispatcher.engine.closed is not None
        ended = [one for one in self._begun if failed or one[1].settled]
        if ended:
            self._begun = [] if failed else [one for one in self._begun if not one[1].settled]
        for future, handle in ended:
            try:
                future.set_result(await handle.result())  # it is there
            except BaseException as error:  # noqa: BLE001 -- it is raised where the result is asked for
                future.set_exception(error)

    async def _fill(self) -> None:
        """Let calls begin, as many as may."""
        self._looks = False  # what comes from now on may be too late for this look
        most = self._most()
        while self._line and len(self._begun) < most:
            future, function, args, kwargs = self._line.popleft()
            self._freed()
            if future.set_running_or_notify_cancel():
                await self._begin(future, function, args, kwargs)

    async def _begin(self, future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            called = function.function if isinstance(function, Isolated) else function  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- isinstance cannot tell the parameters
            handle = await self._dispatcher.submit(CALLED, called, args, kwargs)
        except BaseException as error:  # noqa: BLE001 -- as above
            future.set_exception(error)
            return
        self._begun.append((future, handle))

    def _most(self) -> int:
        """How many calls may have begun and not ended."""
        run_s = self._queue.run_s
        return self._size * (1 if run_s is None else max(1, min(HOLD, int(HOLD_S / max(run_s, 1e-7)))))
