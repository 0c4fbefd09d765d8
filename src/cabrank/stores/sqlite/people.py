"""What people do with jobs in the file, each in one transaction of the writer."""

from __future__ import annotations

from typing import Any

import apsw

from cabrank.errors import UniqueTaken
from cabrank.job import text_id
from cabrank.states import TRANSITIONS, Cause
from cabrank.stores.contract import JobFilter, Reopening
from cabrank.stores.sqlite import past_statements as past_sql
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.blocks import part_of
from cabrank.stores.sqlite.browse import browse
from cabrank.stores.sqlite.lines import Lines


class Change:
    """Changes over one connection at one moment."""

    def __init__(self, connection: apsw.Connection, lines: Lines, prefix: str, now: float) -> None:
        self._connection = connection
        self._lines = lines
        self._prefix = prefix
        self._now = now

    def cancel(self, id: int) -> bool:
        """See `Inspector.cancel`."""
        part_of(self._connection, id)
        self._connection.execute(sql.COUNT_OUT, (id,))
        self._connection.execute(sql.CANCEL_WAITING, (id,))
        if self._connection.changes():
            self._connection.execute(sql.NOTE, (id, self._now))
            return True
        self._connection.execute(sql.CANCEL_RUNNING, (id, self._now))
        return bool(self._connection.execute(sql.IS_RUNNING, (id,)).get)

    def reopen(self, id: int) -> bool:
        """See `Inspector.reopen`."""
        taken: Any = self._connection.execute(past_sql.TAKEN, (id,)).get
        if taken is not None:
            raise UniqueTaken(text_id(self._prefix, id), taken[0], text_id(self._prefix, taken[1]))
        self._connection.execute(sql.COUNT_IN, (id,))
        self._connection.execute(sql.REOPEN, (id, self._now))
        reopened = self._connection.changes()
        self._lines.reopen(id)
        if reopened:
            self._connection.execute(sql.FORGET_NOTE, (id,))
        return bool(reopened)

    def reopen_all(self, which: JobFilter, after: int, limit: int) -> Reopening:
        """See `Inspector.reopen_all`."""
        page = browse(self._connection, which, after, limit)
        reopened, taken = 0, list[int]()
        for record in page.records:
            if (record.state, Cause.REOPENED) in TRANSITIONS:
                try:
                    reopened += self.reopen(record.id)
                except UniqueTaken:
                    taken.append(record.id)
        return Reopening(reopened=reopened, taken=taken, after=page.after)
