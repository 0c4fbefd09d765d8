"""SQLite files for tests, with holders that end as processes do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from pathlib import Path
from random import Random

import apsw

from cabrank.clock import Clock
from cabrank.settings import Settings
from cabrank.stores import open_url
from cabrank.stores.contract import InspectedStore, Terms
from cabrank.stores.sqlite import SqliteStore
from cabrank.stores.sqlite.bell import Bell
from cabrank.stores.sqlite.writer import Doers

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})


class Files:
    """Holders of one file, all in this process: a lock counts between two of them as between two processes."""

    def __init__(self, folder: Path, clock: Clock, doers: Doers | None = None) -> None:
        self.path = folder / "jobs.db"
        self._clock = clock
        self._doers = doers

    def another(self) -> SqliteStore:
        if self._doers is not None:
            return SqliteStore(self.path, self._clock, Random(1), doers=self._doers)
        store = open_url(f"sqlite:///{self.path}", self._clock, Random(1))
        assert isinstance(store, SqliteStore)
        return store

    async def kill(self, store: InspectedStore) -> None:
        """Do what the kernel does when the process is gone: close its files, and with them its locks."""
        assert isinstance(store, SqliteStore)
        ledger, reader, writer, questions = store._ledger, store._reader, store._writer, store._questions
        assert ledger
        assert reader
        assert writer
        assert questions
        store._ledger = store._reader = store._writer = store._questions = None
        bell, store._bell = store._bell, None
        if isinstance(bell, Bell):
            asyncio.get_running_loop().remove_reader(bell._socket)
            bell._socket.close()
        assert ledger._holders._life
        ledger._holders._life.close()
        ledger._lock.close()
        await writer.call(ledger._connection.close)
        await questions.call(reader.close)
        for doer in (writer, questions):
            await doer.end(within_s=5.0)

    async def expire(self, store: InspectedStore) -> None:
        assert isinstance(store, SqliteStore)
        assert store._ledger
        with self.outside() as connection:
            connection.execute("update holder set expires_at = 0 where id = ?", (store._ledger._holders.id,))

    @contextlib.contextmanager
    def outside(self) -> Generator[apsw.Connection]:
        """Somebody else's connection to the file."""
        with contextlib.closing(apsw.Connection(str(self.path))) as connection:
            connection.set_busy_timeout(5_000)
            yield connection
