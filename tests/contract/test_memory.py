"""The store in memory keeps the contract: by itself, and as several holders of one ledger, as processes would share a store."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from cabrank.stores import open_url
from cabrank.stores.contract import InspectedStore
from cabrank.stores.memory import Ledger, MemoryStore
from cabrank.testing import FakeClock, FaultyStore, memory_lease
from cabrank.testing.store_contract import StoreContract, Stores


class Single:
    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def another(self) -> InspectedStore:
        return open_url("memory://", self._clock)

    async def kill(self, store: InspectedStore) -> None:
        raise AssertionError("a store in memory dies with its process")

    expire = kill


class Shared:
    """One ledger behind stores that say they are shared. What is in memory is not durable even so."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._ledger = Ledger(clock, Random(1))
        self._inner: dict[InspectedStore, MemoryStore] = {}

    def another(self) -> InspectedStore:
        store = MemoryStore(self._clock, ledger=self._ledger)
        capabilities = msgspec.structs.replace(store.capabilities, shared=True, judges_room=False)
        faulty = FaultyStore(store, clock=self._clock, rng=Random(1), capabilities=capabilities, expire=memory_lease(store))
        self._inner[faulty] = store
        return faulty

    async def kill(self, store: InspectedStore) -> None:
        assert isinstance(store, FaultyStore)
        store.kill()

    async def expire(self, store: InspectedStore) -> None:
        memory_lease(self._inner[store])(0.0)


class TestMemory(StoreContract):
    @pytest.fixture
    def stores(self, clock: FakeClock) -> Stores:
        return Single(clock)


class TestSharedLedger(StoreContract):
    @pytest.fixture
    def stores(self, clock: FakeClock) -> Stores:
        return Shared(clock)
