"""What waits for its turn of the store, and how much of it one turn carries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

import msgspec

from cabrank.block import Block, first_queue, queues_of, size_of
from cabrank.errors import CabrankError
from cabrank.job import Job, Progress, Settlement
from cabrank.pending import MERGED, MERGED_BYTES, Pending
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS, Admission, Returned, Submission, Turn

Answered = Callable[[Admission | CabrankError], None]


class Offer(msgspec.Struct):
    """A submission that waits for its turn, and who is told. `patient`: it waits for room, first come first served.

    `wanted` says whether anybody still waits for the answer; if not, it is dropped before its turn.
    """

    submission: Submission
    answered: Answered
    patient: bool
    size: int
    wanted: Callable[[], bool]

    @property
    def queue(self) -> str:
        """The queue in whose line it stands when there is no room."""
        return first_queue(self.submission.jobs)


class Several:
    """Who is told, by one call, what became of jobs of several submissions that came as one."""

    def __call__(self, outcome: Admission | CabrankError) -> None:
        raise NotImplementedError

    def each(self) -> Sequence[tuple[int, Answered]]:
        """How many jobs each submission has, in their order, and who is told of that alone."""
        raise NotImplementedError


class Bundle:
    """Who is told what becomes of one block of jobs that several submissions brought. They go as one as long as there is room for all."""

    def __init__(self, block: Block, answered: Answered) -> None:
        self._block = block
        self._parts = [(len(block.items), answered)]

    def add(self, block: Block, answered: Answered) -> bool:
        """Take one submission more, if its jobs go on with those that are here."""
        if not self._block.absorb(block, MERGED, MERGED_BYTES):
            return False
        self._parts.append((len(block.items), answered))
        return True

    def __call__(self, outcome: Admission | CabrankError) -> None:
        for _, answered in self._parts:
            answered(outcome)

    def offers(self) -> list[Offer]:
        """Each submission by itself; none if there is only one."""
        parts = [
            part for jobs, answered in self._parts for part in (answered.each() if isinstance(answered, Several) else ((jobs, answered),))
        ]
        if len(parts) == 1:
            return []
        offers: list[Offer] = []
        start = 0
        for jobs, answered in parts:
            part = self._block[start : start + jobs]
            offers.append(Offer(Submission(jobs=part), answered, False, part.size, _always))
            start += jobs
        return offers


def _always() -> bool:
    return True


class Batch(msgspec.Struct):
    """What one turn carries."""

    offers: list[Offer]
    slice: list[Sequence[Job]]
    settlements: list[Settlement]
    returned: Returned
    progress: list[Progress]

    def recorded(self, turn: Turn) -> tuple[Returned, Sequence[Settlement]]:
        """What `turn` made of what ended: nothing of the runs whose lease was lost, and no other try of those that somebody cancelled."""
        returned: Returned = self.returned
        settlements: Sequence[Settlement] = self.settlements
        if turn.lost:
            gone = frozenset(turn.lost)
            settlements = [settlement for settlement in settlements if (settlement.id, settlement.run) not in gone]
            returned = {run: [id for id in ids if (id, run) not in gone] for run, ids in returned.items()}
        if turn.cancels:
            ended = frozenset(turn.cancels)
            settlements = [
                msgspec.structs.replace(settlement, cause=Cause.CANCELLED)
                if (settlement.id, settlement.run) in ended and TRANSITIONS[State.RUNNING, settlement.cause] is State.WAITING
                else settlement
                for settlement in settlements
            ]
        return returned, settlements


class Room(msgspec.Struct):
    """What a turn can still carry."""

    rows: int
    bytes: int
    touched: bool = False

    def take(self, rows: int, size: int, *, anyway: bool = False) -> bool:
        """Take so much, if it fits; `anyway`: or if it is the first."""
        if (rows > self.rows or size > self.bytes) and (self.touched or not anyway):
            return False
        self.rows -= rows
        self.bytes -= size
        self.touched = True
        return True


class Gathering:
    """Gathers for the committer while a turn is on its way.

    A turn carries at most `TURN_ROWS` rows and `TURN_BYTES` to the store, but for one submission or one result that is larger by
    itself. Where more waits, half of a turn is for what ended, and what is new has the rest; jobs that found room at once leave half of
    that to those that are still to be judged. When some of these had to stay behind, the next turn begins with them.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.pending = Pending(tell)
        self.lines: dict[str, deque[Offer]] = {}
        """Who waits for room, by queue. Always the same object."""
        self._offers: deque[Offer] = deque()
        self._open: tuple[Offer, Bundle] | None = None  # the last bundle of `_offers`, if it can be added to
        self.apart = False
        """Whether what comes is not bundled: something found no room lately, and all of a bundle would find none."""
        self._held_back = False

    def __bool__(self) -> bool:
        return bool(self._offers or self.lines or self.pending)

    @property
    def ready(self) -> bool:
        """Whether anything waits for nothing but a turn."""
        return bool(self._offers or self.pending)

    def place(self, offer: Offer) -> None:
        """Let it stand in the line of its queue, if there is one and it is patient, else with those that go with the next turn."""
        (self.lines.get(offer.queue, self._offers) if offer.patient else self._offers).append(offer)

    def place_block(self, block: Block, answered: Answered) -> None:
        """Let jobs that are alike go with the next turn: with those that came before, if they go on with them."""
        if self._open is not None:
            offer, bundle = self._open
            if bundle.add(block, answered):
                offer.size = size_of(offer.submission.jobs)
                return
        bundle = Bundle(block, answered)
        offer = Offer(Submission(jobs=block), bundle, False, block.size, _always)
        self._offers.append(offer)
        self._open = None if self.apart else (offer, bundle)

    def put_first(self, offers: Sequence[Offer]) -> None:
        """Let these go before all others with the next turn."""
        self._offers.extendleft(reversed(offers))

    def put_back(self, refused: Sequence[Offer]) -> None:
        """Let those that found no room stand first in the lines, in their order."""
        for offer in reversed(refused):
            self.lines.setdefault(offer.queue, deque()).appendleft(offer)

    def dismiss_lines(self) -> list[Offer]:
        """Take out all that wait for room."""
        waited = [offer for line in self.lines.values() for offer in line]
        self.lines.clear()
        return waited

    def dismiss(self) -> Iterable[Offer]:
        """Take out all that wait for their turn."""
        self._open = None
        offers, self._offers = self._offers, deque()
        return offers

    def has(self, queues: Collection[str]) -> bool:
        """Whether jobs of one of these queues are here."""
        offered = [offer.submission.jobs for offer in self._offers]
        coming = (queue for jobs in chain(self.pending.jobs, offered) for queue in queues_of(jobs))
        return any(queue in self.lines for queue in queues) or any(queue in queues for queue in coming)

    def take(self, *, room: bool) -> Batch:
        """The next turn's load: who waited for room first, if some has come, then who came since."""
        ended, results = self.pending.ended, self.pending.has_settlements
        new = Room(TURN_ROWS - min(ended, TURN_ROWS // 2), TURN_BYTES // 2 if results else TURN_BYTES)
        left = Room(TURN_ROWS - new.rows, TURN_BYTES - new.bytes)
        anyway = self._held_back or not ended
        offers = self._take_offers(new, anyway=anyway, room_came=room) if self._held_back else []
        slice_ = self._take_slice(new, anyway=anyway)
        if not self._held_back:
            offers = self._take_offers(new, anyway=anyway, room_came=room)
        self._held_back = not self._held_back and bool(self._offers)
        settlements, returned = self.pending.take_ended(left.rows + new.rows, left.bytes + new.bytes)
        return Batch(offers, slice_, settlements, returned, self.pending.take_progress())

    def _take_slice(self, room: Room, *, anyway: bool) -> list[Sequence[Job]]:
        if not self.pending.jobs:
            return []
        half = Room(room.rows // 2, room.bytes // 2, room.touched) if self._offers else room
        before = half.rows, half.bytes
        taken = self.pending.take_jobs(lambda jobs: half.take(len(jobs), size_of(jobs), anyway=anyway))
        if half is not room and half.touched:
            room.take(before[0] - half.rows, before[1] - half.bytes, anyway=True)
        return taken

    def _take_offers(self, room: Room, *, anyway: bool, room_came: bool) -> list[Offer]:
        self._open = None
        if self.lines:  # who came while the first in line was being refused stands behind it
            for offer in self.dismiss():
                self.place(offer)
        offers: list[Offer] = []
        for source in (*self.lines.values(), self._offers) if room_came else (self._offers,):
            while source:
                offer = source[0]
                if offer.wanted():
                    if not room.take(len(offer.submission.jobs), offer.size, anyway=anyway):
                        break
                    offers.append(offer)
                source.popleft()
        for queue in [queue for queue, line in self.lines.items() if not line]:
            del self.lines[queue]
        return offers
