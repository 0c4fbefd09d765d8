"""What is kept for a while is cut to its bounds. It looks at every receipt, so it is done now and then and not at each sweep."""

from __future__ import annotations

import apsw

from cabrank.settings import Settings
from cabrank.stores.sqlite import kept, overflow
from cabrank.stores.sqlite import past_statements as past_sql
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.lines import Lines


def prune(connection: apsw.Connection, lines: Lines, settings: Settings, now: float) -> int:
    """Forget what is too old or too much; how many rows were changed."""
    before = connection.total_changes()
    kept.prune(connection, settings, now)
    overflow.prune(connection, settings)
    connection.execute(sql.OLD_RECEIPTS, (now,))
    connection.execute(sql.EXCESS_RECEIPTS, (settings.receipts,))
    connection.execute(past_sql.OLD_FAILURES, (now - settings.keep_dead_s,))
    connection.execute(sql.OLD_SHELVED, (now - settings.keep_dead_s,))
    connection.execute(sql.OLD_NOTES, (now - settings.keep_dead_s,))
    lines.prune()
    return connection.total_changes() - before
