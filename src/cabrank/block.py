"""Jobs that are alike, as one record from the submit to the worker. What concerns one of them alone makes a `Job` of it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from operator import length_hint
from threading import Lock
from typing import Any, overload

from cabrank.job import DEFAULT_PRIORITY, Job, Lease

Encode = Callable[[Sequence[object]], list[bytes]]


class Call(Enum):
    """What an item of a block is to the function that is called."""

    ONE = auto()
    """Its one argument."""
    ARGS = auto()
    """Its arguments, a tuple."""
    OWN = auto()
    """A pair: a function of its own, and its arguments."""


class Block(Sequence[Job]):
    """Jobs of one handler that are due at once, their ids in a row. They differ in what they are called with, and in nothing else.

    `size` is the bytes of all payloads. The payloads themselves may be encoded when somebody asks for them: `payloads` is then a
    function of the items. A block is added to only by whoever made it, before anybody else sees it.
    """

    __slots__ = (
        "_encode",
        "_payloads",
        "bare",
        "call",
        "created_at",
        "first",
        "function",
        "handler",
        "items",
        "priority",
        "queue",
        "size",
        "started_at",
    )

    def __init__(
        self,
        first: int,
        items: list[Any],
        call: Call,
        handler: str,
        queue: str,
        function: Callable[..., object] | None,
        payloads: list[bytes] | Encode | None,
        size: int,
        priority: int = DEFAULT_PRIORITY,
    ) -> None:
        self.first = first
        self.items = items
        self.call = call
        self.handler = handler
        self.queue = queue
        self.function = function
        self.size = size
        self.priority = priority
        self.created_at = self.started_at = 0.0
        """The moments when a store in memory took them in, and when it leased them."""
        self.bare = payloads is None
        """Whether no app registered what is called; then there are no payloads either."""
        self._encode: Encode | None = None
        self._payloads: list[bytes] | None = None
        if callable(payloads):
            self._encode = payloads
        else:
            self._payloads = payloads

    @property
    def payloads(self) -> list[bytes]:
        """The payload of each job."""
        if self._payloads is None:
            self._payloads = [b""] * len(self.items) if self._encode is None else self._encode(self.items)
        return self._payloads

    @property
    def ids(self) -> range:
        """The ids of its jobs."""
        return range(self.first, self.first + len(self.items))

    def is_like(self, other: Block) -> bool:
        """Whether its jobs are called as those of `other` are, but for what an item is to them."""
        return self.function is other.function and self.handler == other.handler and self.bare is other.bare

    def goes_on_with(self, other: Block) -> bool:
        """Whether the jobs of `other` could be its next ones: their ids come next, and they are alike."""
        return (
            other.first == self.first + len(self.items)
            and self.handler == other.handler
            and self.function is other.function
            and self.bare is other.bare
            and self.call is other.call
            and self.queue == other.queue
            and self.priority == other.priority
        )

    def extend(self, other: Block) -> None:
        """The jobs of `other` too, with which it goes on."""
        mine, its = self._payloads, other._payloads
        if mine is not None and its is not None:
            mine += its
        elif mine is not None or self._encode is None or self._encode != other._encode:
            self.payloads.extend(other.payloads)
        self.items += other.items
        self.size += other.size

    def absorb(self, other: Block, most: int, size: int) -> bool:
        """The jobs of `other` too, if it goes on with them and they are at most so many and of so many bytes then; whether it does."""
        if len(self.items) + len(other.items) > most or self.size + other.size > size or not self.goes_on_with(other):
            return False
        self.extend(other)
        return True

    def copy(self) -> Block:
        """The same jobs; payloads that were not encoded yet are not now."""
        payloads = self._encode if self._payloads is None else self._payloads[:]
        same = Block(
            self.first,
            self.items[:],
            self.call,
            self.handler,
            self.queue,
            self.function,
            None if self.bare else payloads,
            self.size,
            self.priority,
        )
        same.created_at, same.started_at = self.created_at, self.started_at
        return same

    def append(self, item: object, payload: bytes) -> None:
        """One job more, with the next id."""
        self.items.append(item)
        if self._payloads is not None:
            self._payloads.append(payload)
        self.size += len(payload)

    def job(self, id: int) -> Job:
        """The job of that id, which must be here."""
        return self[id - self.first]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Job]:
        return map(self._job, range(len(self.items)))

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> Block: ...
    def __getitem__(self, index: int | slice) -> Job | Block:
        if isinstance(index, slice):
            return self._part(*index.indices(len(self.items))[:2])
        return self._job(range(len(self.items))[index])

    def fitting(self, most: int, size: int) -> int:
        """How many of the first `most` jobs have at most `size` bytes of payload together."""
        if self.size <= size:
            return most
        for count, payload in enumerate(islice(self.payloads, most)):
            size -= len(payload)
            if size < 0:
                return count
        return most

    def _part(self, start: int, stop: int) -> Block:
        payloads = None if self.bare else self.payloads[start:stop]
        size = sum(map(len, payloads)) if payloads else 0
        items = self.items[start:stop]
        part = Block(self.first + start, items, self.call, self.handler, self.queue, self.function, payloads, size, self.priority)
        part.created_at, part.started_at = self.created_at, self.started_at
        return part

    def _job(self, at: int) -> Job:
        item, function = self.items[at], self.function
        if self.call is Call.OWN:
            function, item = item
        args: tuple[object, ...] = (item,) if self.call is Call.ONE else item
        payload = b"" if self.bare else self.payloads[at]
        return Job(self.first + at, self.handler, self.queue, payload, args, function, self.priority)


class Leases(Sequence[Lease]):
    """The first runs of jobs of a block, which workers take one after another; those that were taken are no longer here.

    Threads take them too: whoever takes some, outside of a worker that is a coroutine, does it under the `guard`.
    """

    __slots__ = ("block", "guard", "positions", "stop")

    crashes = 0
    """A job that has a crash behind it is in no block."""

    def __init__(self, block: Block, start: int = 0, stop: int | None = None) -> None:
        self.block = block
        self.stop = len(block) if stop is None else stop
        """Behind the last of them, in the block."""
        self.positions: Iterator[int] = iter(range(start, self.stop))
        """Of those that are left, in the block, next first. Whoever takes one runs it."""
        self.guard = Lock()

    @property
    def next(self) -> int:
        """The position of the next."""
        return self.stop - length_hint(self.positions)

    @property
    def granted(self) -> Iterator[Lease]:
        """The leases of the whole block, taken or not."""
        return map(self.lease, range(len(self.block)))

    def lease(self, at: int) -> Lease:
        """The lease of the block's job at that position, taken or not."""
        return Lease(self.block[at], 1)

    def take(self) -> Lease:
        """Take the next, which must be there."""
        return self.lease(self.take_position())

    def take_position(self) -> int:
        """Take the next, whose position in the block it is; -1 if there is none."""
        with self.guard:
            return next(self.positions, -1)

    def clear(self) -> list[Lease]:
        """Take all that are left."""
        with self.guard:
            left = list(self.positions)
        return list(map(self.lease, left))

    def without(self, fence: tuple[int, int]) -> tuple[Lease, list[Leases]] | None:
        """Take one out: its lease, and what is left before and behind it instead of these. None: it is not here."""
        id, run = fence
        at = id - self.block.first
        if run != 1 or not self.next <= at < self.stop:
            return None
        with self.guard:
            left = list(self.positions)  # who goes through them finds none any more
            start = left[0] if left else self.stop
            if start > at:
                self.positions = iter(left)
                return None
        parts = [Leases(self.block, *span) for span in ((start, at), (at + 1, self.stop)) if span[0] < span[1]]
        return self.lease(at), parts

    def __len__(self) -> int:
        return length_hint(self.positions)

    def __iter__(self) -> Iterator[Lease]:
        return map(self.lease, range(self.next, self.stop))

    @overload
    def __getitem__(self, index: int) -> Lease: ...
    @overload
    def __getitem__(self, index: slice) -> list[Lease]: ...
    def __getitem__(self, index: int | slice) -> Lease | list[Lease]:
        left = range(self.next, self.stop)[index]
        return self.lease(left) if isinstance(left, int) else list(map(self.lease, left))


def gathered(leases: Iterable[Lease | Leases], least: int) -> Iterator[Lease | Leases]:
    """The same leases, of which none was taken yet. Blocks with fewer than `least` jobs are one with those that go on with them."""
    together: list[Leases] = []
    jobs = 0
    for one in leases:
        if together and not (isinstance(one, Leases) and jobs < least and together[-1].block.goes_on_with(one.block)):
            yield _as_one(together)
            together, jobs = [], 0
        if isinstance(one, Leases):
            together.append(one)
            jobs += len(one.block)
        else:
            yield one
    if together:
        yield _as_one(together)


def _as_one(together: Sequence[Leases]) -> Leases:
    if len(together) == 1:
        return together[0]
    [block] = joined(its.block for its in together)
    return Leases(block)


def joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same jobs in as few blocks as can be. None of `blocks` is changed."""
    last: Block | None = None
    own = False
    for block in blocks:
        if last is not None and last.goes_on_with(block):
            last, own = last if own else last.copy(), True
            last.extend(block)
            continue
        if last is not None:
            yield last
        last, own = block, False
    if last is not None:
        yield last


def first_id(jobs: Sequence[Job]) -> int:
    """The id of the first of them."""
    return jobs.first if isinstance(jobs, Block) else jobs[0].id


def ids_of(jobs: Sequence[Job]) -> Sequence[int]:
    """The ids of all of them."""
    return jobs.ids if isinstance(jobs, Block) else [job.id for job in jobs]


def first_queue(jobs: Sequence[Job]) -> str:
    """The queue of the first of them."""
    return jobs.queue if isinstance(jobs, Block) else jobs[0].queue


def queues_of(jobs: Sequence[Job]) -> Sequence[str]:
    """The queues that they go to, in their order; one that several go to may be there several times."""
    return (jobs.queue,) if isinstance(jobs, Block) else [job.queue for job in jobs]


def size_of(jobs: Sequence[Job]) -> int:
    """The bytes of their payloads."""
    if isinstance(jobs, Block):
        return jobs.size
    return len(jobs[0].payload) if len(jobs) == 1 else sum([len(job.payload) for job in jobs])


def payloads_of(jobs: Sequence[Job]) -> Sequence[bytes]:
    """The payload of each."""
    return jobs.payloads if isinstance(jobs, Block) else [job.payload for job in jobs]


def needed_by(jobs: Sequence[Job]) -> dict[str, tuple[int, int]]:
    """How many jobs and how many bytes they are in each queue."""
    if isinstance(jobs, Block):
        return {jobs.queue: (len(jobs), jobs.size)}
    needed: dict[str, tuple[int, int]] = {}
    for job in jobs:
        count, size = needed.get(job.queue, (0, 0))
        needed[job.queue] = count + 1, size + len(job.payload)
    return needed


def queue_of(lease: Lease | Leases) -> str:
    """The queue that it was claimed from."""
    return lease.block.queue if isinstance(lease, Leases) else lease.job.queue


def held(leases: Iterable[Lease | Leases]) -> tuple[int, int]:
    """How many jobs they are of, none of which was taken yet, and the bytes of their payloads."""
    count = size = 0
    for lease in leases:
        count += 1 if isinstance(lease, Lease) else len(lease.block)
        size += len(lease.job.payload) if isinstance(lease, Lease) else lease.block.size
    return count, size


def granted(leases: Iterable[Lease | Leases]) -> Iterator[Lease]:
    """All leases one by one, as they were claimed."""
    for lease in leases:
        if isinstance(lease, Leases):
            yield from lease.granted
        else:
            yield lease
