"""Requests that come in one round of the event loop on connections that owe nothing: looked at, placed and answered together.

Only what is the same for all of them is done once: each has its own answer, and all of its own jobs are stored or none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

from cabrank.block import Block
from cabrank.errors import CabrankError
from cabrank.gathering import Answered, Several
from cabrank.server.entrances import HotEntrance
from cabrank.server.known import HEAD_END
from cabrank.server.pace import Crowd
from cabrank.server.problems import Answer
from cabrank.server.reception import ACCEPTED, Reception
from cabrank.server.replies import Accepted, Heads, Reply
from cabrank.stores.contract import STORED, Admission

FEW = 2  # connections, of which a request is entered as it comes: a round would hardly have a second one
MOST = 64  # requests that are entered together; more would let the first of them wait


class Asker(Protocol):
    """A connection whose only request is in a round."""

    coming: bool
    """Whether it is not entered yet. Until then nothing else of the connection may be done."""

    owe: Callable[[], Reply]
    """Asked for one reply, for later."""

    def answer(self, answer: Answer) -> None:
        """Answer now."""
        ...

    def write(self, response: bytes) -> None:
        """As `answer`, where the bytes are made."""
        ...

    def fulfil(self, reply: Reply, response: bytes) -> bool:
        """Write the answer that is owed, if nothing else stands in the way. False: nothing was done."""
        ...

    def fail(self, error: Exception) -> None:
        """End without an answer: nobody knows what was stored."""
        ...


class Traffic:
    """Whether requests may come at once, so that it is worth a look."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.flows = False
        """Whether something was offered to the store, or answered by it, since this was set to false."""

    @property
    def many(self) -> bool:
        """Whether there are enough connections for several requests to come together."""
        return self._crowd.all > FEW


class Round:
    """Gathers the requests for one entrance until the event loop has read what came, or they are `MOST`."""

    def __init__(self, entrance: HotEntrance, reception: Reception, heads: Heads, traffic: Traffic) -> None:
        self._entrance = entrance
        self._reception = reception
        self._plain = reception.dispatcher.plain
        self._accepted = Accepted(heads, entrance)
        self._traffic = traffic
        self._call_soon = asyncio.get_running_loop().call_soon
        self._askers: list[Asker] = []
        self._bodies: list[bytes] = []

    def add(self, asker: Asker, body: bytes) -> None:
        """One more."""
        asker.coming = True
        self._askers.append(asker)
        self._bodies.append(body)
        if len(self._askers) == 1 and self._traffic.many:
            self._call_soon(self.enter)
        elif len(self._askers) == 1 or len(self._askers) == MOST:
            self.enter()

    def enter(self) -> None:
        """Enter what has come."""
        askers, bodies = self._askers, self._bodies
        if not askers:
            return
        self._askers, self._bodies = [], []
        for asker in askers:
            asker.coming = False
        try:
            if self._reception.turns_away:
                for asker, body in zip(askers, bodies, strict=True):
                    self._tell(asker, self._reception.enter(self._entrance, body, b"", asker.owe))
            else:
                self._enter(askers, bodies)
        except Exception as error:  # noqa: BLE001 -- a bug: it ends these connections, and no others
            for asker in askers:
                asker.fail(error)

    def _enter(self, askers: Sequence[Asker], bodies: Sequence[bytes]) -> None:
        make, made, failed = self._entrance.made, list[Any](), list[tuple[Asker, Exception]]()
        for place, body in enumerate(bodies):
            try:
                made.append(make(body))
            except Exception as error:  # noqa: BLE001 -- it is told to the one that sent this
                failed.append((askers[place], error))
        if failed:
            bad = {asker for asker, _ in failed}
            askers = [asker for asker in askers if asker not in bad]
            self._refuse(failed)
        if made and not self._together(askers, made):
            for asker, one in zip(askers, made, strict=True):
                self._tell(asker, self._reception.enter_made(self._entrance, one, asker.owe))

    def _refuse(self, failed: Sequence[tuple[Asker, Exception]]) -> None:
        for asker, error in failed:
            if isinstance(error, CabrankError):
                asker.answer(self._reception.forecast.answer_to(error))
            else:
                asker.fail(error)

    def _together(self, askers: Sequence[Asker], made: Sequence[Any]) -> bool:
        """Take all on as one, if that can be. False: nothing was done."""
        placed = self._entrance.together(made)
        if placed is None:
            return False
        jobs, counts = placed
        if isinstance(jobs, Block):
            if not self._plain.may_enter(jobs):
                return False
            if not self._plain.take(jobs):
                self._plain.enter(jobs, _Owed(self._reception, self._accepted, self._traffic, askers, jobs, counts))
                return True
            jobs = jobs.ids
        for asker, response in zip(askers, self._accepted.each(jobs.start, counts), strict=True):
            asker.write(response)
        return True

    @staticmethod
    def _tell(asker: Asker, answer: Answer | None) -> None:
        if answer is not None:
            asker.answer(answer)


class _Owed(Several):
    """The answers to requests whose jobs are offered to the store as one block."""

    def __init__(
        self,
        reception: Reception,
        accepted: Accepted,
        traffic: Traffic,
        askers: Sequence[Asker],
        jobs: Block,
        counts: Sequence[int],
    ) -> None:
        self._traffic = traffic
        traffic.flows = True
        self._reception = reception
        self._accepted = accepted
        self._askers = askers
        self._replies = [asker.owe() for asker in askers]
        self._first, self._queue, self._payloads = jobs.first, jobs.queue, jobs.payloads  # the block itself may be added to
        self._counts = counts

    def __call__(self, outcome: Admission | CabrankError) -> None:
        if outcome is not STORED:
            for _, answered in self.each():
                answered(outcome)
            return
        self._traffic.flows = True
        self._reception.forecast.posted[self._queue] += sum(self._counts)
        responses = self._accepted.each(self._first, self._counts)
        for asker, reply, response in zip(self._askers, self._replies, responses, strict=True):
            if not asker.fulfil(reply, response):
                reply(Answer(ACCEPTED, response.partition(HEAD_END)[2]))

    def each(self) -> Sequence[tuple[int, Answered]]:
        """See `Several`."""
        places = accumulate(self._counts, initial=0)
        return [(jobs, partial(self._tell, reply, at, jobs)) for reply, at, jobs in zip(self._replies, places, self._counts, strict=False)]

    def _tell(self, reply: Reply, at: int, jobs: int, outcome: Admission | CabrankError) -> None:
        if outcome is STORED:
            self._reception.forecast.posted[self._queue] += jobs
            [response] = self._accepted.each(self._first + at, [jobs])
            reply(Answer(ACCEPTED, response.partition(HEAD_END)[2]))
        else:
            reply(self._reception.refused(outcome, "", len(self._payloads[at]) if jobs == 1 else None))


class Rounds:
    """The rounds of a server, one for each entrance. A turn of the store takes along what is in them."""

    def __init__(self, reception: Reception, heads: Heads, crowd: Crowd) -> None:
        self._reception = reception
        self._heads = heads
        self._traffic = Traffic(crowd)
        self._rounds: dict[HotEntrance, Round] = {}
        reception.dispatcher.engine.committer.pending.before.append(self._bring)

    def of(self, entrance: HotEntrance) -> Round:
        """That of an entrance."""
        found = self._rounds.get(entrance)
        if found is None:
            found = self._rounds[entrance] = Round(entrance, self._reception, self._heads, self._traffic)
        return found

    def _bring(self) -> bool:
        """Enter what has come. Whether more may come at once: since the last look something has, or was answered."""
        for one in self._rounds.values():
            one.enter()
        flows, self._traffic.flows = self._traffic.flows, False
        return flows and self._traffic.many
