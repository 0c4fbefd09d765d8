"""One process of the simulation: a real Dispatcher over its own bad connection to the ledger."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

from cabrank import App, Dispatcher, JobContext, RegistrationError, StoreUnavailable
from cabrank.batch import Together
from cabrank.engine import FLUSH_S
from cabrank.job import Lease, number_of
from cabrank.root import STUBBORN_S
from cabrank.settings import STORE_BOUND, Settings
from cabrank.stores.contract import SUSPECT_CRASHES, Capabilities
from cabrank.testing import CALM, Faults
from tests.simulation import loop as simulated
from tests.simulation.clock import VirtualClock
from tests.simulation.floor import QUEUE, TIMEOUT_S, Floor
from tests.simulation.home import Home
from tests.simulation.keeper import Machine
from tests.simulation.plan import Apart
from tests.simulation.record import Record
from tests.simulation.told import Told, Way

T = TypeVar("T")

# The ledger outlives every process and is open to all, as a file or a server is.
SHARED = Capabilities(durable=True, shared=True, judges_room=False, bound=STORE_BOUND, durability="disk", promise="simulated")
OFFSET_S = 30.0  # how wrong a process's wall clock may be; only due times that it states are then off
SWEEP_S = 0.1  # how exactly that is kept
SLACK_S = 8.0  # what a stop may take beyond its grace and its patience, for the longest way there and back


class Process:
    """Started, killed, frozen, stopped and started again, each time with a new Dispatcher."""

    class Life(simulated.Life):
        """One life of `process`."""

        def __init__(self, process: Process, number: int) -> None:
            super().__init__(f"{process.name}#{number}")
            self.process = process

    def __init__(
        self,
        name: str,
        app: App,
        ledger: Home,
        record: Record,
        *,
        loop: simulated.SimulatedLoop,
        settings: Settings,
        rng: Random,
        apart: Apart,
    ) -> None:
        self.name = name
        self.record = record
        self.faults: Faults = CALM
        self.up = False
        self._way_s = 0.0
        """The longest way to the store that there has been: what is on it is there yet when faults have ended."""
        self.app = app
        self._ledger = ledger
        self._loop = loop
        self._settings = settings
        self._rng = rng
        self._apart = apart
        self._machines: list[Machine] = []
        self.clock = VirtualClock(loop, offset_s=rng.choice((0.0, -OFFSET_S, OFFSET_S)))
        self._lives: list[simulated.Life] = []
        self._running: Counter[str] = Counter()
        self._suspects = 0
        self.is_stopping = False

    # ------------------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Begin a new life."""
        life = Process.Life(self, len(self._lives) + 1)
        self._lives.append(life)
        self._running.clear()
        self._suspects = 0
        self.is_stopping = False
        self._way_s = max(self._way_s, self.faults.latency_s[1])
        workers = self._settings.max_workers
        assert isinstance(workers, int)
        self.told = Told(dict.fromkeys(self.app.queues, workers))
        self.up = False
        self._context = contextvars.Context()
        self._context.run(simulated.LIFE.set, life)
        self.record.note(f"{life.name} starts")
        rng = Random(f"{life.name} apart")
        self._machines.append(Machine(Floor(self, apart=self._apart, settings=self._settings, loop=self._loop, rng=rng), rng))
        self.spawn(self._begin())

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something within this life of the process."""
        return self._loop.create_task(coroutine, context=self._context.copy())

    def has_ended(self, spawned: asyncio.Task[Any]) -> bool:
        """Whether what was spawned has ended, or will never go on."""
        return spawned.done() or not any(spawned in life.unfinished for life in self._lives if not life.dead)

    @property
    def life(self) -> simulated.Life:
        return self._lives[-1]

    @property
    def machine(self) -> Machine:
        """What starts its worker processes."""
        return self._machines[-1]

    def kill(self) -> None:
        """As SIGKILL."""
        self.record.note(f"{self.life.name} is killed")
        self.record.doomed.add(self.connection.holder)
        self._loop.kill(self.life)
        self.machine.dispatcher_died()
        self.store.kill()
        self.connection.kill()
        self.up = False

    def freeze(self) -> None:
        """As SIGSTOP."""
        self.record.note(f"{self.life.name} is frozen")
        self.record.doomed.add(self.connection.holder)
        self._loop.freeze(self.life)
        self.store.freeze()

    def thaw(self) -> None:
        """As SIGCONT."""
        self.record.note(f"{self.life.name} is thawed")
        self.store.thaw()
        self._loop.thaw(self.life)

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.faults = self.store.faults = CALM
        self.machine.calm()

    async def stop(self) -> None:
        """As SIGTERM: leave the Dispatcher. Nothing of it may be left afterwards."""
        life, began_at = self.life, self._loop.time()
        self.record.note(f"{life.name} stops")
        self.up = False
        frozen_before = self.connection.holder in self.record.doomed
        await self.spawn(self._leave())
        took_s = self._loop.time() - began_at
        await asyncio.sleep(2 * self._way_s + 0.001)  # whoever was told something then, or asks the store, ends too
        self.record.note(f"{life.name} has stopped")
        for left_over in self.machine.left:
            self.record.violated("I33", f"{life.name} stopped and left {left_over} alive")
        if not frozen_before and took_s > self._settings.grace_s + STUBBORN_S + FLUSH_S + SLACK_S:
            self.record.violated("I10", f"{life.name} took {took_s:.1f} s to stop")
        if self._ledger.held_by(self.connection.holder) is not None:
            self.record.violated("I10", f"{life.name} stopped and still holds leases")
        for left in life.unfinished:
            self.record.violated("I19", f"{life.name} stopped and left {left.get_name()} behind: {left.get_coro()!r}")
        self._loop.kill(life)

    def look_at_workers(self) -> None:
        """In the quiet: no worker has a process that is gone."""
        for worker in self.dispatcher.pools[QUEUE].workers if QUEUE in self.dispatcher.pools else ():
            pid = worker.place(0).process
            if pid and pid not in {child.number for child in self.machine.floor.alive}:
                self.record.violated("I32", f"{self.life.name} has a worker whose process {pid} is gone")

    async def _leave(self) -> None:
        self.is_stopping = True
        await self.dispatcher.stop()

    def bury(self) -> None:
        """Tidy up after the simulation."""
        for machine in self._machines:
            machine.bury()
        for life in self._lives:
            self._loop.kill(life)
            life.bury()

    async def _begin(self) -> None:
        while not self.up:
            self.connection = self._ledger.connect(self._before_close)
            self.store = Way(
                self.connection,
                clock=VirtualClock(self._loop),
                rng=self._rng,
                faults=self.faults,
                capabilities=SHARED,
                expire=self.connection.expire,
            )
            self.store.told = self.told
            self.dispatcher = Dispatcher(
                self.app, store=self.store, settings=self._settings, clock=self.clock, rng=self._rng, keep=self.machine.keep
            )
            try:
                await self.dispatcher.__aenter__()
            except (StoreUnavailable, RegistrationError):  # the second: its keeper died
                await asyncio.sleep(0.2)
            except Exception as error:
                self.record.violated("I20", f"{self.name} cannot be started: {error!r}")
                raise
            else:
                self.up = True

    def _before_close(self) -> None:
        """Every lease was settled or handed back, unless the store did not answer."""
        held = self._ledger.held_by(self.connection.holder)
        if held and self.dispatcher.engine.committer.failing_since is None and self.is_stopping:
            self.record.violated("I10", f"{self.life.name} closes its store and still holds {held}")

    # ------------------------------------------------------------------------------------------------- what its jobs say

    @contextmanager
    def runs(self, queue: str, job: JobContext) -> Iterator[None]:
        """Count a run in while it lasts."""
        id, life = number_of(self._ledger.prefix, job.id), self.life
        self.record.note(f"{life.name}: job {id} run {job.run} attempt {job.attempt} begins")
        self.may_start(queue, f"job {id}")
        self.counts_in(queue, id, suspect=(suspect := self.crashes(id, job.run) >= SUSPECT_CRASHES))
        began_at, freezes = self._loop.time(), life.freezes
        try:
            yield
        except BaseException as error:
            self.record.note(f"{life.name}: job {id} run {job.run} raised {error!r}")
            if isinstance(error, asyncio.CancelledError) and freezes == life.freezes:
                self._was_stopped(job, self._loop.time() - began_at)
            raise
        finally:
            self.counts_out(queue, suspect=suspect)
            took_s = self._loop.time() - began_at
            if took_s > TIMEOUT_S + 2 * SWEEP_S and freezes == life.freezes and not life.dead:
                self.record.violated("I28", f"{life.name} let job {id} run for {took_s:.3f} s")

    def may_start(self, queue: str, what: str) -> None:
        """Something of `queue` starts, here or in a worker process."""
        if self.is_stopping:
            self.record.violated("I7", f"{self.life.name} started {what} after it was told to stop")
        if queue in self.told.paused:
            self.record.violated("I25", f"{self.life.name} started {what} when it knew that {queue!r} is paused")

    def counts_in(self, queue: str, id: int, *, suspect: bool, before: int = 0) -> None:
        """A run of `queue` begins in this life, here or in a worker process. `suspect`: nothing else may run meanwhile.

        `before`: how many workers there were to be when it was started, if that was before.
        """
        life = self.life
        self._running[queue] += 1
        most = max(before, self.told.most[queue])
        if self._running[queue] > most:
            self.record.violated("I6", f"{life.name} runs {self._running[queue]} jobs of {queue!r}, it has {most} workers")
        self._suspects += suspect
        if self._suspects and self._running.total() > 1:
            self.record.violated("I21", f"{life.name} started job {id} beside another, and one of them is a suspect")

    def counts_out(self, queue: str, *, suspect: bool = False) -> None:
        """It has ended."""
        self._running[queue] -= 1
        self._suspects -= suspect

    def _was_stopped(self, job: JobContext, after_s: float) -> None:
        """A run was told to stop: it had its time, or somebody wanted that."""
        ids = {number_of(self._ledger.prefix, id) for id in job.ids}
        if after_s < TIMEOUT_S and not self.is_stopping and not ids & self.record.cancels:
            self.record.violated("I28", f"{self.life.name} stopped {sorted(ids)} after {after_s:.3f} s, and nobody wanted that")

    @contextmanager
    def runs_together(self, queue: str, job: JobContext) -> Iterator[Sequence[Lease]]:
        """Count a call of a batch handler in while it lasts. What it gives are the leases that it runs."""
        first = number_of(self._ledger.prefix, job.id)
        running = (worker.lease for worker in self.dispatcher.pools[queue].workers)
        [call] = [one for one in running if isinstance(one, Together) and (one.job.id, one.run) == (first, job.run)]
        if [one.job.id for one in call.leases] != [number_of(self._ledger.prefix, id) for id in job.ids]:
            self.record.violated("I24", f"{self.life.name} runs {call.leases} and told the handler of {job.ids}")
        if len(call.leases) > 1 and any(self.crashes(one.job.id, one.run) >= SUSPECT_CRASHES for one in call.leases):
            self.record.violated("I21", f"{self.life.name} runs {job.ids} in one call, and one of them is a suspect")
        with self.runs(queue, job):
            yield call.leases

    def crashes(self, id: int, run: int) -> int:
        """How often its holder has died under the job that runs."""
        row = self._ledger.running(id)
        return row.crashes if row is not None and row.run == run else 0

    def returned(self, job: JobContext) -> None:
        """A run is about to return."""
        self.returned_one(number_of(self._ledger.prefix, job.id), job.run)

    def returned_one(self, id: int, run: int) -> None:
        """As `returned`, of one item of a batch too."""
        self.record.note(f"{self.life.name}: job {id} run {run} returns")
        self.record.returned.add((id, run))
