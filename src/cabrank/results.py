"""Results as they come: of a map, and of many handles. What is submitted and not yet taken is bounded; nothing is polled."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from cabrank.errors import CabrankError, PayloadInvalid, SettingError
from cabrank.handle import Handles, JobHandle
from cabrank.job import Settlement

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 100  # items of a plain iterable that are submitted together

Read = tuple[list[T], BaseException | None]
"""Some items, and what the source raised behind them; no items and nothing raised: there are no more."""


class Elsewhere(Generic[T]):
    """The items of a map, if they are read elsewhere than in the loop."""

    async def some(self, most: int) -> Read[T]:
        """At most so many."""
        raise NotImplementedError


class Submit(Protocol):
    """How a map submits some items."""

    def __call__(self, items: list[Any], /) -> Awaitable[Iterable[Submitted]]:
        """Hold a handle for each item, in order, and offer the jobs to the store."""
        ...


class Submitted(NamedTuple):
    """Handles of jobs that are stored together, and when they are: done or failed, or None if they are already."""

    handles: Sequence[JobHandle[Any]]
    stored: asyncio.Future[None] | None


class Mapped(Generic[T, R]):
    """One item of a map whose job has ended."""

    __slots__ = ("_error", "handle", "item")

    def __init__(self, item: T, handle: JobHandle[R]) -> None:
        self.item = item
        self.handle = handle
        self._error: BaseException | None = None  # why it was not stored, or has no outcome here

    async def result(self) -> R:
        """What the handler returned for the item; raises what `JobHandle.result` raises. Does not wait."""
        if self._error is not None:
            raise self._error
        return await self.handle.result()

    def fail(self, error: BaseException | None) -> None:
        """There is no outcome, and this is why."""
        self._error = error


class _Entry(Generic[T, R]):
    __slots__ = ("ended", "mapped")

    def __init__(self, mapped: Mapped[T, R]) -> None:
        self.mapped = mapped
        self.ended = False


class Feed(Generic[T, R]):
    """Reads the items and submits them, at most `ahead` more than were taken. Lives in the dispatcher's root task."""

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T] | Elsewhere[T],
        submit: Submit,
        *,
        ahead: int,
        chunk: int = CHUNK,
        ordered: bool,
        handles: Handles,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], asyncio.Task[None]],
    ) -> None:
        if ahead < 1:
            raise SettingError(f"ahead must be at least 1, not {ahead}")
        self._items = items
        self._submit = submit
        self._ahead = ahead
        self._chunk = min(chunk, CHUNK)
        self._ordered = ordered
        self._handles = handles
        self._start = start
        self._out: dict[int, _Entry[T, R]] = {}  # submitted and not taken, in order
        self._ended: deque[_Entry[T, R]] = deque()  # of these, whose jobs have ended, where order does not matter
        self._broken: BaseException | None = None
        self._over = False
        self._left = False
        self._reading: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._news: asyncio.Future[None] | None = None

    # --------------------------------------------------------------------------------------------------------- reading

    async def take(self) -> Mapped[T, R] | None:
        """The next item whose job has ended; None when there will be no more.

        Raises:
            What ended the reading before the items were used up.
        """
        if self._reading is None and not self._over:
            self._reading = self._start(self._read)
        while True:
            entry = self._first()
            if entry is not None:
                del self._out[entry.mapped.handle.number]
                if self._room is not None and len(self._out) <= self._low and not self._room.done():
                    self._room.set_result(None)
                return entry.mapped
            if self._over and not self._out:
                broken, self._broken = self._broken, None
                if broken is not None:
                    raise broken
                return None
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def _first(self) -> _Entry[T, R] | None:
        if not self._ordered:
            return self._ended.popleft() if self._ended else None
        entry = next(iter(self._out.values()), None)
        return entry if entry is not None and entry.ended else None

    @property
    def _low(self) -> int:
        """When so few are out, the next are read: some at a time, so that neither side is woken for each."""
        return self._ahead - max(1, self._ahead // 4)

    async def _read(self) -> None:
        try:
            if isinstance(self._items, AsyncIterable):
                await self._read_async(self._items)
            else:
                await self._read_some(self._items if isinstance(self._items, Elsewhere) else _Here(self._items))
        except asyncio.CancelledError:
            self._broken = self._broken or self._handles.over
            raise
        except BaseException as error:  # noqa: BLE001 -- whatever reading or submitting raises is raised where the results are taken
            self._broken = error
        finally:
            self._over = True
            self._tell()

    async def _read_some(self, source: Elsewhere[T]) -> None:
        while True:
            batch, failure = await source.some(min(await self._space(), self._chunk))
            if batch:
                await self._put(batch)
            if failure is not None:
                raise failure
            if not batch:
                return

    async def _read_async(self, items: AsyncIterable[T]) -> None:
        source = aiter(items)
        try:
            while await self._space():
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                await self._put([item])
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()

    async def _space(self) -> int:
        """Wait until some more may be submitted, and say how many."""
        if len(self._out) >= self._ahead:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
            self._room = None
        return self._ahead - len(self._out)

    async def _put(self, items: list[T]) -> None:
        try:
            parts = await self._submit(items)
        except PayloadInvalid:
            if len(items) == 1:
                raise
            for item in items:  # those before the one that is wrong are submitted all the same
                await self._put([item])
            return
        source = iter(items)
        for handles, stored in parts:
            entries = [_Entry(Mapped(item, handle)) for handle, item in zip(handles, source, strict=False)]
            self._out.update((entry.mapped.handle.number, entry) for entry in entries)
            if stored is None:
                self._expect(entries)
            else:
                stored.add_done_callback(partial(self._answered, entries))

    def _answered(self, entries: Sequence[_Entry[T, R]], stored: asyncio.Future[None]) -> None:
        """The store has these, or will not: then nothing more is read."""
        error = stored.exception()
        if error is None:
            self._expect(entries)
            return
        for entry in entries:
            self._handles.drop(entry.mapped.handle.number)
            self._has_ended(entry, error)
        if self._reading is not None:
            self._reading.cancel()

    def _expect(self, entries: Sequence[_Entry[T, R]]) -> None:
        for entry in entries:
            if entry.mapped.handle.settled:
                self._has_ended(entry, None)
            else:
                entry.mapped.handle.expect().add_done_callback(partial(self._is_told, entry))

    def _is_told(self, entry: _Entry[T, R], ended: asyncio.Future[Settlement]) -> None:
        self._has_ended(entry, ended.exception())

    def _has_ended(self, entry: _Entry[T, R], error: BaseException | None) -> None:
        entry.ended = True
        entry.mapped.fail(error)
        if not self._ordered:
            self._ended.append(entry)
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --------------------------------------------------------------------------------------------------------- leaving

    def leave(self) -> asyncio.Task[None] | None:
        """Read no more, and cancel what was submitted and has not ended. None: there is nothing to do, or nothing that could do it."""
        if self._left:
            return None
        self._left = self._over = True
        if self._reading is not None:
            self._reading.cancel()
        left = [entry.mapped.handle for entry in self._out.values() if not entry.ended]
        self._out.clear()
        self._ended.clear()
        try:
            return self._start(partial(_cancel, left)) if left else None
        except CabrankError:
            return None  # it is being stopped: what was submitted ends as all that runs there


async def _cancel(handles: Sequence[JobHandle[Any]]) -> None:
    for handle in handles:
        try:
            await handle.cancel()
        except CabrankError:
            return  # the store is away or closed: what was submitted runs, as whatever else was


def some(source: Iterator[T], most: int) -> Read[T]:
    """At most so many items, and what the iterator raised behind them."""
    items: list[T] = []
    try:
        for item in islice(source, most):
            items.append(item)  # noqa: PERF402 -- what came before an error must not be lost
    except Exception as error:  # noqa: BLE001 -- it is raised when what came before it is submitted
        return items, error
    return items, None


class _Here(Elsewhere[T]):
    """They are read in the loop, after all."""

    def __init__(self, items: Iterable[T]) -> None:
        self._source = iter(items)

    async def some(self, most: int) -> Read[T]:
        return some(self._source, most)


class Results(AsyncIterator[R], Generic[T, R]):
    """What a map gives: an async iterator over results.

    An item whose job failed raises there what `JobHandle.result` raises; iterating on afterwards goes on with the next item, and
    `each` does not raise at all. Leaving early (`break`, an exception, `aclose`) cancels what was submitted and has not ended: waiting
    jobs do not run, running ones are asked to stop. One consumer at a time.
    """

    def __init__(self, feed: Feed[T, R]) -> None:
        self._feed = feed
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        """The next result.

        Raises:
            What `JobHandle.result` raises for this item. What reading or submitting the items raised, once, behind all results.
        """
        return await (await self._next()).result()

    async def each(self) -> AsyncGenerator[Mapped[T, R]]:
        """The items whose jobs have ended, with or without a result: nothing is raised for one before its `result()` is asked for."""
        while True:
            try:
                yield await self._next()
            except StopAsyncIteration:
                return

    async def aclose(self) -> None:
        """Submit nothing more and cancel what has not ended."""
        leaving = self._feed.leave()
        if leaving is not None:
            await asyncio.wait([leaving])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _next(self) -> Mapped[T, R]:
        if self._finalizer is None:
            self._finalizer = finalizer = weakref.finalize(self, _dropped, self._feed, asyncio.get_running_loop())
            finalizer.atexit = False
        mapped = await self._feed.take()
        if mapped is None:
            raise StopAsyncIteration
        return mapped


def _dropped(feed: Feed[Any, Any], loop: asyncio.AbstractEventLoop) -> None:
    """Nobody iterates any more: `break` tells nobody, so this is called when the iterator is forgotten, in whichever thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(feed.leave)


async def as_completed(handles: Iterable[JobHandle[R]]) -> AsyncGenerator[JobHandle[R]]:
    """The handles in the order in which their jobs end; `await handle.result()` then does not wait.

    Handles of several dispatchers may be mixed. A job that has no outcome here (held, gone, unknown, its dispatcher stopped) comes
    too, and its `result()` says why. Leaving early cancels nothing. Cost: a future for each job that has not ended; one look into
    the store for each thousand handles that `submit_many` or `handle(id)` made.
    """
    waiting: dict[asyncio.Future[Settlement], JobHandle[R]] = {}
    ended: deque[JobHandle[R]] = deque()
    news = asyncio.Event()

    def has_ended(future: asyncio.Future[Settlement]) -> None:
        handle = waiting.pop(future, None)
        if handle is not None:
            if not future.cancelled() and future.exception() is None:
                handle.learn(future.result())
            ended.append(handle)
            news.set()

    for handle in handles:
        if handle.settled:
            ended.append(handle)
        else:
            future = handle.expect()
            waiting[future] = handle
            future.add_done_callback(has_ended)
    try:
        for owner, its in _by_owner(waiting.values()):
            await owner.ask(its)
        while ended or waiting:
            while ended:
                yield ended.popleft()
            if waiting:
                news.clear()
                await news.wait()
    finally:
        for future in tuple(waiting):
            future.cancel()


def _by_owner(handles: Iterable[JobHandle[Any]]) -> Iterable[tuple[Handles, list[int]]]:
    found: dict[int, tuple[Handles, list[int]]] = {}
    for handle in handles:
        found.setdefault(id(handle.owner), (handle.owner, []))[1].append(handle.number)
    return found.values()
