"""People who look after queues: they pause, resize and drain them, and let them go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any

from cabrank import DispatcherFailed, IntakeClosed, StoreUnavailable, UsageError
from tests.simulation.plan import Deed, Visit
from tests.simulation.process import Process
from tests.simulation.record import Record
from tests.simulation.watch import Watch

Asked = Callable[[], Coroutine[Any, Any, None]]

PATIENCE_S = 20.0
DRAIN_S = 5.0


class People:
    """All who come to look after queues, and what they have asked for so far."""

    def __init__(self, processes: list[Process], record: Record, watch: Watch, rng: Random) -> None:
        self._processes = processes
        self._record = record
        self._watch = watch
        self._rng = rng
        self._asked: list[tuple[Process, asyncio.Task[Any]]] = []

    async def visit(self, visit: Visit) -> None:
        """Do one thing, and a while later let the queue go on."""
        await asyncio.sleep(visit.at_s)
        process = self._rng.choice(self._processes)
        if not process.up:
            return
        match visit.deed:
            case Deed.RESIZE:
                await self._ask(process, lambda: self._resize(process, visit))
                return
            case Deed.PAUSE:
                await self._ask(process, lambda: self._pause(process, visit.queue))
            case Deed.DRAIN:
                await self._ask(process, lambda: self._drain(process, visit.queue))
        await asyncio.sleep(visit.for_s)
        if process.up:
            await self._ask(process, lambda: self._resume(process, visit.queue))

    async def let_all_go_on(self) -> None:
        """Nothing is asked for any more, and every queue is open everywhere. When all processes are up and well."""
        alive = [asked for process, asked in self._asked if not process.has_ended(asked)]
        if alive:
            await asyncio.wait(alive)
        for process in self._processes:
            for queue in process.told.most:
                await process.spawn(self._told(partial(self._resume, process, queue)))

    async def _ask(self, process: Process, asked: Asked) -> None:
        """Wait for an answer; whoever is dead or frozen gives none."""
        asking = process.spawn(self._told(asked))
        self._asked.append((process, asking))
        await asyncio.wait({asking}, timeout=PATIENCE_S)

    async def _told(self, asked: Asked) -> None:
        try:
            await asked()
        except DispatcherFailed as error:
            self._record.violated("I20", f"a person got {error!r}")

    async def _resize(self, process: Process, visit: Visit) -> None:
        least, most = visit.workers
        self._record.note(f"person: {process.life.name} is to have {least}-{most} workers for {visit.queue!r}")
        before, process.told.most[visit.queue] = process.told.most[visit.queue], most
        try:
            await process.dispatcher.resize(visit.queue, most if least == most else (least, most))
        except IntakeClosed:
            process.told.most[visit.queue] = max(before, most)
            return
        size = process.dispatcher.pools[visit.queue].size
        if not least <= size <= most:
            self._record.violated("I26", f"{process.life.name} has {size} workers for {visit.queue!r} and was told {least}-{most}")

    async def _pause(self, process: Process, queue: str) -> None:
        self._record.note(f"person: {process.life.name} is to pause {queue!r}")
        told = process.told
        try:
            await process.dispatcher.pause(queue)
        except (StoreUnavailable, IntakeClosed) as error:
            self._record.note(f"person: {error!r}")
        else:
            told.pause(queue)
            self._record.note(f"person: {queue!r} is paused")

    async def _resume(self, process: Process, queue: str) -> None:
        """Again and again until it is done, or nobody is there any more."""
        told = process.told
        while True:
            told.resume(queue)
            try:
                await process.dispatcher.resume(queue)
            except StoreUnavailable:
                continue
            except IntakeClosed:
                return
            told.resume(queue)
            self._record.note(f"person: {queue!r} goes on at {process.life.name}")
            return

    async def _drain(self, process: Process, queue: str) -> None:
        self._record.note(f"person: {process.life.name} is to drain {queue!r}")
        told = process.told
        told.shut.add(queue)
        try:
            await process.dispatcher.drain(queue, timeout_s=DRAIN_S)
        except (StoreUnavailable, IntakeClosed, UsageError, TimeoutError) as error:
            self._record.note(f"person: {error!r}")
            if isinstance(error, IntakeClosed):
                told.shut.discard(queue)
            return
        self._record.note(f"person: {queue!r} is drained")
        left = [id for id in self._watch.unfinished if self._watch.queues[id] == queue]
        if left and len(self._processes) == 1 and not self._record.reopened and queue in told.shut:
            self._record.violated("I26", f"{queue!r} is drained, and of its jobs {left} wait or run")
