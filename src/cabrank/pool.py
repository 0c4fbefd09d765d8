"""The workers of one queue. Those that are idle stand in the rank, longest idle first, until they are hired."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from cabrank.batch import leases_of, reaches
from cabrank.batching import Batching
from cabrank.block import Leases, gathered
from cabrank.clock import Clock
from cabrank.job import Lease
from cabrank.policy import Cancelled, Interrupted, Late, Outcome, TimedOut
from cabrank.queue import JobQueue, Line
from cabrank.root import STUBBORN_S
from cabrank.stores.contract import Want
from cabrank.workers.contract import Holder, Worker
from cabrank.workers.steps import Rounds

SLICE_S = 0.001  # a worker whose jobs never suspend gives the event loop a turn after this
AT_ONCE = 16  # jobs between two looks at the clock, where a slice has room for more than that
SHARE = 8  # jobs of a block for each worker, at least, where there are so many: to change to the next block costs half as much as a job
ALL = sys.maxsize  # as many as there are
FINISHED, STOPPED = Cancelled(), Interrupted()

NO_LEASES: tuple[Leases | None, Leases | None] = (None, None)

Report = Callable[[Lease, Outcome], None]


class WorkerPool:
    """Hands the jobs of a `JobQueue` to workers: a busy worker is never handed one, so `size` bounds what runs.

    A worker takes the next job by itself while there is one, and stands in the rank when there is none. Hiring only wakes:
    the woken worker takes its job from the queue when it runs, so a worker that is cancelled in between has nothing to lose,
    and jobs start in the order of their claims. At most one hired worker is on its way. A worker whose job suspends hires the
    next, if jobs remain; so jobs that never suspend are run by one worker, and the event loop has its turn between two slices.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        clock: Clock,
        report: Report,
        first_runs: list[int],
        tell: Callable[[], None],
        hurry: Callable[[], None],
        timeout_of: Callable[[Lease], float | None],
        freed: Callable[[], None],
        stubborn: Callable[[Lease], None],
    ) -> None:
        self.queue = queue
        self.at_work = 0
        self.ended = 0
        self.running_s = 0.0
        self.slice_s = SLICE_S
        self.at_once = 1
        self.monotonic = clock.monotonic
        self.report = report
        self.first_runs = first_runs
        self.returned = first_runs.append
        self.tell = tell
        self._hurry = hurry  # called when there is nothing more to run: what was told of waits for nothing
        self._clock = clock
        self.holders: set[Holder] = set()
        self._batching = Batching(queue, clock)
        self._timeout_of = timeout_of
        self._freed = freed  # called when a worker can take jobs again without having reported one
        self._stubborn = stubborn  # called once for a run that does not stop
        self._asked: list[tuple[Worker, Lease, float]] = []  # runs that were told to stop, each with the moment
        self._settling = 0
        self._workers: list[Worker] = []
        self.rank: deque[asyncio.Future[None]] = deque()
        self.rounds = Rounds(self.rank)
        self._hired = 0
        self._leaving = 0  # how many workers are told to leave: each leaves before it would take another job
        self._followed, self._following = NO_LEASES  # what was used up last, and what came after it
        self._measured = 0  # `ended` when the run time was last measured

    @property
    def size(self) -> int:
        """How many workers there are, those not counted that were told to leave."""
        return len(self._workers) if self._leaving == ALL else len(self._workers) - self._leaving

    @property
    def idle(self) -> int:
        """How many can start a job now."""
        return max(0, self.size - self.at_work - self._settling)

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits to be run here."""
        return bool(self.at_work or len(self.queue))

    @property
    def started(self) -> int:
        """How many runs have begun."""
        return self.ended + self.at_work

    @property
    def workers(self) -> Sequence[Worker]:
        """All workers, those included that were told to leave and have not left."""
        return self._workers

    @property
    def running(self) -> Sequence[Lease]:
        """What runs now."""
        leases = (worker.lease for worker in self._workers)  # looked at once: threads go from one to the next by themselves
        return [one for lease in leases if lease is not None for one in leases_of(lease)]

    def want(self, *, alone: bool) -> Want:
        """What the queue can take now. `alone`: nothing else runs in this process."""
        self.queue.measured(self.ended - self._measured, self.running_s)
        self._measured, self.running_s = self.ended, 0.0
        self.at_once = AT_ONCE if (self.queue.run_s or SLICE_S) * AT_ONCE < SLICE_S else 1
        return self.queue.want(idle=self.idle, workers=self.size, alone=alone)

    def accept(self, leases: Sequence[Lease | Leases]) -> None:
        """Take leases that were claimed, and wake a worker for them."""
        self.queue.extend(gathered(leases, SHARE * self.size) if len(leases) > 1 else leases)
        if self.queue.wants_more:
            self.queue.wants_more = False
            self._freed()
        self.hire()

    def after(self, leases: Leases) -> Leases | None:
        """See `Desk`."""
        head = None if self._leaving else self.queue.head
        if head is self._following and leases is self._followed:  # most workers find the same two
            return self._following
        if not isinstance(head, Leases) or not head.block.is_like(leases.block):
            return None
        self._followed, self._following = leases, head
        return head

    def next_lease(self, *, first: bool) -> Lease | None:
        """See `Source`."""
        while not self._leaving:
            head = self.queue.head
            if head is None or isinstance(head, Line) or (head.crashes and not first):
                return None
            lease = self.queue.take()
            if not self._is_late(lease):
                return lease
            self.ended += 1
            self.report(lease, Late())
        return None

    def most_held(self) -> int:
        """See `Source`."""
        return 1 if self.rank or self._hired else self.queue.most_held(self.size)

    def put_back(self, leases: Sequence[Lease]) -> None:
        """See `Source`."""
        self.queue.put_first(leases)
        self.hire()

    def hire(self, most: int = 1) -> None:
        """Wake the longest idle worker, if there is work and fewer than `most` are on their way."""
        while self.rank and self._hired < most and self.queue:
            seat = self.rank.popleft()
            if not seat.done():
                self._hired += 1
                seat.set_result(None)

    def hire_more(self) -> None:
        """Wake more, for jobs suspend: each brings two others, so that all are soon at work."""
        if self.rank:
            self.hire(self._hired + 2)

    def add(self, worker: Worker) -> Coroutine[Any, Any, None]:
        """Count `worker` in. What comes back is its life, to be run as long as the pool is open."""
        self._workers.append(worker)
        worker.on_suspend = self.hire_more
        return self._work(worker)

    def keep(self, workers: int) -> int:
        """Let so many stay of those that were told to leave and have not left. How many do."""
        kept = 0 if self._leaving == ALL else min(workers, self._leaving)
        self._leaving -= kept
        return kept

    def dismiss(self, workers: int) -> None:
        """Tell so many workers to leave: the idle ones do at once, then the first that end what they run. Nothing is interrupted."""
        if self._leaving != ALL:
            self._leaving += workers
            self.queue.extend(self.clear())  # whoever runs through leases of jobs that are alike sees that there are no more
            self._call_out(workers)

    def clear(self) -> list[Lease]:
        """Take out everything that has not started."""
        for holder in tuple(self.holders):
            holder.take_back()
        return self.queue.clear()

    def sweep(self) -> None:
        """Stop the runs that have had their time."""
        now = self._clock.monotonic()
        for worker in self._workers:
            lease = worker.lease
            timeout_s = None if lease is None else self._timeout_of(lease)
            if lease is not None and timeout_s is not None and now - worker.began_at >= timeout_s:
                self._ask(worker, lease, TimedOut(timeout_s))

    def tell_of_stubborn(self) -> None:
        """Tell, once, of each run that was told to stop `STUBBORN_S` ago and has not. Cost: nothing where none was told."""
        if self._asked:
            since = self._clock.monotonic() - STUBBORN_S
            asked = [(worker, lease, at) for worker, lease, at in self._asked if worker.lease is lease]
            self._asked = [each for each in asked if each[2] > since]
            for _, lease, at in asked:
                if at <= since:
                    self._stubborn(lease)

    def cancel(self, fence: tuple[int, int]) -> bool:
        """Stop one run, or take it out of the queue before it starts. False: it is not here any more."""
        for holder in tuple(self.holders):
            holder.take_back()
        lease = self.queue.remove(fence)
        if lease is not None:
            self.report(lease, FINISHED)
            return True
        for worker in self._workers:
            running = worker.lease
            if running is not None and reaches(running, fence):
                return self._ask(worker, running, FINISHED)
        return False

    def close(self) -> list[Lease]:
        """Let no worker take another job. The idle ones leave; what had not started comes back."""
        self._leaving = ALL
        for worker in self._workers:
            worker.retire()
        self._call_out(len(self.rank))
        return self.clear()

    def interrupt(self) -> None:
        """Ask everything that runs to stop and be handed back."""
        for worker in self._workers:
            worker.interrupt(STOPPED)

    def _ask(self, worker: Worker, lease: Lease, outcome: Outcome) -> bool:
        asked = worker.interrupt(outcome, lease)
        if asked:
            self._asked.append((worker, lease, self._clock.monotonic()))
        return asked

    async def _work(self, worker: Worker) -> None:
        """Take a job, run it, report the outcome, until somebody has to leave."""
        travel = worker.travel if isinstance(worker, Holder) else None
        try:
            slice_began = self.monotonic()
            while not self._leaving:
                head = self.queue.head
                if head is None:
                    self._followed, self._following = NO_LEASES
                    self._hurry()
                    await self._stand_in_rank()
                    slice_began = self.monotonic()
                    continue
                if travel is not None and not isinstance(head, Line):
                    through: Awaitable[bool] | None = travel(self)
                elif isinstance(head, Leases):
                    through = worker.run_through(head, self)
                else:
                    through = self._batching.run(worker, head, self) if isinstance(head, Line) else None
                rested = await (self._run(worker, self.queue.take()) if through is None else through)
                if worker.suspended:
                    worker.suspended = False
                    self._settling += 1
                    waited = await worker.settle_down()
                    self._settling -= 1
                    if waited:
                        self._freed()
                    slice_began = self.monotonic()
                elif rested:
                    slice_began = worker.began_at
                elif self.monotonic() - slice_began > SLICE_S:
                    await self._clock.sleep(0)
                    slice_began = self.monotonic()
            self._leave(worker)
        finally:
            worker.close()

    async def _run(self, worker: Worker, lease: Lease) -> bool:
        """Run one job and report it."""
        worker.lease = lease
        worker.began_at = began_at = self.monotonic()
        self.at_work += 1
        outcome = Late() if self._is_late(lease) else await worker.run(lease)
        worker.lease = None
        self.at_work -= 1
        self.ended += 1
        self.running_s += self.monotonic() - began_at
        self.report(lease, outcome)
        return worker.suspended

    def _is_late(self, lease: Lease) -> bool:
        deadline_at = lease.job.deadline_at
        return bool(deadline_at) and deadline_at < self._clock.now()

    def _leave(self, worker: Worker) -> None:
        """One that was told to leave does: if it was hired meanwhile, the next in the rank is."""
        if self._leaving != ALL:
            self._leaving -= 1
            self._workers.remove(worker)
            self.hire()

    def _call_out(self, workers: int) -> None:
        """Wake so many that stand in the rank, if there are so many, to see that they have to leave."""
        for _ in range(min(workers, len(self.rank))):
            seat = self.rank.popleft()
            if not seat.done():
                self._hired += 1
                seat.set_result(None)

    async def _stand_in_rank(self) -> None:
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rank.append(seat)
        try:
            await seat
        except asyncio.CancelledError:
            if seat.cancelled():
                if seat in self.rank:  # else hiring has passed over it
                    self.rank.remove(seat)
            else:  # hired and cancelled in the same turn of the loop: the wake-up goes on to the next in the rank
                self._hired -= 1
                self.hire()
            raise
        self._hired -= 1
