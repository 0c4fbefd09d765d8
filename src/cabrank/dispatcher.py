"""Decides who may take what: an Intake that also works, one pool of workers for each queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from random import Random
from typing import Self

import msgspec

from cabrank.app import App
from cabrank.batching import queue_for
from cabrank.block import Leases, granted, queue_of
from cabrank.clock import Clock
from cabrank.deadlock import end_deadlocks
from cabrank.errors import StoreUnavailable, UsageError
from cabrank.events import RunsCancelling, logger
from cabrank.inject import Resources
from cabrank.intake import Intake
from cabrank.job import Lease
from cabrank.lookout import Lookout
from cabrank.pauses import Pauses
from cabrank.policy import RETURNED_NONE, Interrupted, Outcome
from cabrank.pool import WorkerPool
from cabrank.queue import RUNNING_IN, WORKING_FOR, JobQueue
from cabrank.root import STUBBORN_S, apart, outlast
from cabrank.running import RunningJob
from cabrank.settings import Kind, PerPool, PerQueue, Settings, Workers
from cabrank.settling import settle
from cabrank.sizing import LOOK_S
from cabrank.staff import Staff, WorkerKinds
from cabrank.states import DEATHS
from cabrank.stores.contract import SUSPECT_CRASHES, InspectedStore, Want
from cabrank.ticking import Ticking
from cabrank.upkeep import Duty, keep_up
from cabrank.workers.contract import Calls, Spawner
from cabrank.workers.process import Fleet, Keep, KeeperProcess

TIMEOUT_SWEEP_S = 0.05  # how exactly timeouts are kept: one look at what runs, not a timer for each job
STUBBORN_SWEEP_S = 1.0  # how often it is looked at what was told to stop, where nothing has a timeout
JOIN_POLL_S = 0.5  # how often `join` asks the store when nothing is settled here


class Dispatcher(Intake):
    """Takes jobs on and lets bounded pools of workers do them.

    An async context manager: entering opens the store and claims what waits there; leaving is `stop()`. With a store in memory
    any callable can be submitted; with a durable one, the handlers of `app`. `max_workers` bounds what runs at once and
    `max_queue` what waits, each one number for every queue or a mapping by queue; with 0 workers a queue is only submitted to, and other
    processes on its store run the jobs. `overflow` says what a full queue does: `wait` (the
    default), `refuse`, `drop_oldest` or `drop_lowest`, for every queue or by queue.
    """

    _stopping_apart: asyncio.Task[None] | None = None  # the stop that a job of its own asked for
    _hurry: asyncio.Future[None] | None = None  # done when a second stop has no time left

    def __init__(
        self,
        app: App | None = None,
        *,
        store: str | InspectedStore | None = None,
        max_workers: PerPool = None,
        max_queue: PerQueue = None,
        overflow: str | Mapping[str, str] | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        spawn: Spawner | None = None,
        keep: Keep = KeeperProcess,
    ) -> None:
        super().__init__(
            app,
            store=store,
            max_workers=max_workers,
            max_queue=max_queue,
            overflow=overflow,
            settings=settings,
            clock=clock,
            rng=rng,
        )
        self.pools: dict[str, WorkerPool] = {}
        kinds = ({} if self.engine.store.capabilities.durable else {kind.value: kind for kind in Kind}) | self.app.queues
        here = self.engine.run_here(kinds)
        apart = {name: handler for name, handler in here.items() if handler.kind is Kind.PROCESS and spawn is None}
        self._fleet = Fleet(apart, self.settings, clock=self.clock, keep=keep)
        self.pools |= {queue: self._pool(queue) for queue in kinds}
        self._isolated = {queue for queue, kind in kinds.items() if kind is Kind.PROCESS}
        self._calls = Calls({name: handler for name, handler in here.items() if name not in apart})
        self._lookout = Lookout(self.pools, kinds, self.engine, block_s=self.settings.loop_block_s if spawn is None else 0)
        self._calls.report = self._fleet.report = self.engine.reports.say
        self._staff = self._staffed(kinds, spawn or WorkerKinds(self._lookout.left_behind, self._fleet))
        self._ticking = Ticking(self.app, engine=self.engine, drafts=self.drafts, enter=self.enter)
        self._settle, self._returned = self.engine.committer.pending.settle, self.engine.committer.pending.returned
        self._pauses, self._resources = Pauses(), Resources()
        self._fitting = self._stopping = self._suspect_waits = self._suspect_runs = False
        self.engine.on_failure = self._let_go

    async def __aenter__(self) -> Self:
        """Open the store, take back what a dead process left, open the resources, start the workers.

        Raises:
            StoreUnusable, StoreUnavailable: the store cannot be opened; nothing is left running.
        """
        timed = any(handler.timeout_s is not None for handler in self.app.handlers.values())
        await self.engine.open(self._open_resources, [Duty(TIMEOUT_SWEEP_S if timed else STUBBORN_SWEEP_S, self._sweep)])
        self._hurry = asyncio.get_running_loop().create_future()
        self._lookout.open()
        self._staff.open()
        self._fit_from_now_on()
        self.engine.committer.claim_for(self)
        self._ticking.begin()
        end_deadlocks(self._staff, self.engine)
        return self

    async def stop(self, *, grace_s: float | None = None) -> None:
        """Take nothing more on, let what runs finish within `grace_s` (default: the setting), hand the rest back, close the store.

        With a store in memory there is nobody to hand back to: what waits is run too, as far as the grace goes. A second call
        waits for the first; with `grace_s=0` it ends the first one's grace. Awaited in a job of its own it returns at once, for that
        job is part of what it would wait for: the stop goes on beside it.
        """
        if WORKING_FOR.get() is self.engine.root:
            self.engine.close_door()
            self._stopping_apart = self._stopping_apart or apart(self._stop(grace_s), name="stop")
        else:
            await self._stop(grace_s)

    async def _stop(self, grace_s: float | None) -> None:
        if grace_s == 0 and self._hurry is not None and not self._hurry.done():
            self._hurry.set_result(None)
        try:
            await self.engine.close(lambda: self._finish(self.settings.grace_s if grace_s is None else grace_s))
        finally:
            await self._close_resources()

    async def join(self) -> None:
        """Wait until nothing waits or runs: in this process, and in the store's queues that it serves.

        Jobs that are due later, or wait for another try, count as waiting.

        Raises:
            IntakeClosed: it was stopped before that.
            DispatcherFailed: something inside failed.
            UsageError: a job awaits this, which would wait for itself.
        """
        self.engine.check_running()
        self._check_outside(self.pools)
        await self._nothing_left_of(self.pools)

    async def resize(self, queue: str, workers: Workers) -> None:
        """Let so many workers serve `queue` from now on, or as many as it needs between two numbers.

        Returns at once; `pools[queue].size` says how many there are.

        New workers start at once. When there are to be fewer, idle ones leave at once and busy ones when their job has ended:
        nothing that runs is interrupted, and none of them takes another job.

        Raises:
            UsageError: there is no such queue here, or it was given no workers at the start, so that nothing is there to run its jobs.
            SettingError: fewer than 1.
            IntakeClosed, DispatcherFailed, NotEntered: nobody works here.
        """
        self.engine.check_open()
        self._staff.resize(queue, workers)
        self._fit_from_now_on()
        self.engine.committer.wake()

    async def pause(self, queue: str | None = None) -> None:
        """Let no job of `queue` (default: of each queue here) start any more, in any process on this store, until `resume`.

        The store keeps it: a pause survives a restart. What runs goes on, what was claimed and has not started is handed back,
        and jobs are still taken on. When this returns, nothing of the queue starts here any more; other processes follow with
        their next turn of the store, within a moment.

        Raises:
            UsageError: there is no such queue here.
            StoreUnavailable: whether the store knows is unknown; calling again is safe.
            IntakeClosed, DispatcherFailed, NotEntered: nobody works here.
        """
        self.engine.check_open()
        for pool in self._staff.pools_of(queue):
            await self.engine.store.pause(pool.queue.name)
            self._pauses.say(pool.queue.name, paused=True, turns=self.engine.committer.number)
            self._hand_back(pool)

    async def resume(self, queue: str | None = None) -> None:
        """Let jobs of a paused queue start again, and take jobs on again for one that was drained; default: each queue here.

        Raises:
            What `pause` raises.
        """
        self.engine.check_open()
        for pool in self._staff.pools_of(queue):
            await self.engine.store.resume(pool.queue.name)
            self._pauses.say(pool.queue.name, paused=False, turns=self.engine.committer.number)
            self.engine.shut.pop(pool.queue.name, None)
        self.engine.committer.wake()

    async def drain(self, queue: str | None = None, *, timeout_s: float | None = None) -> None:
        """Take on no more jobs for `queue` (default: for each queue here), and wait until none of it waits or runs.

        Who submits here gets `IntakeClosed` until `resume`; other processes are not told. Jobs that are due later, or wait for
        another try, are waited for.

        Raises:
            TimeoutError: `timeout_s` seconds passed. Nothing more is taken on, and calling again is safe.
            UsageError: there is no such queue here; or it is paused, so that this would wait for ever; or a job of it awaits this.
            IntakeClosed, DispatcherFailed, NotEntered: nobody works here, or it was stopped before that.
        """
        self.engine.check_open()
        queues = [pool.queue.name for pool in self._staff.pools_of(queue)]
        self._check_outside(queues)
        for name in queues:
            self.engine.shut_queue(name)
        async with asyncio.timeout(timeout_s):
            await self._nothing_left_of(queues, paused="resume it to drain it")

    def running(self) -> Sequence[RunningJob]:
        """What runs here now, each with its stack; also what was left behind in its thread, whose outcome has been recorded.

        May be called from any thread, and while a handler blocks the event loop.
        """
        return self._lookout.running()

    def dump(self) -> str:
        """`running` as text: what SIGUSR1 prints."""
        return self._lookout.dump()

    # ------------------------------------------------------------------------------------------- what the committer asks

    def wants(self) -> Mapping[str, Want]:
        """What the pools can take now: nothing while a suspect runs, or waits until nothing runs."""
        alone = not any(pool.busy for pool in self.pools.values())
        self._suspect_runs = self._suspect_runs and not alone
        if self._stopping or self._suspect_runs or (self._suspect_waits and not alone):
            return {}
        paused = self._pauses.queues
        wanted = {queue: want for queue, pool in self.pools.items() if (want := pool.want(alone=alone)).jobs and queue not in paused}
        for queue in self._isolated & wanted.keys():
            wanted[queue] = msgspec.structs.replace(wanted[queue], alone=False, isolated=True)
        return wanted

    def accept(self, leases: Sequence[Lease | Leases]) -> None:
        """Put claimed jobs into their queues, or give them back if they came too late."""
        if self._stopping:
            for lease in granted(leases):
                self._report(lease, Interrupted())
            return
        for queue, its in groupby(leases, key=queue_of):
            self.pools[queue].accept(tuple(its))
            if queue in self._pauses.queues:  # they were claimed before it was paused
                self._hand_back(self.pools[queue])
        first = leases[0]  # a suspect never comes together with another, but for those that a process of their own isolates
        self._suspect_runs = first.crashes >= SUSPECT_CRASHES and queue_of(first) not in self._isolated

    def make_way(self, suspect: bool) -> None:  # noqa: FBT001 -- as the protocol has it
        """Whether a suspect waits until nothing runs here."""
        self._suspect_waits = suspect

    def halt(self, paused: Collection[str], number: int) -> None:
        """Hand back what waits here of queues that were paused elsewhere."""
        for queue in self._pauses.tell(paused, number):
            if queue in self.pools:
                self._hand_back(self.pools[queue])

    def lose(self, fences: Sequence[tuple[int, int]]) -> None:
        """Stop the runs whose jobs were cancelled."""
        told = [fence for fence in fences if any(pool.cancel(fence) for pool in self.pools.values())]
        if told and self.engine.events:
            self.engine.events.publish(RunsCancelling(told))

    # ------------------------------------------------------------------------------------------------------------ within

    def _pool(self, queue: str) -> WorkerPool:
        waiting = queue_for(queue, self.app.handlers.values(), self.settings, self.clock)
        return WorkerPool(
            waiting,
            clock=self.clock,
            report=self._report,
            first_runs=self.engine.committer.pending.first_runs,
            tell=self._tell(waiting),
            hurry=self.engine.committer.hurry,
            timeout_of=self._timeout_of,
            freed=self.engine.committer.wake,
            stubborn=self._tell_of,
        )

    def _staffed(self, kinds: Mapping[str, Kind], spawn: Spawner) -> Staff:
        return Staff(self.pools, kinds, spawn=spawn, calls=self._calls, settings=self.settings, root=self.engine.root)

    def _tell(self, waiting: JobQueue) -> Callable[[], None]:
        """How the committer is told of runs that ended. In memory, a backlog is settled every few milliseconds."""
        committer = self.engine.committer
        if not self.engine.store.capabilities.judges_room:
            return committer.tell

        def tell() -> None:
            if committer.is_told:
                return
            if len(waiting) > self.pools[waiting.name].size:
                committer.tell_soon()
            else:
                committer.tell()

        return tell

    def _fit_from_now_on(self) -> None:
        if self._staff.sizes_itself and not self._fitting:
            self._fitting = True
            self.engine.root.start(keep_up([Duty(LOOK_S, self._fit)], self.clock), name="sizing")

    async def _fit(self) -> None:
        if not self._stopping:
            with contextlib.suppress(StoreUnavailable):  # it is looked again soon
                if await self._staff.fit(self.engine.store, self.clock.monotonic(), paused=self._pauses.queues):
                    self.engine.committer.wake()

    async def _open_resources(self) -> None:
        try:
            await self._fleet.open(self.engine.handles.prefix)
            await self._calls.open(self.engine.handles.prefix, self._resources)
            await self._ticking.look()
        except BaseException:
            await self._close_resources()
            raise

    async def _close_resources(self) -> None:
        self._lookout.close()
        try:
            await self._resources.close()
        finally:
            await self._fleet.close()

    def _report(self, lease: Lease, outcome: Outcome) -> None:
        if outcome is RETURNED_NONE:
            self._returned(lease.job.id, lease.run)
            return
        handler = None if lease.job.function is not None else self.app.handlers[lease.job.handler]
        settlement = settle(lease, outcome, handler, settings=self.settings, rng=self.rng)
        self._settle(settlement if settlement.cause not in DEATHS else self.engine.dead_hooks.mark(settlement, lease, handler))

    def _tell_of(self, lease: Lease, consequence: str = "it keeps its worker") -> None:
        """A run does not stop."""
        self.engine.counters.left_behind += 1
        logger.error("job %d of %s does not stop though it was told to: %s", lease.job.id, lease.job.handler, consequence)

    def _timeout_of(self, lease: Lease) -> float | None:
        return None if lease.job.function is not None else self.app.handlers[lease.job.handler].timeout_s

    def _sweep(self) -> None:
        for pool in self.pools.values():
            pool.sweep()
            pool.tell_of_stubborn()

    def _hand_back(self, pool: WorkerPool) -> None:
        """Give back what was claimed and has not started."""
        for lease in pool.clear():
            self._report(lease, Interrupted())

    def _check_outside(self, queues: Collection[str]) -> None:
        """Refuse to let a job wait for the end of its own queue."""
        if WORKING_FOR.get() is self.engine.root and RUNNING_IN.get() in queues:
            raise UsageError("a job, or what it started, cannot await the end of its own queue: it would wait for itself")

    async def _nothing_left_of(self, queues: Collection[str], *, paused: str = "") -> None:
        """Wait until nothing of these queues waits or runs. `paused`: what to do about one that is paused, if that is an error."""
        since = self.engine.progressed
        while await self._is_left(queues, paused=paused):
            self.engine.check_running()
            await self.engine.progress(JOIN_POLL_S, since=since)
            self.engine.check_running()
            since = self.engine.progressed
        await self.engine.committer.recorded()  # the store may have known before the handles here do

    async def _is_left(self, queues: Collection[str], *, paused: str = "") -> bool:
        if self.engine.committer.carries(queues) or any(self.pools[queue].busy for queue in queues):
            return True
        tally = await self.engine.store.tally()
        left = {queue: counted for queue in queues if (counted := tally.get(queue)) and (counted.waiting or counted.running)}
        for queue, counted in left.items():
            if counted.paused and paused:
                raise UsageError(f"queue {queue!r} is paused and {counted.waiting:,} of its jobs wait: {paused}")
        return bool(left)

    async def _finish(self, grace_s: float) -> None:
        """End what runs: first let it, then ask it, then leave it. Whatever happens, every lease is settled or handed back."""
        ends_at = self.clock.monotonic() + grace_s
        try:
            try:
                if not self.engine.store.capabilities.durable:
                    await self._drain(ends_at)
            finally:
                self._close_pools()
            assert self._hurry is not None  # noqa: S101 -- for the type checker
            await self._staff.let_finish(ends_at, self.clock, self._hurry)
        finally:
            await self._interrupt()

    def _close_pools(self) -> None:
        self._stopping = True
        for lease in (lease for pool in self.pools.values() for lease in pool.close()):
            self._report(lease, Interrupted())

    def _let_go(self) -> None:
        """Something failed: nothing is recorded any more, so nothing is started either."""
        self._stopping = True
        for pool in self.pools.values():
            pool.close()

    async def _drain(self, ends_at: float) -> None:
        for pool in self.pools.values():
            pool.queue.hurry()
        while self.clock.monotonic() < ends_at and not (self._hurry and self._hurry.done()):
            since = self.engine.progressed
            if not await self._is_left(self.pools.keys() - self._pauses.queues):
                break
            await self.engine.progress(min(JOIN_POLL_S, ends_at - self.clock.monotonic()), since=since, until=self._hurry)
        left = sum(counted.waiting for counted in (await self.engine.store.tally()).values())
        if left:
            logger.error("%d jobs that waited in memory were not run: the grace was over, or their queue is paused", left)

    async def _interrupt(self) -> None:
        for pool in self.pools.values():
            pool.interrupt()
        try:
            await outlast(self._staff.lives, timeout_s=STUBBORN_S)
        finally:
            for lease in (lease for pool in self.pools.values() for lease in pool.running):
                self._tell_of(lease, "it is left behind, and its job is handed back")
                self._report(lease, Interrupted())
