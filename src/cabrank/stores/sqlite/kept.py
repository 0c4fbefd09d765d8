"""Finished jobs that can still be asked for: one compact row a turn, their ids as packed 64-bit numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

import apsw
import msgspec

from cabrank.job import Settlement
from cabrank.settings import Settings
from cabrank.stores.contract import Returned
from cabrank.stores.sqlite import statements as sql

_id = attrgetter("id")
_Results = list[tuple[int, int, msgspec.Raw]]  # id, run, result


def add(connection: apsw.Connection, settlements: Sequence[Settlement], returned: Returned, now: float) -> None:
    """Keep what returned in one turn: with a result, if there was one, and None."""
    ids = array("q", chain(map(_id, settlements), *returned.values()))
    results = [(s.id, s.run, msgspec.Raw(s.result)) for s in settlements if s.result is not None]
    packed = msgspec.json.encode(results) if results else None
    connection.execute(
        sql.KEEP_DONE,
        (now, min(ids), max(ids), len(ids), ids.tobytes(), packed, len(packed or b"")),
    )


def find(connection: apsw.Connection, id: int) -> tuple[float, int, bytes | None] | None:
    """When a job finished, in which run (0 where that is not kept), and its result; None if it is not kept."""
    candidates = connection.execute(sql.FIND_DONE, (id,))
    for at, packed, results in candidates:
        if id in array("q", packed):
            decoded = msgspec.json.decode(results, type=_Results) if results else []
            return next(((at, run, bytes(raw)) for number, run, raw in decoded if number == id), (at, 0, None))
    return None


def prune(connection: apsw.Connection, settings: Settings, now: float) -> None:
    """Forget the oldest beyond the bounds of age, number and bytes."""
    connection.execute(sql.OLD_DONE, (now - settings.keep_done_s,))
    connection.execute(sql.EXCESS_DONE, (settings.keep_done_jobs, settings.keep_done_bytes))
