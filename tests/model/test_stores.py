"""The stores against the model. `CABRANK_EXAMPLES=2000` plays longer than `make test` does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from cabrank.testing.store_contract import Stores
from tests.contract.sqlite.files import Files
from tests.contract.test_memory import Shared
from tests.model.machine import StoreMachine

EXAMPLES = int(os.environ.get("CABRANK_EXAMPLES", "60"))
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- what is played survives no power cut, so nothing need be synced
PLAY = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    derandomize="CABRANK_EXAMPLES" not in os.environ,  # `make test` plays the same games each time
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
)


class MemoryMachine(StoreMachine):
    def start(self) -> Stores:
        return Shared(self.clock)


class SqliteMachine(StoreMachine):
    def start(self) -> Stores:
        self.folder = tempfile.TemporaryDirectory(prefix="cabrank-model-", dir=FAST)
        return Files(Path(self.folder.name), self.clock)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


def test_memory_is_as_the_model() -> None:
    run_state_machine_as_test(MemoryMachine, settings=PLAY)


def test_sqlite_is_as_the_model() -> None:
    run_state_machine_as_test(SqliteMachine, settings=PLAY)
