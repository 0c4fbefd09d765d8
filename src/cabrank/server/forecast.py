"""What can be said of the time to come, out of what was measured: when a job starts, and when it is worth coming again.

A queue is worked off at the rate at which runs ended here while something of it waited, or at that at which jobs left the store for what
was posted here, if that is more: then other processes work on it too. What is submitted elsewhere is not known here, and makes that less.
"""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from cabrank.dispatcher import Dispatcher
from cabrank.errors import DiskFull, IntakeClosed, QueueDrained, QueueFull, StoreUnavailable
from cabrank.server.problems import DISK_RETRY_S, RESTART_RETRY_S, STORE_RETRY_S, Answer, AnswerLate, answer_to
from cabrank.states import State
from cabrank.stores.contract import Tally
from cabrank.upkeep import Duty, keep_up

LOOK_S = 0.5  # between two looks at what has ended
HALF_LIFE_S = 10.0  # after which a look counts half: a rate that changes is known soon, and chance does not show
SHARE = 0.2  # of a full queue, that is to be worked off before it is worth coming again
SOONEST_S, LATEST_S = 1.0, 60.0  # of a `Retry-After`
JITTER = 0.2  # those who were refused together do not come again together
COUNTED = 100_000  # jobs before one that are counted one by one: 10 ms of a thread that reads; beyond that the tally will do

_NOTHING = Tally()


class Place(msgspec.Struct, frozen=True):
    """How many jobs start before one, and in how many seconds it starts itself; None is what cannot be known."""

    position: int | None
    starts_in_s: float | None


class Flow:
    """How fast one queue is worked off."""

    def __init__(self) -> None:
        self._before = (0, 0)
        self._ended = self._left = self._seconds = 0.0
        self._waited = False

    @property
    def rate(self) -> float | None:
        """Jobs that are done with in a second while others wait; None before anything was seen to wait."""
        return max(self._ended, self._left) / self._seconds if self._seconds else None

    def look(self, ended: int, left: int, passed_s: float, *, waits: bool) -> None:
        """So many runs have `ended` here, and so many jobs have `left` the store, counted from anywhere; `passed_s` is since the last look.

        `waits`: something waits now.
        """
        ended_lately, left_lately = ended - self._before[0], left - self._before[1]
        self._before = ended, left
        waited, self._waited = self._waited, waits
        if waits and waited:  # in between every worker had something to do
            fades = 0.5 ** (passed_s / HALF_LIFE_S)
            self._ended = self._ended * fades + ended_lately
            self._left = self._left * fades + left_lately
            self._seconds = self._seconds * fades + passed_s


class Forecast:
    """Watches the queues of an open dispatcher from now on."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._engine = dispatcher.engine
        self._flows = {queue: Flow() for queue in dispatcher.pools}
        self._tally: dict[str, Tally] = {}
        self._looked_at = dispatcher.clock.monotonic()
        self.full: set[str] = set()
        """The queues that refused something since the last look."""
        self.posted = Counter[str]()
        """Jobs that were stored for a request, by queue."""
        self._full_answers: dict[str, tuple[str, Answer]] = {}  # by queue, with the words of the error
        self._disk_full = (-1, 0.0)  # how many jobs had been admitted when the disk was full, and since when that is so
        self._engine.root.start(keep_up([Duty(LOOK_S, self._look)], dispatcher.clock), name="forecast")

    def waiting(self, queue: str) -> int:
        """Jobs that waited in the queue at the last look."""
        return self._tally.get(queue, _NOTHING).waiting

    def rate(self, queue: str) -> float | None:
        """Jobs a second that the queue is worked off at, None if nothing is known yet."""
        flow = self._flows.get(queue)
        return None if flow is None else flow.rate

    async def place(self, id: int, others: int = 0) -> Place:
        """Where a job stands that was submitted just now, behind `others` of the same request."""
        record = (await self._engine.store.find([id])).get(id)
        pool = None if record is None else self._dispatcher.pools.get(record.queue)
        if record is None or pool is None:
            return Place(None, None)
        if record.state is State.RUNNING:  # or waits here for a worker
            before = max(0, len(pool.queue) - 1)
        elif record.state is not State.WAITING:
            return Place(None, None)
        elif (due_in_s := record.due_at - self._dispatcher.clock.now()) > 0:
            return Place(None, due_in_s)
        elif self._dispatcher.app.handlers[record.handler].limit is not None:
            return Place(None, None)  # its limit says when it starts
        else:
            before = len(pool.queue) + await self._ready(record.queue, record.priority) - 1
        before = max(0, before - others)
        return Place(before, self._starts_in_s(record.queue, before, idle=pool.idle))

    def answer_to(self, error: Exception) -> Answer:
        """The response that tells a client about `error`, and when it is worth coming again."""
        answer = self._told(error) if isinstance(error, QueueFull) else answer_to(error)
        if not answer.retry_after_s:
            return answer
        again_s = max(SOONEST_S, min(LATEST_S, self._again_in_s(error, answer.retry_after_s)))
        jitter = self._dispatcher.rng.uniform(1 - JITTER, 1 + JITTER)
        return msgspec.structs.replace(answer, retry_after_s=math.ceil(again_s * jitter))

    def _told(self, full: QueueFull) -> Answer:
        """As `answer_to`: a full queue tells thousands in a second the same."""
        said, answer = self._full_answers.get(full.queue, ("", None))
        if answer is None or said != str(full):
            self._full_answers[full.queue] = str(full), (answer := answer_to(full))
        return answer

    def _again_in_s(self, error: Exception, default_s: float) -> float:
        match error:
            case QueueFull() | QueueDrained():
                share = SHARE if isinstance(error, QueueFull) else 1.0
                return self._worked_off_in_s(error.queue, share, default_s)
            case IntakeClosed():
                return RESTART_RETRY_S + self._ends_in_s()
            case StoreUnavailable() | AnswerLate():
                since = self._engine.committer.failing_since
                return max(STORE_RETRY_S, 0.0 if since is None else self._dispatcher.clock.monotonic() - since)
            case DiskFull():
                return max(DISK_RETRY_S, self._disk_full_s())
            case _:
                return default_s

    def _worked_off_in_s(self, queue: str, share: float, default_s: float) -> float:
        """How long it takes until so much of what waits is worked off."""
        counted, rate = self._tally.get(queue, _NOTHING), self.rate(queue)
        if counted.paused or rate == 0:
            return LATEST_S
        return default_s if rate is None else counted.waiting * share / rate

    def _disk_full_s(self) -> float:
        """How long nothing has found space. Jobs that end make none on the disk: the file keeps its pages for the next ones."""
        admitted, now = self._engine.counters.admitted, self._dispatcher.clock.monotonic()
        if self._disk_full[0] != admitted:
            self._disk_full = admitted, now
        return now - self._disk_full[1]

    def _ends_in_s(self) -> float:
        """How long what runs will take, but not longer than the grace."""
        runs = [pool.queue.run_s or 0.0 for pool in self._dispatcher.pools.values() if pool.busy]
        return min(self._dispatcher.settings.grace_s, max(runs, default=0.0))

    def _starts_in_s(self, queue: str, before: int, *, idle: int) -> float | None:
        rate = self.rate(queue)
        if self._tally.get(queue, _NOTHING).paused:
            return None
        if before < idle:
            return 0.0
        return (before + 1) / rate if rate else None

    async def _ready(self, queue: str, priority: int) -> int:
        counted = await self._engine.store.ready(queue, COUNTED, priority=priority)
        return counted if counted < COUNTED else (await self._engine.store.tally())[queue].waiting

    async def _look(self) -> None:
        try:
            tally = dict(await self._engine.store.tally())
            waiting = {queue for queue, pool in self._dispatcher.pools.items() if pool.queue or await self._engine.store.ready(queue, 1)}
        except StoreUnavailable:
            return
        now = self._dispatcher.clock.monotonic()
        passed_s, self._looked_at, self._tally = now - self._looked_at, now, tally
        for queue, flow in self._flows.items():
            there = tally.get(queue, _NOTHING)
            left = self.posted[queue] - there.waiting - there.running
            flow.look(self._dispatcher.pools[queue].ended, left, passed_s, waits=queue in waiting or queue in self.full)
        self.full.clear()
