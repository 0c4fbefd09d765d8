"""One file, and as many holders of it as a test opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from cabrank.testing import FakeClock
from cabrank.testing.store_contract import Opened
from tests.contract.sqlite.files import TERMS, Files


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def files(tmp_path: Path, clock: FakeClock) -> Files:
    return Files(tmp_path, clock)


@pytest.fixture
async def one(files: Files) -> AsyncGenerator[Opened]:
    one = Opened(files.another(), files)
    await one.open(TERMS)
    yield one
    await one.close()


@pytest.fixture
async def other(files: Files, one: Opened) -> AsyncGenerator[Opened]:
    other = Opened(files.another(), files)
    await other.open(TERMS)
    yield other
    await other.close()
