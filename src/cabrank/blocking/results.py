"""Results as they come, for callers without a loop: they read the items of a map too, in their own thread."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import cabrank.results
from cabrank.blocking.handle import JobHandle
from cabrank.loopthread import LoopThread
from cabrank.results import Elsewhere, Feed, Read, some

T = TypeVar("T")
R = TypeVar("R")


class Mapped(Generic[T, R]):
    """One item of a map whose job has ended, as `cabrank.Mapped`."""

    __slots__ = ("_mapped", "_thread")

    def __init__(self, mapped: cabrank.results.Mapped[T, R], thread: LoopThread) -> None:
        self._mapped = mapped
        self._thread = thread

    @property
    def item(self) -> T:
        """What the job was submitted for."""
        return self._mapped.item

    @property
    def handle(self) -> JobHandle[R]:
        """The job."""
        return JobHandle(self._mapped.handle, self._thread)

    def result(self) -> R:
        """What the handler returned for the item; raises what `JobHandle.result` raises. Does not wait for the job."""
        return self._thread.run(self._mapped.result)


class Errand(Elsewhere[Any]):
    """The items of a map, which the loop asks for and the thread that takes the results reads, while it waits for one."""

    def __init__(self, items: Iterable[Any], thread: LoopThread) -> None:
        self._source = iter(items)
        self._thread = thread
        self._told: SimpleQueue[Future[Any] | int] = SimpleQueue()
        self._read: asyncio.Future[Read[Any]] | None = None

    async def some(self, most: int) -> Read[Any]:
        """In the loop: at most so many items, once the other thread has read them."""
        self._read = asyncio.get_running_loop().create_future()
        self._told.put(most)
        return await self._read

    def wait(self, answer: Future[Any]) -> None:
        """In the thread: read what is asked for, until the answer is there."""
        answer.add_done_callback(self._told.put)
        while isinstance(wanted := self._told.get(), int):
            read: Read[Any] = [], None  # of a Ctrl-C: then no more is read
            try:
                read = some(self._source, wanted)
            finally:
                self._thread.soon(partial(self._give, read))

    def _give(self, read: Read[Any]) -> None:
        if self._read is not None and not self._read.done():
            self._read.set_result(read)


class Results(Iterator[R], Generic[T, R]):
    """What a map gives: an iterator over results, as `cabrank.Results`. The items are read in the thread that iterates.

    An item whose job failed raises there what `JobHandle.result` raises; iterating on afterwards goes on with the next item, and
    `each` does not raise at all. Leaving early (`break`, an exception, `close`) cancels what was submitted and has not ended: waiting
    jobs do not run, running ones are asked to stop. One consumer at a time.
    """

    def __init__(self, feed: Feed[T, R], errand: Errand, thread: LoopThread) -> None:
        self._feed = feed
        self._errand = errand
        self._thread = thread
        self._dropped = weakref.finalize(self, thread.soon, feed.leave)  # `break` tells nobody but the collector
        self._dropped.atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        """The next result.

        Raises:
            What `JobHandle.result` raises for this item. What reading or submitting the items raised, once, behind all results.
        """
        return self._thread.run(self._next().result)

    def each(self) -> Iterator[Mapped[T, R]]:
        """The items whose jobs have ended, with or without a result: nothing is raised for one before its `result()` is asked for."""
        while True:
            try:
                mapped = self._next()
            except StopIteration:
                return
            yield Mapped(mapped, self._thread)

    def close(self) -> None:
        """Submit nothing more and cancel what has not ended."""
        if not self._thread.ended:
            self._thread.run(self._leave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _next(self) -> cabrank.results.Mapped[T, R]:
        answer = self._thread.call(self._feed.take)
        try:
            self._errand.wait(answer)
        except BaseException:
            answer.cancel()
            raise
        mapped = answer.result()
        if mapped is None:
            raise StopIteration
        return mapped

    async def _leave(self) -> None:
        leaving = self._feed.leave()
        if leaving is not None:
            await asyncio.wait([leaving])
