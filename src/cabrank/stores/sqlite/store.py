"""The store as the dispatcher sees it: every call goes to a thread that owns a connection, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import TypeVar

import apsw
import msgspec

from cabrank.clock import Clock
from cabrank.errors import NotEntered, StoreUnavailable, StoreUnusable, UsedAfterFork
from cabrank.job import LAST_PRIORITY, Progress, Settlement
from cabrank.settings import STORE_BOUND, Durability
from cabrank.stores.contract import (
    BROWSED,
    NOTHING_RETURNED,
    REOPENED,
    Arrival,
    Capabilities,
    JobFilter,
    JobRecord,
    Page,
    Reopening,
    Returned,
    Standing,
    Submission,
    Tally,
    Terms,
    Turn,
    Want,
)
from cabrank.stores.sqlite.bell import Bell, Bells, Rings, ended, together
from cabrank.stores.sqlite.forks import check
from cabrank.stores.sqlite.inspector import Reader
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.locks import WAIT_S
from cabrank.stores.sqlite.people import Change
from cabrank.stores.sqlite.release import warn_of_reset_bug
from cabrank.stores.sqlite.schema import FOREIGN
from cabrank.stores.sqlite.settle import Ended
from cabrank.stores.sqlite.switching import switching
from cabrank.stores.sqlite.writer import Doer, Doers, Writer

T = TypeVar("T")
Connected = TypeVar("Connected", Ledger, Reader)
_replaced = attrgetter("replaced")

POLL_S = 0.25  # how often other processes' commits are looked for, in case a datagram was lost: a read of 10 µs
DEAF_POLL_S = 0.02  # the same where there are no datagrams
HANGS = 3  # tries to put a socket into the folder that the last of the others may be about to remove
CLOSE_S = 5.0  # how long a close waits for a stopped process or a dead disk
NOTHING = Arrival(work=False, cancelled=False, ended=())
CAPABILITIES = Capabilities(
    durable=True,
    shared=True,
    judges_room=False,
    bound=STORE_BOUND,
    durability=Durability.DISK,
    promise="committed and fsynced: survives kill -9 and power loss",
)
OF_PROCESS = msgspec.structs.replace(
    CAPABILITIES,
    durability=Durability.PROCESS,
    promise="committed, and not fsynced yet: survives kill -9, but not always power loss",
)


class SqliteStore:
    """See `Store` and `Inspector`. WAL, one writing connection in a thread of its own, one that reads.

    `synchronous` is `full`, or `normal` where the setting `durability` is `process`. `doers` and `bells` stand for the threads and
    the sockets: another way of both is for tests that own the time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Clock,
        rng: Random | None = None,
        *,
        doers: Doers = Writer,
        bells: Bells = Bell,
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._rng = rng or Random()
        self._doers = doers
        self._bells = bells
        self._writer: Doer | None = None
        self._questions: Doer | None = None
        self._ledger: Ledger | None = None
        self._reader: Reader | None = None
        self._pid = 0
        self._bell: Rings | None = None
        self._came = NOTHING
        self._capabilities = CAPABILITIES
        self._arrived = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hastened_s: float | None = None

    @property
    def capabilities(self) -> Capabilities:
        """As its settings say once it is open."""
        return self._capabilities

    @property
    def prefix(self) -> str:
        """The random part of text ids."""
        return self._opened().prefix

    async def open(self, terms: Terms) -> None:
        """Open or make the file and become a holder."""
        if not hasattr(apsw, "carray"):
            raise StoreUnusable("this build of apsw has no carray: install the wheel with `pip install --force-reinstall apsw`")
        if not self.path.absolute().parent.is_dir():
            raise StoreUnusable(f"{self.path}: there is no folder {self.path.absolute().parent}: make it first")
        check(self.path)
        warn_of_reset_bug()
        self._capabilities = OF_PROCESS if terms.settings.durability is Durability.PROCESS else CAPABILITIES
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._hastened_s = terms.settings.switch_s
        switching.hasten(self._hastened_s)
        self._writer = self._doers("cabrank-writer", between=self._renew, every_s=terms.settings.renew_s, now=self._clock.monotonic)
        try:
            self._ledger = await _owned(self._writer, self.path, lambda: Ledger(self.path, self._clock, terms, self._rng))
            self._bell = await self._hang_bell(self._ledger)
            poll_s = DEAF_POLL_S if self._bell is None else POLL_S
            self._questions = self._doers("cabrank-reader", between=self._poll, every_s=poll_s, now=self._clock.monotonic)
            self._reader = await _owned(self._questions, self.path, lambda: Reader(self.path))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give back what is held and close the file."""
        if self._pid != os.getpid():
            return
        questions, self._questions = self._questions, None
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        ledger, self._ledger = self._ledger, None  # before it is closed: from here nothing renews it
        bell, self._bell = self._bell, None
        hastened_s, self._hastened_s = self._hastened_s, None
        try:
            await _end(questions, reader)
            await _end(writer, ledger)
        finally:  # a damaged file may let nothing be given back
            if bell is not None:
                bell.ring(Arrival())  # what was given back is for others
                bell.close()
            if hastened_s is not None:
                switching.relent(hastened_s)

    async def take_ids(self) -> int:
        """A block of ids."""
        return await self._do(self._opened().take_ids)

    async def last_tick(self, schedule: str, spec: str) -> float:
        """See `Store.last_tick`."""
        ledger = self._opened()
        return await self._do(lambda: ledger.last_tick(schedule, spec))

    def room(self, queue: str) -> None:
        """Only a turn can judge that: others fill the file too."""
        del queue

    async def turn(
        self,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned = NOTHING_RETURNED,
        progress: Sequence[Progress] = (),
    ) -> Turn:
        """See `Store.turn`."""
        ledger = self._opened()
        came = Ended(settlements, returned, progress)
        turn, news = await self._do(lambda: (ledger.turn(number, new, came, want), ledger.news))
        gone = turn.dropped or any(map(_replaced, turn.admitted))
        if self._bell is not None and (came or news.work or gone) and not self._bell.alone:
            self._bell.ring(msgspec.structs.replace(news, ended=news.ended if news.ended is None else ended(came, turn)))
        return turn

    async def arrival(self) -> Arrival:
        """Wait until another process rings, or a look at the file finds that one has committed."""
        self._ask()
        await self._arrived.wait()
        self._ask()
        self._arrived.clear()
        came, self._came = self._came, NOTHING
        return came

    async def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """See `Inspector.find`."""
        return await self._look(lambda reader: reader.find(ids))

    async def browse(self, which: JobFilter, *, after: int = 0, limit: int = BROWSED) -> Page:
        """See `Inspector.browse`."""
        return await self._look(lambda reader: reader.browse(which, after, limit))

    async def tally(self) -> Mapping[str, Tally]:
        """See `Inspector.tally`."""
        return await self._look(lambda reader: reader.tally())

    async def ready(self, queue: str, most: int, *, priority: int = LAST_PRIORITY) -> int:
        """See `Inspector.ready`."""
        now = self._clock.now()
        return await self._look(lambda reader: reader.ready(queue, most, now, priority))

    async def standing(self, id: int) -> Standing | None:
        """See `Inspector.standing`."""
        return await self._look(lambda reader: reader.standing(id, self._clock.monotonic()))

    async def cancel(self, id: int) -> bool:
        """See `Inspector.cancel`."""
        cancelled = await self._change(lambda change: change.cancel(id))
        if cancelled:
            self._tell_all(Arrival(work=True, cancelled=True, ended=(id,)))
        return cancelled

    async def reopen(self, id: int) -> bool:
        """See `Inspector.reopen`."""
        reopened = await self._change(lambda change: change.reopen(id))
        if reopened:
            self._tell_all(Arrival(work=True, cancelled=False, ended=()))
        return reopened

    async def reopen_all(self, which: JobFilter, *, after: int = 0, limit: int = REOPENED) -> Reopening:
        """See `Inspector.reopen_all`."""
        became = await self._change(lambda change: change.reopen_all(which, after, limit))
        if became.reopened:
            self._tell_all(Arrival(work=True, cancelled=False, ended=()))
        return became

    async def purge(self, ids: Collection[int]) -> int:
        """See `Inspector.purge`."""
        ledger = self._opened()
        return await self._do(lambda: ledger.purge(ids)) if ids else 0

    async def handlers(self) -> Collection[str]:
        """See `Inspector.handlers`."""
        return await self._look(lambda reader: reader.handlers())

    async def pause(self, queue: str) -> None:
        """See `Inspector.pause`."""
        ledger = self._opened()
        await self._do(lambda: ledger.pause(queue, True))
        self._tell_all()

    async def resume(self, queue: str) -> None:
        """See `Inspector.resume`."""
        ledger = self._opened()
        await self._do(lambda: ledger.pause(queue, False))
        self._tell_all()

    def _tell_all(self, news: Arrival | None = None) -> None:
        if self._bell is not None:
            self._bell.ring(news or Arrival())

    async def _change(self, work: Callable[[Change], T]) -> T:
        ledger = self._opened()
        return await self._do(lambda: ledger.change(work))

    async def _look(self, work: Callable[[Reader], T]) -> T:
        """Have the reader answer something; what keeps it from reading may be over soon."""
        reader = self._reading()
        try:
            return await self._ask().call(lambda: work(reader))
        except FOREIGN as error:
            raise StoreUnavailable(f"{self.path} cannot be read now: {error}") from error

    async def _do(self, work: Callable[[], T]) -> T:
        """Have the writer do something; a stopped process or a dead disk may keep it from that."""
        ledger = self._opened()

        def why() -> Exception:
            if ledger.waits_for_another:
                return StoreUnavailable(f"{self.path}: another process has held the turn for more than {WAIT_S:g} s: is it stopped?")
            return StoreUnavailable(f"{self.path}: the disk has not answered for more than {WAIT_S:g} s")

        return await self._write().call(work, within_s=WAIT_S, why=why)

    async def _hang_bell(self, ledger: Ledger) -> Rings | None:
        """The socket by which others wake this process; None if it cannot be had, and then the file is looked at more often."""
        for _ in range(HANGS):
            if not ledger.bell_folder:
                return None
            try:
                return self._bells(ledger.bell_folder, self._rng, self._heard)
            except OSError:  # the last of the others has closed just now, and taken the folder with it
                await self._do(ledger.agree_on_folder)
        return None

    def _heard(self, arrival: Arrival) -> None:
        self._came = together(self._came, arrival)
        self._arrived.set()

    def _poll(self) -> None:
        """In the reader's thread: see what no datagram told."""
        if self._loop is not None and self._reader is not None and self._reader.anything_new():
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._heard, Arrival())

    def _renew(self) -> None:
        if self._ledger is not None:
            self._ledger.renew()

    def _opened(self) -> Ledger:
        if self._ledger is None:
            raise NotEntered("the store is not open")
        return self._ledger

    def _reading(self) -> Reader:
        if self._reader is None:
            raise NotEntered("the store is not open")
        return self._reader

    def _write(self) -> Doer:
        return self._usable(self._writer)

    def _ask(self) -> Doer:
        return self._usable(self._questions)

    def _usable(self, writer: Doer | None) -> Doer:
        if writer is None:
            raise NotEntered("the store is not open")
        if self._pid != os.getpid():
            raise UsedAfterFork
        return writer


async def _owned(doer: Doer, path: Path, make: Callable[[], Connected]) -> Connected:
    """What `make` opens at `path`. Whoever does it owns it, and closes it before the process forks."""
    made: list[Connected] = []

    def rest() -> None:
        for one in made:
            one.rest()

    def keep() -> Connected:
        made.append(make())
        return made[0]

    doer.own(path, rest)  # first: a fork may come in the midst of the opening
    return await doer.call(keep)


async def _end(writer: Doer | None, owned: Ledger | Reader | None) -> None:
    """Close what the thread owns, and end the thread. One that hangs behind a stopped process or a dead disk is left behind."""
    if writer is None:
        return
    try:
        if owned is not None:
            await writer.call(owned.close, within_s=CLOSE_S)
    except TimeoutError:
        pass  # its leases come back when its process ends, or when they run out
    finally:
        await writer.end(within_s=CLOSE_S)
