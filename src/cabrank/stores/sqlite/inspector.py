"""What people and servers ask of the file, over a connection that only reads."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import apsw

from cabrank.policy import Limit
from cabrank.stores.contract import JobFilter, JobRecord, Page, Standing, Tally
from cabrank.stores.sqlite import block_statements as block_sql
from cabrank.stores.sqlite import kept, packed
from cabrank.stores.sqlite import limit_statements as limit_sql
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.browse import browse, record_of
from cabrank.stores.sqlite.holders import folder_of, run_by_living
from cabrank.stores.sqlite.schema import FOREIGN, open_reader


class Reader:
    """Answers questions. Each is one short read, so that the log of changes can be folded back into the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: apsw.Connection | None = open_reader(path)
        self._folder = folder_of(path)
        self._seen = 0

    @property
    def _connection(self) -> apsw.Connection:
        if self._open is None:
            self._open = open_reader(self._path)
        return self._open

    def rest(self) -> None:
        """Close the connection until something is asked again."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """See `Inspector.find`."""
        if not ids:
            return {}
        records: dict[int, JobRecord] = {}
        for statement in (block_sql.FIND_IN_BLOCKS, sql.FIND):  # in this order: a job may leave its block meanwhile, and never enters one
            rows: list[Any] = self._connection.execute(statement, (packed.ids([id for id in ids if id not in records]),)).fetchall()
            records.update({row[0]: record_of(*row) for row in rows})
            if len(records) == len(ids):
                return records
        return records | kept.find(self._connection, [id for id in ids if id not in records])

    def browse(self, which: JobFilter, after: int, limit: int) -> Page:
        """See `Inspector.browse`."""
        return browse(self._connection, which, after, limit)

    def tally(self) -> Mapping[str, Tally]:
        """See `Inspector.tally`."""
        rows: list[Any] = self._connection.execute(sql.TALLY).fetchall()
        return {
            name: Tally(waiting=waiting, waiting_bytes=size, running=running, dead=dead, held=held, paused=bool(paused))
            for name, waiting, size, paused, running, dead, held in rows
        }

    def ready(self, queue: str, most: int, now: float, priority: int) -> int:
        """See `Inspector.ready`."""
        return int(str(self._connection.execute(sql.COUNT_READY, (queue, most, now, priority)).get))

    def handlers(self) -> Collection[str]:
        """See `Inspector.handlers`."""
        return run_by_living(self._folder)

    def standing(self, id: int, now: float) -> Standing | None:
        """See `Inspector.standing`. `now` is a moment of the monotonic clock."""
        row: Any = self._connection.execute(limit_sql.STANDING, (id,)).get
        if row is None:
            return None
        handler, key, full_at, running, most, per_s, burst = row
        limit = Limit(running=most, per_s=per_s, burst=burst)
        next_s = max(0.0, limit.next_at(full_at=full_at, now=now) - now)
        return Standing(handler=handler, key=key, limit=limit, running=running, next_s=next_s)

    def anything_new(self) -> bool:
        """Whether another connection has committed since the last call. If that cannot be read now, the next call says it."""
        seen = self._seen
        with contextlib.suppress(*FOREIGN):  # else it would end the thread that asks
            self._seen = int(str(self._connection.execute("pragma data_version").get))
        return seen != self._seen
