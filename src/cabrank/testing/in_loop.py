"""A SQLite store without threads: what it asks for is done in the event loop, by the test's clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cabrank.clock import Clock, Timer

T = TypeVar("T")


class Asked(msgspec.Struct):
    """Something that is to be done, and who waits for it."""

    work: Callable[[], object]
    answer: asyncio.Future[Any]
    given_up: bool = False


class InLoop:
    """`SqliteStore(path, clock, doers=InLoop(clock))` does everything in the thread of the event loop, and renews by `clock`.

    So it is over before the loop goes on, and the loop stands still meanwhile: for tests, of one process. Another process that holds
    the file in the midst of its turn makes it wait in that thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, name: str, *, between: Callable[[], None], every_s: float, now: Callable[[], float]) -> DoerInLoop:
        """See `Doers`."""
        del name, now
        return DoerInLoop(self._clock, between=between, every_s=every_s)


class DoerInLoop:
    """One that does things one after another, each in a step of the event loop of its own."""

    def __init__(self, clock: Clock, *, between: Callable[[], None], every_s: float) -> None:
        self._clock = clock
        self._between = between
        self._every_s = every_s
        self._asked: deque[Asked] = deque()
        self._timer: Timer | None = clock.call_later(every_s, self._come_between)

    def own(self, path: Path, rest: Callable[[], None]) -> None:
        """Nothing: a test whose time is its own does not fork."""
        del path, rest

    async def call(self, work: Callable[[], T], *, within_s: float | None = None, why: Callable[[], Exception] = TimeoutError) -> T:
        """Do `work` with one of the next steps of the loop. A cancel of the caller does not stop the work.

        What has not come back `within_s` seconds raises `why()`, and is left out.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        asked = Asked(work, answer)
        self._asked.append(asked)
        loop.call_soon(self.do_next)
        if within_s is None:
            return await answer

        def give_up() -> None:
            asked.given_up = True
            if not answer.done():
                answer.set_exception(why())

        timer = self._clock.call_later(within_s, give_up)
        try:
            return await answer
        finally:
            timer.cancel()

    async def end(self, *, within_s: float) -> None:
        """Do nothing more in between. What was asked for has been done, unless it was given up."""
        del within_s
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def do_next(self) -> None:
        """Do the one that was asked for first."""
        asked = self._asked.popleft()
        if asked.given_up:
            return
        try:
            result = asked.work()
        except BaseException as error:  # noqa: BLE001 -- it is raised where the call came from
            self._deliver(asked.answer, None, error)
        else:
            self._deliver(asked.answer, result, None)

    def come_between(self) -> None:
        """What is to be done every so often."""
        self._between()

    def _come_between(self) -> None:
        if self._timer is not None:
            self._timer = self._clock.call_later(self._every_s, self._come_between)
            self.come_between()

    @staticmethod
    def _deliver(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
