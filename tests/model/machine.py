"""Hypothesis plays with a real store and the model side by side, and compares all that both say after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cabrank.job import Lease, Settlement
from cabrank.settings import MIB, Settings
from cabrank.states import Cause, State
from cabrank.stores.contract import Submission, Tally, Terms, Turn, Want
from cabrank.testing import FakeClock
from cabrank.testing.store_contract import Opened, Stores
from tests.model.jobs import Model, answer, ranks

T = TypeVar("T")

QUEUES = ("left", "right")
BOUND = 6
MAX_CRASHES = 4  # one beyond a suspect, so that suspects run
SWEPT_S = 6.0
SETTINGS = Settings(max_queue=BOUND, max_crashes=MAX_CRASHES)
CAUSES = (
    Cause.RETURNED,
    Cause.RETURNED,
    Cause.RETRIED,
    Cause.SNOOZED,
    Cause.RELEASED,
    Cause.CRASHED,
    Cause.GAVE_UP,
    Cause.WORKER_LOST,
    Cause.CANCELLED,
    Cause.DROPPED,
    Cause.UNREADABLE,
)

places = st.integers(0, 30)
holders = st.sampled_from([0, 1])
queues = st.sampled_from(QUEUES)
pauses = st.sampled_from([0.0, 0.0, 0.0, 5.0, 20.0])
orders = st.tuples(queues, st.sampled_from([5, 5, 5, 0, 9]), pauses, st.sampled_from([b"1", b"[2]", b'"three"']))
requests = st.tuples(st.lists(orders, min_size=1, max_size=3), st.sampled_from(["", "", "", "k1", "k2"]), st.sampled_from([b"a", b"b"]))
wants = st.dictionaries(queues, st.tuples(st.integers(0, 4), st.booleans()), max_size=2)
endings = st.lists(st.tuples(places, st.sampled_from(CAUSES), pauses), max_size=4)


class StoreMachine(RuleBasedStateMachine):
    """Two holders of one store. Derive a class that says which."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.model = Model(BOUND, MAX_CRASHES)
        self.stores = self.start()
        self.opened = [self._do(self._open), self._do(self._open)]
        self.leases: list[list[Lease]] = [[], []]

    def start(self) -> Stores:
        """The store to be played with."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Close what is open."""
        for holder in self.opened:
            self._do(holder.close)
        self.loop.close()

    # ------------------------------------------------------------------------------------------------------------- rules

    @rule(place=holders, asked=st.lists(requests, max_size=3), wanted=wants, endings=endings)
    def turn(
        self,
        place: int,
        asked: Sequence[tuple[Sequence[tuple[str, int, float, bytes]], str, bytes]],
        wanted: dict[str, tuple[int, bool]],
        endings: Sequence[tuple[int, Cause, float]],
    ) -> None:
        """Settle, admit and claim in one turn."""
        now, holder = self.clock.now(), self.opened[place]
        new = [self._submission(holder, *request) for request in asked]
        settlements = self._settlements(place, endings)
        idle = len(self.leases[place]) == len({settlement.id for settlement in settlements if self._is_lease(place, settlement)})
        want = {queue: Want(jobs=jobs, bytes=MIB, idle=jobs, alone=alone and idle) for queue, (jobs, alone) in wanted.items() if jobs}
        turn = self._do(lambda: holder.turn(*new, settlements=settlements, want=want))
        lost, cancelled = self.model.settle(settlements, now)
        assert set(turn.lost) == lost
        assert cancelled <= set(turn.cancels)
        answers = self.model.admit(new, now)
        assert [answer(admission) for admission in turn.admitted] == answers
        self._forget(place, settlements)
        self._check_claims(turn, want, now)
        self.model.lease(turn.leases, place)
        self.leases[place] += turn.leases

    @precondition(lambda self: any(self.leases))
    @rule(place=holders, which=places, cause=st.sampled_from(CAUSES))
    def settle_what_was_lost(self, place: int, which: int, cause: Cause) -> None:
        """Settle a run under a number that is not the running one."""
        held = self.leases[place]
        if held:
            lease = held[which % len(held)]
            turn = self._do(lambda: self.opened[place].turn(settlements=[Settlement(lease.job.id, lease.run + 1, cause)]))
            assert list(turn.lost) == [(lease.job.id, lease.run + 1)]

    @rule(place=holders, which=places)
    def cancel(self, place: int, which: int) -> None:
        """Cancel some job."""
        if (id := self._any(which)) is not None:
            assert self._do(lambda: self.opened[place].store.cancel(id)) is self.model.cancel(id)

    @rule(place=holders, which=places)
    def reopen(self, place: int, which: int) -> None:
        """Reopen some job."""
        if (id := self._any(which)) is not None:
            assert self._do(lambda: self.opened[place].store.reopen(id)) is self.model.reopen(id, self.clock.now())

    @rule(pause_s=st.sampled_from([0.5, 3.0, 21.0]))
    def advance(self, pause_s: float) -> None:
        """Let time pass."""
        self._do(lambda: self.clock.advance(pause_s))

    @rule(place=holders)
    def close(self, place: int) -> None:
        """Close a holder in good order, and open another."""
        self._do(self.opened[place].close)
        self._succeed(place, crashed=False)

    @rule(place=holders)
    def kill(self, place: int) -> None:
        """Let a holder die; its successor takes its jobs back."""
        self._do(self.opened[place].kill)
        self._succeed(place, crashed=True)

    # --------------------------------------------------------------------------------------------------------- comparisons

    @invariant()
    def jobs_are_as_the_model_has_them(self) -> None:
        """Every job, and the counts."""
        expected = self.model.states()
        ids = [*expected, *self.model.done]
        found = self._do(lambda: self.opened[0].store.find(ids)) if ids else {}
        for id, row in expected.items():
            record = found[id]
            assert (record.state, record.run, record.failures, record.crashes) == row, id
        assert all(found[id].state is State.DONE for id in self.model.done)
        tally = self._do(self.opened[1].store.tally)
        assert {queue: tally.get(queue, Tally()) for queue in QUEUES} == {queue: self.model.tally(queue) for queue in QUEUES}

    def _check_claims(self, turn: Turn, want: dict[str, Want], now: float) -> None:
        if any(self.model.tied(queue, now) for queue in want):
            return
        suspects = [queue for queue, its in want.items() if its.alone and self.model.suspect_next(queue, now)]
        if suspects:
            [lease] = turn.leases
            assert lease.job.queue in suspects
            assert lease.crashes >= 2
            return
        for queue in QUEUES:
            leased = [lease for lease in turn.leases if lease.job.queue == queue]
            expected = self.model.claimable(queue, want[queue], now) if queue in want else []
            assert ranks(leased, self.model) == expected, (queue, want, leased, self.model.rows)

    # -------------------------------------------------------------------------------------------------------------- within

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def do() -> T:
            return await work()

        return self.loop.run_until_complete(do())

    async def _open(self) -> Opened:
        holder = Opened(self.stores.another(), self.stores)
        await holder.open(Terms(handlers=frozenset({"work"}), settings=SETTINGS, max_crashes={}))
        return holder

    def _succeed(self, place: int, *, crashed: bool) -> None:
        self.model.leave(place, self.clock.now(), crashed=crashed)
        self.leases[place] = []
        self.opened[place] = self._do(self._open)

    def _submission(self, holder: Opened, asked: Sequence[tuple[str, int, float, bytes]], key: str, digest: bytes) -> Submission:
        now = self.clock.now()
        jobs = [
            holder.job(queue=queue, priority=priority, due_at=now + delay_s if delay_s else 0.0, payload=payload)
            for queue, priority, delay_s, payload in asked
        ]
        return Submission(jobs=jobs, key=key, digest=digest if key else b"")

    def _settlements(self, place: int, endings: Sequence[tuple[int, Cause, float]]) -> list[Settlement]:
        held = self.leases[place]
        chosen = {which % len(held): (cause, after_s) for which, cause, after_s in endings} if held else {}
        return [
            Settlement(held[at].job.id, held[at].run, cause, after_s=after_s if cause in {Cause.RETRIED, Cause.SNOOZED} else 0.0)
            for at, (cause, after_s) in chosen.items()
        ]

    def _is_lease(self, place: int, settlement: Settlement) -> bool:
        return any((lease.job.id, lease.run) == (settlement.id, settlement.run) for lease in self.leases[place])

    def _forget(self, place: int, settlements: Sequence[Settlement]) -> None:
        gone = {(settlement.id, settlement.run) for settlement in settlements}
        self.leases[place] = [lease for lease in self.leases[place] if (lease.job.id, lease.run) not in gone]

    def _any(self, which: int) -> int | None:
        ids = [*self.model.rows, *self.model.done]
        return ids[which % len(ids)] if ids else None
