"""A store that fails as stores fail: late, deaf, mute, frozen or dead, by chance out of a seed or when the test says so."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from random import Random
from typing import Never, TypeVar

import msgspec

from cabrank.clock import Clock
from cabrank.errors import StoreUnavailable
from cabrank.job import LAST_PRIORITY, Progress, Settlement
from cabrank.stores.contract import (
    BROWSED,
    NOTHING_RETURNED,
    REOPENED,
    Arrival,
    Capabilities,
    InspectedStore,
    JobFilter,
    JobRecord,
    Page,
    Reopening,
    Returned,
    Room,
    Standing,
    Submission,
    Tally,
    Terms,
    Turn,
    Want,
)
from cabrank.stores.memory import MemoryStore

T = TypeVar("T")
Expire = Callable[[float], None]


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to calls by chance, each chance from 0 to 1.

    `latency_s` is the shortest and the longest way of a request or a reply; most are short. A lost request does nothing; a lost
    reply comes after the store has done what was asked. Both raise `StoreUnavailable`.
    """

    latency_s: tuple[float, float] = (0.0, 0.0)
    lost_request: float = 0.0
    lost_reply: float = 0.0


CALM = Faults()


class FaultyStore:
    """`store` behind a bad connection; it is one holder, as the store in it is.

    `faults` can be changed at any time. `capabilities` can say something else than the store's own: a ledger in memory can stand
    for a shared, durable store. `expire` is how this holder's lease is made to end; without it freezing and killing only stop
    the calls.
    """

    def __init__(
        self,
        store: InspectedStore,
        *,
        clock: Clock,
        rng: Random,
        faults: Faults = CALM,
        capabilities: Capabilities | None = None,
        expire: Expire | None = None,
    ) -> None:
        self.faults = faults
        self.requests_to_lose = 0
        """So many of the next requests are lost for certain."""
        self.replies_to_lose = 0
        """So many of the next replies are lost for certain."""
        self._store = store
        self._clock = clock
        self._rng = rng
        self._capabilities = capabilities or store.capabilities
        self._expire = expire
        self._lease_s = 0.0
        self._dead = False
        self._awake = asyncio.Event()
        self._awake.set()

    # --------------------------------------------------------------------------------------------------- what goes wrong

    def freeze(self) -> None:
        """Stop the holder where it is, as SIGSTOP does: no call goes on, nothing is renewed, its lease runs out."""
        self._awake.clear()
        if self._expire is not None:
            self._expire(self._lease_s)

    def thaw(self) -> None:
        """Let the holder go on. It renews if its lease has not run out."""
        self._awake.set()
        if self._expire is not None:
            self._expire(math.inf)

    def kill(self) -> None:
        """The holder's process dies, and the store knows: its leases are free at once. Every call hangs for ever from here."""
        self._dead = True
        if self._expire is not None:
            self._expire(0.0)

    # ------------------------------------------------------------------------------------------------------------- store

    @property
    def capabilities(self) -> Capabilities:
        """The store's own, or what was given instead."""
        return self._capabilities

    @property
    def prefix(self) -> str:
        """The store's own."""
        return self._store.prefix

    async def open(self, terms: Terms) -> None:
        """A request that can be lost, but whose reply cannot: a holder that was opened twice would be two."""
        self._lease_s = terms.settings.lease_s
        await self._request()
        await self._store.open(terms)

    async def close(self) -> None:
        """Late perhaps, but never lost: a process that ends takes its connection with it."""
        await self._travel()
        await self._store.close()

    async def take_ids(self) -> int:
        """As the store, over the bad connection."""
        return await self._call(self._store.take_ids)

    async def last_tick(self, schedule: str, spec: str) -> float:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.last_tick(schedule, spec))

    def room(self, queue: str) -> Room | None:
        """As the store, unless it stands for a shared one, which judges in its turns."""
        return None if self._capabilities.shared else self._store.room(queue)

    async def turn(
        self,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned = NOTHING_RETURNED,
        progress: Sequence[Progress] = (),
    ) -> Turn:
        """As the store, over the bad connection."""
        return await self._call(
            lambda: self._store.turn(number, new=new, settlements=settlements, want=want, returned=returned, progress=progress)
        )

    async def arrival(self) -> Arrival:
        """As the store; what arrives while the holder is frozen is seen afterwards."""
        arrival = await self._store.arrival()
        await self._travel()
        return arrival

    async def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.find(ids))

    async def browse(self, which: JobFilter, *, after: int = 0, limit: int = BROWSED) -> Page:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.browse(which, after=after, limit=limit))

    async def tally(self) -> Mapping[str, Tally]:
        """As the store, over the bad connection."""
        return await self._call(self._store.tally)

    async def ready(self, queue: str, most: int, *, priority: int = LAST_PRIORITY) -> int:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.ready(queue, most, priority=priority))

    async def standing(self, id: int) -> Standing | None:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.standing(id))

    async def cancel(self, id: int) -> bool:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.cancel(id))

    async def reopen(self, id: int) -> bool:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.reopen(id))

    async def purge(self, ids: Collection[int]) -> int:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.purge(ids))

    async def handlers(self) -> Collection[str]:
        """As the store, over the bad connection."""
        return await self._call(self._store.handlers)

    async def reopen_all(self, which: JobFilter, *, after: int = 0, limit: int = REOPENED) -> Reopening:
        """As the store, over the bad connection."""
        return await self._call(lambda: self._store.reopen_all(which, after=after, limit=limit))

    async def pause(self, queue: str) -> None:
        """As the store, over the bad connection."""
        await self._call(lambda: self._store.pause(queue))

    async def resume(self, queue: str) -> None:
        """As the store, over the bad connection."""
        await self._call(lambda: self._store.resume(queue))

    # ------------------------------------------------------------------------------------------------------------ within

    async def _call(self, there: Callable[[], Awaitable[T]]) -> T:
        await self._request()
        answer = await there()
        await self._travel()
        if self._strikes(self.replies_to_lose, self.faults.lost_reply):
            self.replies_to_lose = max(0, self.replies_to_lose - 1)
            raise StoreUnavailable("the reply was lost: what was asked has been done")
        return answer

    async def _request(self) -> None:
        await self._travel()
        if self._strikes(self.requests_to_lose, self.faults.lost_request):
            self.requests_to_lose = max(0, self.requests_to_lose - 1)
            raise StoreUnavailable("the request was lost: nothing has been done")

    def _strikes(self, certain: int, chance: float) -> bool:
        return certain > 0 or (chance > 0 and self._rng.random() < chance)

    async def _travel(self) -> None:
        """One way, with whatever stands on it."""
        await self._stand_still()
        shortest_s, longest_s = self.faults.latency_s
        if longest_s > 0:
            shortest_s = max(shortest_s, longest_s / 10_000)
            await self._clock.sleep(shortest_s * (longest_s / shortest_s) ** self._rng.random())
            await self._stand_still()

    async def _stand_still(self) -> None:
        await self._awake.wait()
        if self._dead:
            await _for_ever()


async def _for_ever() -> Never:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this future's result")


def memory_lease(store: MemoryStore) -> Expire:
    """How the lease of a holder in memory is made to end in so many seconds (infinity: it is renewed again)."""

    def expire(duration_s: float) -> None:
        holder, now = store.ledger.holders.get(store.holder), store.ledger.clock.monotonic()
        if holder is not None and holder.expires_at > now:
            holder.expires_at = now + duration_s

    return expire
