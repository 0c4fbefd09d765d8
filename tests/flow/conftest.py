"""Each flow runs over every store that this process can have to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cabrank.testing import FakeClock


@pytest.fixture
def durable(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, durable: str) -> str:
    return "memory://" if request.param == "memory" else durable


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
