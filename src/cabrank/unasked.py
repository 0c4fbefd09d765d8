"""Failures of jobs for whose result nobody asks are said in the log, each once, when it is certain that nobody will."""

from __future__ import annotations

import weakref
from bisect import bisect_right

from cabrank.events import logger
from cabrank.job import Settlement

MOST = 20  # lines between two calls of `sum_up`: where all fail, one cause shows in the first of them


class Unasked:
    """A failure waits here as long as something lives that its result can be asked of; where nothing does, it is said at once.

    The log of the process that ran the job says it. Nothing is kept, and nothing is done, for jobs that do not fail.
    """

    def __init__(self) -> None:
        self._kept: dict[int, weakref.finalize[..., object]] = {}
        self._firsts: list[int] = []  # of the ranges of bulk submits, ascending
        self._bulks: list[tuple[range, weakref.ref[object]]] = []
        self._said = 0
        self._unsaid = 0

    def bulk(self, ids: range, handles: object) -> None:
        """Results of these jobs can be asked of `handles` as long as that lives."""
        at = bisect_right(self._firsts, ids.start)
        self._firsts.insert(at, ids.start)
        self._bulks.insert(at, (ids, weakref.ref(handles)))

    def failed(self, id: str, settlement: Settlement, handle: object, *, awaited: bool) -> None:
        """A job failed. `handle` is the one of it that lives, if one does; `awaited`: somebody waits for its result now."""
        holder = handle or self._bulk_of(settlement.id)
        if holder is not None:
            self._kept[settlement.id] = weakref.finalize(holder, self._drop, id, settlement)
        elif not awaited:
            self._say(id, settlement)

    def asked(self, number: int) -> None:
        """Somebody has asked for the result of a job that failed."""
        kept = self._kept.pop(number, None)
        if kept is not None:
            kept.detach()

    def sum_up(self) -> None:
        """Say how many were not said one by one since the last call; forget what is no more."""
        if self._unsaid:
            logger.error("%d more jobs are dead for whose results nobody has asked", self._unsaid)
        self._said = self._unsaid = 0
        self._bulks = [(ids, handles) for ids, handles in self._bulks if handles() is not None]
        self._firsts = [ids.start for ids, _ in self._bulks]

    def _bulk_of(self, number: int) -> object:
        at = bisect_right(self._firsts, number) - 1
        return self._bulks[at][1]() if at >= 0 and number in self._bulks[at][0] else None

    def _drop(self, id: str, settlement: Settlement) -> None:
        self._kept.pop(settlement.id, None)
        self._say(id, settlement)

    def _say(self, id: str, settlement: Settlement) -> None:
        if self._said >= MOST:
            self._unsaid += 1
            return
        self._said += 1
        failure = settlement.failure
        last = settlement.error.strip().rsplit("\n", 1)[-1]
        logger.error("job %s is dead (%s), and nobody has asked for its result: %s", id, settlement.reason, last, exc_info=failure)
