"""The SQLite store keeps the contract, with threads and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from cabrank.testing import FakeClock, InLoop
from cabrank.testing.store_contract import StoreContract, Stores
from tests.contract.sqlite.files import Files


class TestSqlite(StoreContract):
    @pytest.fixture
    def stores(self, clock: FakeClock, tmp_path: Path) -> Stores:
        return Files(tmp_path, clock)


class TestSqliteInLoop(StoreContract):
    @pytest.fixture
    def stores(self, clock: FakeClock, tmp_path: Path) -> Stores:
        return Files(tmp_path, clock, InLoop(clock))
