"""The last ticks of schedules in the file: a row for each schedule."""

from __future__ import annotations

import apsw

from cabrank.stores.contract import AHEAD_S, Admission, Submission, Tick, Verdict

REPEATED = Admission(Verdict.REPEATED)

# (name, spec, now, the latest that a tick may be)
_KNOW = """
insert into schedule (name, spec, tick_at) values (?1, ?2, ?3)
on conflict (name) do update set spec = ?2, tick_at = ?3 where spec <> ?2 or tick_at > ?4
"""
_LAST = "select tick_at from schedule where name = ?"
_TAKE = """
insert into schedule (name, spec, tick_at) values (?, '', ?) on conflict (name) do update set tick_at = excluded.tick_at
"""


def last(connection: apsw.Connection, schedule: str, spec: str, now: float) -> float:
    """See `Store.last_tick`."""
    connection.execute(_KNOW, (schedule, spec, now, now + AHEAD_S))
    return float(str(connection.execute(_LAST, (schedule,)).get))


def repeated(connection: apsw.Connection, tick: Tick) -> Admission | None:
    """The answer to a tick that came before."""
    found = connection.execute(_LAST, (tick.schedule,)).get
    return REPEATED if found is not None and tick.at <= float(str(found)) else None


def take(connection: apsw.Connection, submission: Submission, admission: Admission) -> None:
    """Remember a tick that is not refused."""
    tick = submission.tick
    if tick is not None and admission.verdict in {Verdict.STORED, Verdict.UNIQUE}:
        connection.execute(_TAKE, (tick.schedule, tick.at))
