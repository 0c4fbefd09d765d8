"""What the worker processes of one life of a process do, as somebody sees it who stands beside them: checked as it happens."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Collection, Coroutine, Sequence
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from cabrank.batch import Together
from cabrank.handler import AnyHandler
from cabrank.settings import Settings
from cabrank.stores.contract import SUSPECT_CRASHES
from cabrank.workers.process import wire
from cabrank.workers.process.fleet import KILL_AFTER_S
from tests.simulation.loop import SimulatedLoop
from tests.simulation.plan import Apart

if TYPE_CHECKING:
    from tests.simulation.child import Child
    from tests.simulation.process import Process

Fence = tuple[int, int]

TIMEOUT_S = 0.6  # of each handler
SLACK_S = 0.3  # what a stop may be late: two looks at what runs, and the way to the process
BEHIND_S = 0.05  # what a call may stand behind one that turns out to be long: two looks, and what may be heard late
ROUNDING_S = 1e-6
QUEUE = "apart"
BATCH = 3  # jobs that one call has at most


class Run(NamedTuple):
    """A call that a process has begun."""

    fences: Sequence[Fence]
    queue: str
    since: float
    """When it could have begun: the dispatcher counts its time from then at the earliest."""
    began_at: float
    freezes: int
    """How often its dispatcher had been frozen by then; -1: it was just then."""


class Floor:
    """All worker processes of one life of `process`, dead ones included."""

    def __init__(self, process: Process, *, apart: Apart, settings: Settings, loop: SimulatedLoop, rng: Random) -> None:
        self.name = process.life.name
        self.loop = loop
        self.apart = apart
        self.alive: set[Child] = set()
        self.stormy = True
        self._process = process
        self._life = process.life
        self._settings = settings
        self._rng = rng
        self._record = process.record
        self._runs: dict[Child, Run] = {}
        self._began: dict[Child, int] = {}
        self._most: dict[Child, int] = {}

    def chance(self, likely: float) -> bool:
        """Whether something goes wrong."""
        return self.stormy and self._rng.random() < likely

    def handler(self, name: str) -> AnyHandler:
        """What a call is of."""
        return self._process.app.handlers[name]

    def note(self, text: str) -> None:
        """One line of the trace."""
        self._record.note(text)

    def begin(self, work: Coroutine[Any, Any, None], context: Context) -> None:
        """Let a simulated process do something. What it raises is an error of the simulation."""
        self.loop.create_task(work, context=context).add_done_callback(_look)

    # --------------------------------------------------------------------------------------------- what its processes say

    def comes(self, child: Child) -> None:
        """It is started."""
        self.alive.add(child)

    def is_sent(self, child: Child, number: int) -> None:
        """A call is sent to it: if nothing stands before it, that is its start, however long the process takes to begin it."""
        if self._belongs:
            self._process.may_start(QUEUE, f"call {number} of {child.life.name}")
            self.note(f"{child.life.name} is sent call {number}")
            if child in self._runs and any(self._process.crashes(*fence) for fence in self._runs[child].fences):
                self._record.violated(
                    "I21", f"{child.life.name} is sent call {number} behind {self._runs[child].fences}, which has crashed"
                )
            self._most[child] = self._process.told.most[QUEUE]

    def takes(self, child: Child, call: wire.Call, *, since: float, sent_ahead: bool) -> None:
        """It begins a call."""
        fences, life = self.fences_of(call), self._life
        self.note(f"{child.life.name}: runs {list(fences)}")
        for fence in fences:
            if fence in self._record.begun:
                self._record.violated("I30", f"{child.life.name} begins run {fence}, which has begun before")
            self._record.begun.add(fence)
        crashes = [self._process.crashes(*fence) for fence in fences]
        if any(crashes) and (sent_ahead or child.waits_since < math.inf):
            self._record.violated("I21", f"{child.life.name} was sent {fences}, of which one has crashed, with others")
        if len(fences) > 1 and max(crashes) >= SUSPECT_CRASHES:
            self._record.violated("I21", f"{child.life.name} runs {fences} in one call, and one of them is a suspect")
        self._began[child] = self._began.get(child, 0) + 1
        most = self._settings.recycle_jobs
        if most is not None and self._began[child] > most:
            self._record.violated("I32", f"{child.life.name} begins run {self._began[child]}, and is to be replaced after {most}")
        queue = self.handler(call.handler).queue
        self._runs[child] = Run(fences, queue, since, self.loop.time(), -1 if life.frozen else life.freezes)
        if self._belongs:
            if sent_ahead:
                self._process.may_start(queue, f"job {fences[0][0]} in {child.life.name}")
            self._process.counts_in(queue, fences[0][0], suspect=False, before=0 if sent_ahead else self._most[child])

    def answers(self, child: Child) -> None:
        """It has said all that it says of its run."""
        run = self._runs.pop(child, None)
        if run is None:
            return
        self.note(f"{child.life.name}: is done with {list(run.fences)}")
        now = self.loop.time()
        if run.freezes == self._life.freezes and self._belongs:
            if now - run.began_at > TIMEOUT_S + SLACK_S + KILL_AFTER_S:
                self._record.violated("I28", f"{child.life.name} ran {run.fences} for {now - run.began_at:.3f} s")
            if now - max(run.began_at, child.waits_since) > BEHIND_S:
                self._record.violated("I34", f"{child.life.name} had calls behind {run.fences} until it ended")
        if self._belongs:
            self._process.counts_out(run.queue)

    def excuse(self) -> None:
        """A start fails; whose job that costs a failure is not seen from here."""
        self._record.excused += BATCH

    def returned(self, call: wire.Call, ids: Collection[int]) -> None:
        """A run of these jobs is about to return."""
        for id, run in self.fences_of(call):
            if id in ids:
                self._process.returned_one(id, run)

    def died(self, child: Child) -> None:
        """It is dead."""
        self.alive.discard(child)
        self.charges(child)
        self.answers(child)

    def charges(self, child: Child) -> None:
        """Its dispatcher takes it for dead."""
        run = self._runs.get(child)
        fences = run.fences if run is not None else () if child.replied else child.first
        self.note(f"{child.life.name} is dead, and had {list(fences)}")
        self.loses(fences)
        if child.between:
            self._record.excused += BATCH

    def loses(self, fences: Collection[Fence]) -> None:
        """These may be said to have crashed."""
        self._record.lost.update(fences)

    def is_told(self, child: Child, number: int) -> None:
        """A signal comes to it from its dispatcher."""
        run, now = self._runs.get(child), self.loop.time()
        said = signal.Signals(number).name
        self.note(f"{child.life.name} gets {said}")
        if run is None or not self._belongs or self._process.is_stopping or run.freezes != self._life.freezes:
            return
        wanted = {id for id, _ in run.fences} & self._record.cancels
        if now - run.since < TIMEOUT_S - ROUNDING_S and not wanted:
            self._record.violated("I31", f"{child.life.name} gets {said} {now - run.since:.4f} s after {run.fences} could begin")

    # ------------------------------------------------------------------------------------------------------------- within

    @property
    def _belongs(self) -> bool:
        """Whether their dispatcher lives."""
        return not self._life.dead and self._process.life is self._life

    def fences_of(self, call: wire.Call) -> Sequence[Fence]:
        """The runs of a call. Those of a batch have each a number of their own, which only their leases say."""
        if not call.ids:
            return [(call.id, call.run)]
        running = (worker.lease for pool in self._process.dispatcher.pools.values() for worker in pool.workers)
        [its] = [one for one in running if isinstance(one, Together) and (one.job.id, one.run) == (call.id, call.run)]
        return [(lease.job.id, lease.run) for lease in its.leases]


def _look(work: asyncio.Task[None]) -> None:
    if not work.cancelled():
        work.result()
