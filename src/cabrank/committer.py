"""Group commit: one turn of the store for all who wait. While a turn is on its way the next one gathers; there is no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from random import Random
from typing import Protocol

from cabrank.block import Block, Leases, queues_of
from cabrank.clock import Clock, Timer
from cabrank.errors import CabrankError, StoreUnavailable
from cabrank.events import Counters, Events, JobsAdmitted, JobsClaimed, JobsSettled, LeasesLost, TurnFailed
from cabrank.gathering import Answered, Batch, Bundle, Gathering, Offer
from cabrank.job import Job, Lease, Settlement
from cabrank.states import Cause
from cabrank.stores.contract import OVERFLOW, Admission, Arrival, Returned, Store, Submission, Turn, Verdict, Want

SOON_S = 0.005  # how long ended runs wait for others where more wait for workers: a turn costs as much as tens of short jobs
MORE_S = 0.005  # how long a turn waits while more comes: two that share the interpreter with what comes take longer than one
AGAIN_BASE_S, AGAIN_CAP_S = 0.02, 2.0  # wait before a turn is sent again, full jitter: a store that restarts is found within 2 s
LONGEST_SLEEP_S = 3_600.0  # until somebody looks for what is due again: an event loop cannot sleep for as long as a job may


class Claimant(Protocol):
    """Whoever runs jobs here, as the committer sees it."""

    def wants(self) -> Mapping[str, Want]:
        """What it can take now, by queue."""
        ...

    def accept(self, leases: Sequence[Lease | Leases]) -> None:
        """Take these."""
        ...

    def make_way(self, suspect: bool) -> None:  # noqa: FBT001 -- a fact that is passed on, not a choice of behaviour
        """Whether a suspect waits until nothing runs here."""
        ...

    def lose(self, fences: Sequence[tuple[int, int]]) -> None:
        """Stop these runs: their jobs were cancelled."""
        ...

    def halt(self, paused: Collection[str], number: int) -> None:
        """Turn `number` found these queues paused. Called before `accept`."""
        ...


class Committer:
    """Owns the store while it is open. What `offer` and `pending` bring goes with the next turn."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        rng: Random,
        events: Events,
        counters: Counters,
        settled: Callable[[Returned, Sequence[Settlement]], None],
        given_up: Callable[[Lease], Settlement],
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._events = events
        self._counters = counters
        self._settled = settled
        self._given_up = given_up
        self._claimant: Claimant | None = None
        self._gathering = Gathering(self.tell)
        self.lines = self._gathering.lines
        """Who waits for room, by queue. Always the same object."""
        self.pending = self._gathering.pending
        self._number = 0
        self._awake: asyncio.Future[None] | None = None
        self._woken = False
        self.is_told = False
        """Whether there will be a turn soon."""
        self._room = False
        self._finishing = False
        self._refusal: CabrankError | None = None  # what they are told who would wait for room now
        self._abandoned = False
        self.failing_since: float | None = None
        """When the turn that is being sent again first failed (monotonic), None while the store answers."""
        self._due: Timer | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._in_flight = False
        self._turned: asyncio.Future[None] | None = None  # done when a turn was answered, or was not
        self._sent: list[Offer] = []
        self._sent_slice: list[Sequence[Job]] = []

    # ------------------------------------------------------------------------------------------------------------ in

    def claim_for(self, claimant: Claimant | None) -> None:
        """Claim jobs for `claimant` from the next turn on."""
        self._claimant = claimant
        self.wake()

    def offer(
        self, submission: Submission, answered: Answered, *, patient: bool, size: int, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Take `submission` (`size` bytes of payload) to the store; `answered` is called once, when that is committed or refused.

        It is dropped, and nobody is called, if it is not `wanted` any more when its turn comes.
        """
        self._gathering.place(Offer(submission, answered, patient, size, wanted))
        self.wake()

    def offer_block(self, block: Block, answered: Answered) -> None:
        """As `offer`, for plain jobs that are alike and do not wait for room. What several submissions bring may go as one."""
        self._gathering.place_block(block, answered)
        self.tell()

    def tell(self) -> None:
        """Something came for the next turn."""
        if not self._woken:
            self.wake()

    def tell_soon(self) -> None:
        """Something came that can wait for `SOON_S` for what else comes, or until somebody is in a `hurry`."""
        if not self.is_told:
            self.is_told = True
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self._tell_now)

    def hurry(self) -> None:
        """What came has waited enough: nothing more comes soon."""
        if self._soon is not None:
            self._soon.cancel()
            self._tell_now()

    def _tell_now(self) -> None:
        self._soon = None
        self.tell()

    def wake(self) -> None:
        """There may be something to do."""
        self._woken = self.is_told = True
        if self._awake is not None and not self._awake.done():
            self._awake.set_result(None)

    async def caught_up(self) -> None:
        """Return when the store has what `add` brought; such a store takes its turns without being waited for."""
        while self.pending.jobs and not self._finishing:
            await self._clock.sleep(0)

    async def recorded(self) -> None:
        """Return when the store has what came so far: jobs, and outcomes of runs. A store that does not answer is not waited for."""
        await self._clock.sleep(0)  # what other threads have brought lands
        last = self._number + bool(self.pending)
        if self.pending:
            self.tell()
        while (self._number < last or (self._in_flight and self._number == last)) and not self._over() and self.failing_since is None:
            self._turned = self._turned or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._turned])

    def _tell_turned(self) -> None:
        turned, self._turned = self._turned, None
        if turned is not None:
            turned.set_result(None)

    def in_line(self, queue: str) -> bool:
        """Whether somebody waits for room in `queue` already."""
        return queue in self.lines

    @property
    def number(self) -> int:
        """How many turns have begun."""
        return self._number

    def carries(self, queues: Collection[str]) -> bool:
        """Whether jobs of one of these queues are on their way to the store."""
        sent = chain(self._sent_slice, (offer.submission.jobs for offer in self._sent))
        return self._gathering.has(queues) or any(queue in queues for jobs in sent for queue in queues_of(jobs))

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not (self._gathering or self._in_flight)

    def finish(self, *, refuse: CabrankError) -> None:
        """Let `run` return when all that came is recorded. Who waits for room is told `refuse`."""
        self._finishing, self._refusal = True, refuse
        for offer in self._gathering.dismiss_lines():
            offer.answered(refuse)
        self.wake()

    def retry_line(self) -> None:
        """Let those who wait for room ask again: some may have come unseen."""
        if self.lines:
            self._room = True
            self.wake()

    def arrived(self, arrival: Arrival) -> None:
        """Something came to the store from elsewhere: take a turn, unless nobody here has any use for it."""
        useful = arrival.work and (self.lines or self._in_flight or (self._claimant is not None and self._claimant.wants()))
        if useful or (arrival.cancelled and self._claimant is not None):
            self._room = True
            self.wake()

    def refuse_all(self, error: CabrankError) -> None:
        """Tell everybody who waits `error`."""
        self.finish(refuse=error)
        for offer in chain(self._gathering.dismiss(), self._sent):
            offer.answered(error)
        self._sent.clear()  # the turn that carries them has nobody to tell any more

    def abandon(self, error: CabrankError) -> None:
        """Let `run` return at once. Who still waits is told `error`."""
        self._abandoned = True
        self.refuse_all(error)

    # ----------------------------------------------------------------------------------------------------------- turns

    async def run(self) -> None:
        """Take one turn after another until `finish`."""
        while not self._over():
            await self._something_to_do()
            if self._over():
                break
            batch = self._gather()
            self._in_flight, self._sent, self._sent_slice = True, batch.offers, batch.slice
            turn = await self._send(batch)
            self._in_flight, self._sent, self._sent_slice = False, [], []
            if turn is not None:
                self._deliver(batch, turn)
            self._tell_turned()
        self._tell_turned()
        self._wake_when_due(None)
        if self._soon is not None:
            self._soon.cancel()

    def _over(self) -> bool:
        return self._abandoned or (self._finishing and self.idle)

    async def _something_to_do(self) -> None:
        if not self._woken:
            self._awake = asyncio.get_running_loop().create_future()
            await self._awake
            self._awake = None
        await self._let_come()
        self._woken, self.is_told = False, self._soon is not None

    async def _let_come(self) -> None:
        """Let come what others hold back. While each look of the event loop brings more, the turn waits, so that it carries all of it."""
        ends_at = self._clock.monotonic() + MORE_S
        while self.pending.bring() and self._clock.monotonic() < ends_at:
            await self._clock.sleep(0)

    def _gather(self) -> Batch:
        """The next turn's load."""
        batch = self._gathering.take(room=self._room)
        self._room = False
        if self._gathering.ready or self._finishing:
            self._woken = self.is_told = True  # the last turn has nothing behind it that would wake `run` to see that all is done
        return batch

    async def _send(self, batch: Batch) -> Turn | None:
        """Send the turn until it is answered: its number makes that harmless."""
        want: Mapping[str, Want] = self._claimant.wants() if self._claimant is not None and not self._finishing else {}
        new = [Submission(jobs=jobs, has_room=True) for jobs in batch.slice]  # before those that found none at once, mostly
        new += [offer.submission for offer in batch.offers]
        self._number += 1
        self._counters.turns += 1
        failed, began_at = 0, self._clock.monotonic()
        while True:
            try:
                turn = await self._store.turn(
                    self._number,
                    new=new,
                    settlements=batch.settlements,
                    want=want,
                    returned=batch.returned,
                    progress=batch.progress,
                )
            except StoreUnavailable as error:
                failed += 1
                if not await self._again(error, failed):
                    for offer in batch.offers:
                        offer.answered(error)
                    return None
            else:
                self.failing_since = None
                self._counters.turns_s += self._clock.monotonic() - began_at
                return turn

    async def _again(self, error: StoreUnavailable, failed: int) -> bool:
        """Wait before the turn is sent again. False: nobody wants to wait any more."""
        self._counters.turns_failed += 1
        if self.failing_since is None:
            self.failing_since = self._clock.monotonic()
        pause_s = self._rng.uniform(0, min(AGAIN_CAP_S, AGAIN_BASE_S * 2 ** min(failed, 16)))
        self._tell_turned()
        if self._events:
            self._events.publish(TurnFailed(self._number, error, pause_s))
        if not self._abandoned:
            await self._clock.sleep(pause_s)
        return not self._abandoned

    def _wake_when_due(self, due_s: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = None if due_s is None else self._clock.call_later(min(due_s, LONGEST_SLEEP_S), self.wake)

    # ------------------------------------------------------------------------------------------------------------- out

    def _deliver(self, batch: Batch, turn: Turn) -> None:
        """Tell everybody what the turn did, in the order of the route: settled, admitted, claimed."""
        if batch.settlements or batch.returned:
            self._tell_settled(batch, turn)
        self._tell_admitted(batch, turn.admitted[len(batch.slice) :])
        if turn.dropped:
            self._counters.dropped += len(turn.dropped)
            self._tell_ended({}, [Settlement(id, 0, Cause.DROPPED, reason=OVERFLOW) for id in turn.dropped])
        if turn.given_up:
            self._tell_ended({}, list(map(self._given_up, turn.given_up)))
        if self._claimant is not None:
            self._claimant.halt(turn.paused, self._number)
        if turn.claimed:
            self._room = True
            if self._claimant is not None:
                self._claimant.accept(turn.claimed)
            if self._events:
                self._events.publish(JobsClaimed(turn.claimed))
        if self._claimant is not None:
            self._claimant.make_way(turn.suspect)
            if turn.cancels:
                self._claimant.lose(turn.cancels)
        if turn.claimed and self.lines:  # there is room now; what was settled alone goes on waiting for a turn
            self.wake()
        self._wake_when_due(turn.next_due_s)

    def _tell_settled(self, batch: Batch, turn: Turn) -> None:
        self._room = True
        if turn.lost:
            self._counters.lost += len(turn.lost)
            if self._events:
                self._events.publish(LeasesLost(turn.lost))
        returned, settlements = batch.recorded(turn)
        self._counters.done += sum(map(len, returned.values()))
        self._tell_ended(returned, settlements)

    def _tell_ended(self, returned: Returned, settlements: Sequence[Settlement]) -> None:
        self._counters.count(settlements)
        self._settled(returned, settlements)
        if self._events:
            self._events.publish(JobsSettled(returned, settlements))

    def _tell_admitted(self, batch: Batch, admitted: Sequence[Admission]) -> None:
        stored: list[Sequence[Job]] = list(batch.slice)
        refused: list[Offer] = []
        parts: list[Offer] = []
        answers: list[tuple[Answered, Admission]] = []
        for offer, admission in zip(batch.offers, admitted, strict=False):
            if admission.verdict is Verdict.FULL and offer.patient:
                if self._refusal is None:
                    refused.append(offer)
                else:
                    offer.answered(self._refusal)
                continue
            if admission.verdict.refused and isinstance(offer.answered, Bundle) and (its := offer.answered.offers()):
                parts += its
                continue
            if admission.verdict is Verdict.STORED:
                stored.append(offer.submission.jobs)
            if admission.replaced:
                self._settled({}, admission.cancelled)
            self._counters.refused += admission.verdict.refused
            answers.append((offer.answered, admission))
        if answers and self.pending.before:  # who has an answer asks again, and the next turn waits for that
            _answer(answers)
        elif answers:  # behind the next turn's start: while that is on its way to disk, these go out
            asyncio.get_running_loop().call_soon(_answer, answers)
        self._counters.admitted += sum(map(len, stored))
        self._gathering.put_back(refused)
        self._gathering.apart = any(one.verdict.refused for one in admitted) if admitted else self._gathering.apart
        if parts:  # there is no room for all of a bundle, but perhaps for some
            self._gathering.put_first(parts)
            self.wake()
        if self._events and stored:
            self._events.publish(JobsAdmitted(stored))


def _answer(answers: Sequence[tuple[Answered, Admission]]) -> None:
    for answered, admission in answers:
        answered(admission)
