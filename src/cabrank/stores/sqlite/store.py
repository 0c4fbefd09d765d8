"""The store as the dispatcher sees it: every call goes to a thread that owns a connection, and comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from random import Random

import apsw

from cabrank.clock import Clock
from cabrank.errors import NotEntered, StoreUnusable, UsedAfterFork
from cabrank.job import Settlement
from cabrank.settings import STORE_BOUND
from cabrank.stores.contract import BROWSED, Capabilities, JobFilter, JobRecord, Page, Submission, Tally, Terms, Turn, Want
from cabrank.stores.sqlite.inspector import Reader
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.writer import Writer

ARRIVAL_POLL_S = 0.02  # how often other processes' commits are looked for while nothing else happens: a read of 10 µs
CAPABILITIES = Capabilities(
    durable=True, shared=True, judges_room=False, bound=STORE_BOUND, promise="committed and fsynced: survives kill -9 and power loss"
)


class SqliteStore:
    """See `Store` and `Inspector`. WAL, `synchronous = full`, one writing connection in a thread of its own, one that reads."""

    def __init__(self, path: str | os.PathLike[str], clock: Clock, rng: Random | None = None) -> None:
        self.path = Path(path)
        self._clock = clock
        self._rng = rng or Random()
        self._writer: Writer | None = None
        self._questions: Writer | None = None
        self._ledger: Ledger | None = None
        self._reader: Reader | None = None
        self._pid = 0
        self._seen = 0  # the file's version when something last arrived

    @property
    def capabilities(self) -> Capabilities:
        """Fixed."""
        return CAPABILITIES

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
        self._pid = os.getpid()
        self._writer = Writer("cabrank-writer", between=self._renew, every_s=terms.settings.renew_s, now=self._clock.monotonic)
        self._questions = Writer("cabrank-reader", between=lambda: None, every_s=3_600.0, now=self._clock.monotonic)
        try:
            self._ledger = await self._writer.call(lambda: Ledger(self.path, self._clock, terms, self._rng))
            self._reader = await self._questions.call(lambda: Reader(self.path))
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
        await _end(questions, reader)
        await _end(writer, ledger)

    async def take_ids(self) -> int:
        """A block of ids."""
        return await self._write().call(self._opened().take_ids)

    def take_room(self, queue: str, jobs: int, size: int) -> bool:
        """Only a turn can judge that: others fill the file too."""
        del queue, jobs, size
        return False

    async def turn(self, number: int, *, new: Sequence[Submission], settlements: Sequence[Settlement], want: Mapping[str, Want]) -> Turn:
        """See `Store.turn`."""
        ledger = self._opened()
        return await self._write().call(lambda: ledger.turn(number, new, settlements, want))

    async def arrival(self) -> None:
        """Wait until another connection has committed, since the last call returned."""
        while True:
            questions = self._ask()
            await self._clock.sleep(ARRIVAL_POLL_S)
            version = await questions.call(self._reading().version)
            if version != self._seen:
                self._seen = version
                return

    async def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """See `Inspector.find`."""
        reader = self._reading()
        return await self._ask().call(lambda: reader.find(ids))

    async def browse(self, which: JobFilter, *, after: int = 0, limit: int = BROWSED) -> Page:
        """See `Inspector.browse`."""
        reader = self._reading()
        return await self._ask().call(lambda: reader.browse(which, after, limit))

    async def tally(self) -> Mapping[str, Tally]:
        """See `Inspector.tally`."""
        return await self._ask().call(self._reading().tally)

    async def cancel(self, id: int) -> bool:
        """See `Inspector.cancel`."""
        ledger = self._opened()
        return bool(await self._write().call(lambda: ledger.change("cancel", id)))

    async def reopen(self, id: int) -> bool:
        """See `Inspector.reopen`."""
        ledger = self._opened()
        return bool(await self._write().call(lambda: ledger.change("reopen", id)))

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

    def _write(self) -> Writer:
        return self._usable(self._writer)

    def _ask(self) -> Writer:
        return self._usable(self._questions)

    def _usable(self, writer: Writer | None) -> Writer:
        if writer is None:
            raise NotEntered("the store is not open")
        if self._pid != os.getpid():
            raise UsedAfterFork
        return writer


async def _end(writer: Writer | None, owned: Ledger | Reader | None) -> None:
    """Close what the thread owns, and end the thread."""
    if writer is None:
        return
    try:
        if owned is not None:
            await writer.call(owned.close)
    finally:
        writer.stop()
        await asyncio.to_thread(writer.join)
