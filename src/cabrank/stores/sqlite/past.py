"""What runs leave behind in the file beside their settlements: the errors of those that failed, how far those are that run now."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import apsw
import msgspec

from cabrank.job import FAILED_RUNS, FailedRun, Progress, Settlement
from cabrank.states import CRASHES, FAILURES
from cabrank.stores.sqlite import packed
from cabrank.stores.sqlite import past_statements as sql

FAILED = FAILURES | CRASHES


def fail(connection: apsw.Connection, settlements: Sequence[Settlement], now: float) -> None:
    """Keep the errors of runs that failed."""
    failed = [s for s in settlements if s.cause in FAILED]
    if failed:
        connection.execute(sql.FAIL, (now, packed.rows([(s.id, s.run, s.error_type, s.error) for s in failed])))
        many = [s.id for s in failed if s.run > FAILED_RUNS]
        if many:
            connection.execute(sql.TRIM, (packed.ids(many),))


def crash(connection: apsw.Connection, holder: int, now: float) -> None:
    """Keep that the process died under all that a holder ran."""
    connection.execute(sql.CRASH, (now, holder))
    connection.execute(sql.TRIM_CRASHED, (holder,))


def failed_runs(connection: apsw.Connection, ids: Collection[int]) -> dict[int, list[FailedRun]]:
    """The failed runs of jobs, as they are kept of those that returned in the end."""
    found = connection.execute(sql.FAILED_RUNS_OF, (packed.ids(ids),)).get
    return dict(msgspec.json.decode(str(found), type=list[tuple[int, list[FailedRun]]]))


def forget(connection: apsw.Connection, ids: Collection[int]) -> None:
    """Forget the errors of jobs that are no more."""
    connection.execute(sql.FORGET_FAILURES, (packed.ids(ids),))


def forget_purged(connection: apsw.Connection, ids: Collection[int]) -> None:
    """Forget the errors of those of these jobs that are no more."""
    connection.execute(sql.FORGET_PURGED_FAILURES, (packed.ids(ids),))


def tell(connection: apsw.Connection, progress: Sequence[Progress]) -> None:
    """Keep how far runs are; of those that are over it is dropped."""
    connection.execute(sql.PROGRESS, (packed.rows(progress),))


def forget_progress(connection: apsw.Connection, ids: Collection[int]) -> None:
    """These do not run any more."""
    connection.execute(sql.FORGET_PROGRESS, (packed.ids(ids),))
