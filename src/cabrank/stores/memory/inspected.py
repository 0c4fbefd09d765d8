"""What people and servers ask of a store in memory, as `Inspector` has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cabrank.job import LAST_PRIORITY
from cabrank.policy import Limit
from cabrank.stores.contract import BROWSED, REOPENED, JobFilter, JobRecord, Page, Reopening, Standing, Tally
from cabrank.stores.memory import inspector
from cabrank.stores.memory.ledger import Ledger


class Inspected:
    """Answers out of one ledger."""

    ledger: Ledger
    _limits: Mapping[str, Limit]

    async def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """See `Inspector.find`."""
        return inspector.find(self.ledger, ids)

    async def browse(self, which: JobFilter, *, after: int = 0, limit: int = BROWSED) -> Page:
        """See `Inspector.browse`."""
        return inspector.browse(self.ledger, which, after, limit)

    async def tally(self) -> Mapping[str, Tally]:
        """See `Inspector.tally`."""
        return inspector.tally(self.ledger)

    async def ready(self, queue: str, most: int, *, priority: int = LAST_PRIORITY) -> int:
        """See `Inspector.ready`. Jobs that were cancelled and still stand in line are counted too."""
        line, now = self.ledger.line(queue), self.ledger.clock.now()
        line.promote(now)
        return min(most, line.ready(priority))

    async def standing(self, id: int) -> Standing | None:
        """See `Inspector.standing`."""
        return inspector.standing(self.ledger, id, self._limits)

    async def cancel(self, id: int) -> bool:
        """See `Inspector.cancel`."""
        return inspector.cancel(self.ledger, id)

    async def reopen(self, id: int) -> bool:
        """See `Inspector.reopen`."""
        return inspector.reopen(self.ledger, id)

    async def purge(self, ids: Collection[int]) -> int:
        """See `Inspector.purge`."""
        return inspector.purge(self.ledger, ids)

    async def handlers(self) -> Collection[str]:
        """See `Inspector.handlers`."""
        return frozenset[str]().union(*(holder.terms.here for holder in self.ledger.holders.values()))

    async def reopen_all(self, which: JobFilter, *, after: int = 0, limit: int = REOPENED) -> Reopening:
        """See `Inspector.reopen_all`."""
        return inspector.reopen_all(self.ledger, which, after, limit)

    async def pause(self, queue: str) -> None:
        """See `Inspector.pause`."""
        inspector.pause(self.ledger, queue)

    async def resume(self, queue: str) -> None:
        """See `Inspector.resume`."""
        inspector.resume(self.ledger, queue)
