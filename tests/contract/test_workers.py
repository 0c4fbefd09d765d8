"""Each worker kind keeps the contract."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextvars import Context

import pytest

from cabrank.events import Counters
from cabrank.settings import Kind, Settings, Start
from cabrank.testing.worker_contract import APPS, WorkerContract
from cabrank.workers.contract import Calls, Spawner, Worker
from cabrank.workers.coroutine import CoroutineWorker
from cabrank.workers.process import Fleet, ProcessWorker
from cabrank.workers.thread import LeftBehind, ThreadWorker


class TestCoroutineWorker(WorkerContract):
    kind = Kind.ASYNC

    @pytest.fixture
    def spawn(self) -> Spawner:
        def spawn(kind: Kind, calls: Calls, context: Context) -> Worker:
            return CoroutineWorker(calls, context)

        return spawn


class TestThreadWorker(WorkerContract):
    kind = Kind.THREAD

    @pytest.fixture
    async def spawn(self) -> AsyncGenerator[Spawner]:
        left_behind = LeftBehind(Counters())

        def spawn(kind: Kind, calls: Calls, context: Context) -> Worker:
            return ThreadWorker(calls, context, left_behind)

        yield spawn
        while any(thread.name.startswith("cabrank") for thread in threading.enumerate()):  # the gate is open: they end
            await asyncio.sleep(0)


@pytest.mark.parametrize("start", Start)
class TestProcessWorker(WorkerContract):
    kind = Kind.PROCESS

    @pytest.fixture
    async def spawn(self, start: Start) -> AsyncGenerator[Spawner]:
        fleet = Fleet(APPS[self.kind].handlers, Settings(process_start=start))
        await fleet.open("aaaaaaaa")

        def spawn(kind: Kind, calls: Calls, context: Context) -> Worker:
            return ProcessWorker(fleet)

        yield spawn
        await fleet.close()
