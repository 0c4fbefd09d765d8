"""One file, and as many holders of it as a test opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from cabrank.testing import FakeClock
from tests.contract.sqlite.files import Files


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def files(tmp_path: Path, clock: FakeClock) -> Files:
    return Files(tmp_path, clock)
