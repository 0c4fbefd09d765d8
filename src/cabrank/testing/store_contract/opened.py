"""A store that is open, as the tests of the contract use it: it counts its turns, makes jobs, and is closed at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import pytest
import pytest_asyncio

from cabrank.job import DEFAULT_PRIORITY, Job, Lease, Progress, Settlement
from cabrank.policy import Limit
from cabrank.settings import MIB, Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import InspectedStore, JobRecord, Submission, Tally, Terms, Turn, Verdict, Want
from cabrank.testing.clock import FakeClock

HANDLER, QUEUE = "work", "line"
PLENTY = Want(jobs=1000, bytes=64 * MIB, idle=1000)


class Stores(Protocol):
    """How the tests come by holders of one and the same jobs."""

    def another(self) -> InspectedStore:
        """A further holder, not yet open. Where stores are not shared only one is asked for, and again after it was closed."""
        ...

    async def kill(self, store: InspectedStore) -> None:
        """Let the holder end as if its process were killed: it gives nothing back, and others can see that it is gone."""
        ...

    async def expire(self, store: InspectedStore) -> None:
        """Let the holder's lease run out, as if its process had been stopped for too long. It goes on afterwards."""
        ...


def submission(*jobs: Job, key: str = "", digest: bytes = b"") -> Submission:
    """One request for these jobs."""
    return Submission(jobs=jobs, key=key, digest=digest)


class Opened:
    """One holder. Turns are numbered here."""

    def __init__(self, store: InspectedStore, stores: Stores) -> None:
        self.store = store
        self.number = 0
        self._stores = stores
        self._next_id = 0
        self._gone = False

    async def open(self, terms: Terms) -> None:
        """Open the store and fetch ids."""
        await self.store.open(terms)
        self._next_id = await self.store.take_ids()

    async def close(self) -> None:
        """Close the store, if it was not killed."""
        if not self._gone:
            self._gone = True
            await self.store.close()

    async def kill(self) -> None:
        """See `Stores.kill`."""
        self._gone = True
        await self._stores.kill(self.store)

    async def expire(self) -> None:
        """See `Stores.expire`."""
        await self._stores.expire(self.store)

    def ids(self, count: int) -> range:
        """Ids in a row that no other job has."""
        first, self._next_id = self._next_id, self._next_id + count
        return range(first, self._next_id)

    def job(
        self,
        *,
        payload: bytes = b"1",
        handler: str = HANDLER,
        queue: str = QUEUE,
        priority: int = DEFAULT_PRIORITY,
        due_at: float = 0,
        limit_key: str | None = None,
    ) -> Job:
        """A new job with the next id, as a submitter would make it."""
        id = self.ids(1)[0]
        return Job(id=id, handler=handler, queue=queue, payload=payload, priority=priority, due_at=due_at, limit_key=limit_key)

    def jobs(self, count: int, *, payload: bytes = b"1") -> list[Job]:
        """New jobs that are alike."""
        return [self.job(payload=payload) for _ in range(count)]

    async def turn(self, *new: Submission, settlements: Sequence[Settlement] = (), want: Mapping[str, Want] | Want | None = None) -> Turn:
        """The next turn. A `want` alone is for `QUEUE`."""
        self.number += 1
        wanted = {QUEUE: want} if isinstance(want, Want) else want or {}
        return await self.store.turn(self.number, new=new, settlements=settlements, want=wanted)

    async def tell(self, *progress: Progress) -> None:
        """Say how far runs are."""
        self.number += 1
        await self.store.turn(self.number, new=(), settlements=(), want={}, progress=progress)

    async def submit(self, *jobs: Job) -> None:
        """Store jobs, one request for all."""
        await self.turn(submission(*jobs))

    async def claim(self, jobs: int = PLENTY.jobs, *, queue: str = QUEUE, alone: bool = False) -> list[Lease]:
        """Lease so many jobs, as a holder that runs nothing else."""
        turn = await self.turn(want={queue: Want(jobs=jobs, bytes=PLENTY.bytes, idle=jobs, alone=alone)})
        return list(turn.leases)

    async def run(self, *jobs: Job) -> list[Lease]:
        """Store jobs and lease them."""
        return list((await self.turn(submission(*jobs), want=PLENTY)).leases)

    async def settle(self, leases: Iterable[Lease], cause: Cause) -> Turn:
        """Let runs end for that cause."""
        return await self.turn(settlements=[Settlement(lease.job.id, lease.run, cause) for lease in leases])

    async def find(self, id: int) -> JobRecord:
        """The job of that id, which must be known."""
        return (await self.store.find([id]))[id]

    async def state(self, id: int) -> State | None:
        """The state of the job, None if it is unknown."""
        record = (await self.store.find([id])).get(id)
        return None if record is None else record.state

    async def tally(self, queue: str = QUEUE) -> Tally:
        """What the store counts in a queue."""
        return (await self.store.tally()).get(queue, Tally())


Open = Callable[..., Awaitable[Opened]]


def verdicts(turn: Turn) -> list[Verdict]:
    """What became of each submission."""
    return [admission.verdict for admission in turn.admitted]


def ids(leases: Iterable[Lease]) -> list[int]:
    """Which jobs were leased."""
    return [lease.job.id for lease in leases]


class OpenedContract:
    """The fixtures of all parts of the contract."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of store and test."""
        return FakeClock()

    @pytest.fixture
    def stores(self) -> Stores:
        """Override this: the store to be tested."""
        raise NotImplementedError("a fixture `stores` says how the store is opened")

    @pytest_asyncio.fixture
    async def open_holder(self, stores: Stores) -> AsyncGenerator[Open, None]:
        """Opens a holder with these settings; all are closed at the end."""
        opened: list[Opened] = []

        async def open_holder(
            *,
            handlers: Sequence[str] = (HANDLER,),
            crashes: Mapping[str, int] | None = None,
            limits: Mapping[str, Limit] | None = None,
            elsewhere: Sequence[str] = (),
            **given: object,
        ) -> Opened:
            holder = Opened(stores.another(), stores)
            opened.append(holder)
            settings = msgspec.convert(given, Settings)
            terms = Terms(
                handlers=frozenset(handlers),
                settings=settings,
                max_crashes=crashes or {},
                limits=limits or {},
                elsewhere=frozenset(elsewhere),
            )
            await holder.open(terms)
            return holder

        yield open_holder
        for holder in opened:
            await holder.close()

    @pytest_asyncio.fixture
    async def one(self, open_holder: Open) -> Opened:
        """A holder with the default settings."""
        return await open_holder()

    @pytest_asyncio.fixture
    async def other(self, one: Opened, open_holder: Open) -> Opened:
        """A second holder of the same jobs."""
        needs_sharing(one)
        return await open_holder()


def needs_sharing(holder: Opened) -> None:
    """Skip where a store has one holder only."""
    if not holder.store.capabilities.shared:
        pytest.skip("this store is not shared")
