from __future__ import annotations

import asyncio
from random import Random

import pytest

from cabrank.errors import StoreUnavailable
from cabrank.job import Job, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import STORED, Submission, Terms, Turn, Want
from cabrank.stores.memory import Ledger, MemoryStore
from cabrank.testing import FakeClock, Faults, FaultyStore, memory_lease

LEASE_S = 10.0
TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(lease_s=LEASE_S, renew_s=1.0), max_crashes={})
ONE = {"async": Want(1, 1_000, 1)}
NEW = (Submission(jobs=(Job(id=1, handler="work", queue="async", payload=b"1"),)),)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(clock: FakeClock) -> Ledger:
    return Ledger(clock)


@pytest.fixture
async def store(ledger: Ledger, clock: FakeClock) -> FaultyStore:
    return await opened(ledger, clock)


async def opened(ledger: Ledger, clock: FakeClock) -> FaultyStore:
    connection = MemoryStore(clock, ledger=ledger)
    store = FaultyStore(connection, clock=clock, rng=Random(1), expire=memory_lease(connection))
    await store.open(TERMS)
    return store


async def claimed(store: FaultyStore, number: int = 1) -> Turn:
    """A turn that brings job 1 and takes it."""
    return await store.turn(number, new=NEW, settlements=(), want=ONE)


async def look(store: FaultyStore, number: int) -> Turn:
    """A turn that takes what there is."""
    return await store.turn(number, new=(), settlements=(), want=ONE)


async def test_a_lost_request_did_nothing(store: FaultyStore) -> None:
    store.requests_to_lose = 1
    with pytest.raises(StoreUnavailable):
        await claimed(store)
    assert await store.find([1]) == {}
    assert (await claimed(store)).admitted == [STORED]


async def test_after_a_lost_reply_the_same_number_gives_the_same_answer(store: FaultyStore) -> None:
    store.replies_to_lose = 1
    with pytest.raises(StoreUnavailable):
        await claimed(store)
    assert (await store.find([1]))[1].state is State.RUNNING
    turn = await claimed(store)
    assert [(lease.job.id, lease.run) for lease in turn.leases] == [(1, 1)]


async def test_the_same_number_is_known_even_when_the_lease_was_lost_in_between(
    store: FaultyStore, ledger: Ledger, clock: FakeClock
) -> None:
    store.replies_to_lose = 1
    with pytest.raises(StoreUnavailable):
        await claimed(store)
    store.freeze()
    await clock.advance(LEASE_S)
    other = await opened(ledger, clock)
    [lease] = (await look(other, 1)).leases
    store.thaw()
    await claimed(store)
    assert ((await other.find([1]))[1].run, lease.run) == (2, 2)


async def test_a_late_reply_comes_when_its_time_has_come(store: FaultyStore, clock: FakeClock) -> None:
    store.faults = Faults(latency_s=(1.0, 1.0))
    asked = asyncio.ensure_future(claimed(store))
    await asyncio.sleep(0)
    await clock.advance(1.0)
    assert not asked.done()
    await clock.advance(1.0)
    assert (await asked).admitted == [STORED]


async def test_a_frozen_holder_loses_its_jobs_when_its_lease_runs_out(store: FaultyStore, ledger: Ledger, clock: FakeClock) -> None:
    await claimed(store)
    other = await opened(ledger, clock)
    store.freeze()
    await clock.advance(LEASE_S - 1.0)
    assert not (await look(other, 1)).leases
    await clock.advance(1.0)
    [lease] = (await look(other, 2)).leases
    assert (lease.run, lease.crashes) == (2, 1)

    late = asyncio.ensure_future(store.turn(2, new=(), settlements=(Settlement(1, 1, Cause.RETURNED),), want={}))
    await asyncio.sleep(0)
    assert not late.done()
    store.thaw()
    assert (await late).lost == [(1, 1)]


async def test_a_holder_that_thaws_in_time_keeps_its_jobs(store: FaultyStore, clock: FakeClock) -> None:
    await claimed(store)
    store.freeze()
    await clock.advance(LEASE_S - 1.0)
    store.thaw()
    await clock.advance(10 * LEASE_S)
    assert not (await store.turn(2, new=(), settlements=(Settlement(1, 1, Cause.RETURNED),), want={})).lost


async def test_a_killed_holders_jobs_are_free_at_once_and_its_calls_hang(store: FaultyStore, ledger: Ledger, clock: FakeClock) -> None:
    await claimed(store)
    other = await opened(ledger, clock)
    store.kill()
    hanging = asyncio.ensure_future(look(store, 2))
    [lease] = (await look(other, 1)).leases
    assert (lease.run, lease.crashes) == (2, 1)
    assert not hanging.done()
    hanging.cancel()
