"""What every store promises, on one page. `Store` is what the dispatcher lives on, `Inspector` what people and servers ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec.structs import replace

from cabrank.block import Block, Leases, granted
from cabrank.condition import Condition
from cabrank.job import LAST_PRIORITY, Conflict, FailedRun, Job, Lease, Progress, Settlement
from cabrank.policy import Limit
from cabrank.settings import Bound, Settings
from cabrank.states import Cause, State

TURN_ROWS = 10_000  # rows of one turn: about 20 ms of writing, so that nobody waits longer for a reply
TURN_BYTES = 8 * 1024 * 1024
SUSPECT_CRASHES = 2  # a job whose processes died so often may be the cause: it runs alone, so that the next crash hits only its cause
REPLACED = "replaced"  # the reason of a job that was cancelled for one with the same unique key
OVERFLOW = "overflow"  # the reason of a job that its full queue's policy dropped
AHEAD_S = 3600.0  # a last tick that lies so far ahead was taken with a wrong clock; less is a clock that was set right
UNIQUE_OVER_DEFAULT = {
    Conflict.SKIP: (State.WAITING, State.RUNNING, State.HELD),
    Conflict.DEBOUNCE: (State.WAITING,),  # what runs began before the news
    Conflict.REPLACE: (State.WAITING,),
}
FINISHED_ERROR = 1_000  # characters of each error that are kept of a job that returned in the end: its last line, and where
FINISHED_ERRORS = 1 << 20  # characters of them that are kept of jobs that return together; beyond that no text is
BROWSED = 100  # jobs of a page where nothing else is said: a screen or two
REOPENED = 1_000  # jobs that one transaction reopens where nothing else is said: some 10 ms
ID_BLOCK = 1 << 20  # ids that a process takes at once: one transaction a million jobs


class Verdict(StrEnum):
    """What became of a submission."""

    STORED = "stored"
    REPEATED = "repeated"
    """The same key came with the same body before: `Admission.first_id` and `count` say what it made then. Nothing was added.

    Or its tick, or a later one, came before; what that made is not said.
    """
    UNIQUE = "unique"
    """An unfinished job has the same `Job.unique`: `Admission.first_id` says which. Nothing was added."""
    KEY_REUSED = "key_reused"
    FULL = "full"
    NO_SPACE = "no_space"
    """The disk has too little space for new jobs."""

    @property
    def refused(self) -> bool:
        """Whether nothing of it was or had been stored."""
        return self in {Verdict.FULL, Verdict.NO_SPACE, Verdict.KEY_REUSED}


Returned = Mapping[int, Sequence[int]]
"""Runs that returned None, which are nearly all: by the number of the run, the ids of the jobs, each once."""
NOTHING_RETURNED: Returned = {}


class Tick(msgspec.Struct, frozen=True, gc=False):
    """A moment of a schedule, for which a job is submitted once. `at` is in seconds since the epoch."""

    schedule: str
    at: float


class Submission(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request: jobs with ids in a row, admitted together or not at all. Jobs that are alike may come as a `Block`.

    `key` and `digest` (of the body) make it repeatable. A job with `unique` comes alone, and `on_conflict` says what becomes of it
    beside another one. One with a `tick` is stored only if neither that nor a later one of the schedule was before. `has_room`: its
    jobs were counted in by `Room.take` already. `mixed`: they may differ in their tags.
    """

    jobs: Sequence[Job]
    key: str = ""
    digest: bytes = b""
    has_room: bool = False
    on_conflict: Conflict = Conflict.SKIP
    unique_over: Collection[State] = ()
    tick: Tick | None = None
    mixed: bool = False

    @property
    def unique(self) -> bool:
        """Whether its job has a unique key."""
        return not isinstance(self.jobs, Block) and bool(self.jobs[0].unique)

    @property
    def in_the_way(self) -> Collection[State]:
        """The states in which a job with its unique key stands in its way."""
        return self.unique_over or UNIQUE_OVER_DEFAULT[self.on_conflict]

    @property
    def marked(self) -> bool:
        """Whether its jobs have tags or a unique key, or may have."""
        return not isinstance(self.jobs, Block) and bool(self.mixed or self.jobs[0].unique or self.jobs[0].tags)


class Admission(msgspec.Struct, frozen=True, gc=False):
    """The answer to one submission. `bound` says which queue's bound refused it, in words; `replaced` which job it cancelled."""

    verdict: Verdict
    first_id: int = 0
    count: int = 0
    queue: str = ""
    bound: str = ""
    replaced: int = 0

    @property
    def cancelled(self) -> list[Settlement]:
        """What became of the job that it replaced."""
        return [Settlement(self.replaced, 0, Cause.CANCELLED, reason=REPLACED)] if self.replaced else []


STORED = Admission(Verdict.STORED)


def full(queue: str, bound: str) -> Admission:
    """The answer to a submission that `bound`, in words, refuses."""
    return Admission(Verdict.FULL, queue=queue, bound=bound)


class Want(msgspec.Struct, frozen=True, gc=False):
    """What a holder can take of one queue: at most `jobs` leases with at most `bytes` of payload.

    Of these, `idle` start at once; only those may be jobs that were there when a process died. `alone`: nothing runs in this
    holder's process, so a suspect (`SUSPECT_CRASHES`) may come, and then it comes alone. `isolated`: its workers are processes of
    their own, so a suspect comes as any other job that was there when one died.
    """

    jobs: int
    bytes: int
    idle: int
    alone: bool = False
    isolated: bool = False

    def takes(self, taken: int, size: int, crashes: int) -> bool:
        """Whether it takes one more job with `crashes`, which would make it `taken` + 1 jobs with `size` bytes."""
        if crashes >= SUSPECT_CRASHES and not self.isolated:
            return False
        return taken < (self.idle if crashes else self.jobs) and (size <= self.bytes or not taken)


class Turn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a turn did.

    `admitted` has one answer for each submission, in order. `claimed` are leases; those of jobs that came as a `Block` may be
    together. `lost` are the (id, run) of settlements that changed nothing.
    `cancels` are the (id, run) of leases whose jobs somebody cancelled. `next_due_s` is how long until a waiting job becomes
    ready, None if none will by itself. `suspect`: one is next in a wanted queue, and waits until this holder is `alone`.
    `paused` are the names of the queues that somebody paused. `dropped` are the jobs that full queues dropped for `new` ones.
    `given_up` are the last runs of jobs that this turn found dead with
    their process and that had crashed too often: they are dead now.
    """

    admitted: Sequence[Admission]
    claimed: Sequence[Lease | Leases] = ()
    lost: Sequence[tuple[int, int]] = ()
    cancels: Sequence[tuple[int, int]] = ()
    next_due_s: float | None = None
    suspect: bool = False
    paused: Collection[str] = ()
    dropped: Sequence[int] = ()
    given_up: Sequence[Lease] = ()

    @property
    def leases(self) -> list[Lease]:
        """What was claimed, one by one."""
        return list(granted(self.claimed))


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What came through other holders.

    `work`: something may have become claimable, or room may have come. `cancelled`: a running job may have been cancelled, and its
    holder learns it with its next turn. `ended` are the jobs that ended, None: any may have.
    """

    work: bool = True
    cancelled: bool = True
    ended: Collection[int] | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder tells the store when it opens it.

    Only jobs of `handlers` are leased to it; it takes none of those that are `elsewhere`, which it only submits. By handler, where it
    differs from the setting: `max_crashes`, which this holder goes by when it finds that another one died, and `keep_done_s`, for the
    jobs that end here. `limits` by handler, where it has one. `condition` says whether its leases are to be renewed, and is told how the
    store is.
    """

    handlers: frozenset[str]
    settings: Settings
    max_crashes: Mapping[str, int]
    limits: Mapping[str, Limit] = {}
    keep_done_s: Mapping[str, float] = {}
    condition: Condition = msgspec.field(default_factory=Condition)
    elsewhere: frozenset[str] = frozenset()

    @property
    def here(self) -> frozenset[str]:
        """The handlers whose jobs it runs."""
        return self.handlers - self.elsewhere


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a store can do beyond the contract; the contract suite skips by these, never by class.

    `durable`: what is admitted survives the process. `shared`: several processes can open it. `judges_room`:
    `Store.room` can give one. `durability` is a word for what an acknowledgement means, `promise` the sentence that the start-up
    message and `/readyz` print about it.
    """

    durable: bool
    shared: bool
    judges_room: bool
    bound: Bound
    durability: str
    promise: str


class Waiting(Protocol):
    """What waits in a queue: so many jobs with so many bytes of payload."""

    count: int
    size: int


class Room:
    """How much waits in a queue, what is on its way included, and how much may: at most `jobs` jobs with `bytes` bytes of payload."""

    __slots__ = ("bytes", "jobs", "waiting")

    def __init__(self, waiting: Waiting, bound: Bound) -> None:
        self.waiting = waiting
        self.jobs = bound.jobs
        self.bytes = bound.bytes

    def take(self, jobs: int, size: int) -> bool:
        """Count so many in, if there is room for them."""
        waiting = self.waiting
        if waiting.count + jobs > self.jobs or waiting.size + size > self.bytes:
            return False
        waiting.count += jobs
        waiting.size += size
        return True


class Store(Protocol):
    """Keeps jobs, leases them, records what became of them. One object is one holder of leases.

    The store renews what it leased by itself, from its own thread if it must, until `close`. When the holder's process dies,
    whoever finds that out makes its jobs ready again, with `crashes` + 1; a job that reaches the `max_crashes` of who found it is dead.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Fixed for the class, but for `durability` and `promise`, which are as the settings say once it is open."""
        ...

    @property
    def prefix(self) -> str:
        """The random part of this store's text ids: 8 letters, made with the store and never changed. Known once it is open."""
        ...

    async def open(self, terms: Terms) -> None:
        """Become a holder; take back the jobs of holders that died.

        Raises:
            StoreUnusable: it cannot be opened as it is; the message says what to do.
            StoreUnavailable: it did not answer; opening again is safe.
        """
        ...

    async def close(self) -> None:
        """Stop being a holder. Leases that are still out are given back, without a crash. Safe to call twice."""
        ...

    async def take_ids(self) -> int:
        """The first of `ID_BLOCK` ids that nobody else was or will be given."""
        ...

    async def last_tick(self, schedule: str, spec: str) -> float:
        """The last tick of a schedule; the moment of this call, if the schedule is new or has got another `spec`.

        That is remembered, so that what is missed later is known. A last tick that lies more than an hour ahead does not count: the
        clock was wrong.
        """
        ...

    def room(self, queue: str) -> Room | None:
        """Where jobs are counted in that will come with `Submission.has_room`, always the same object; None: only a turn can judge.

        That is so in a store that is shared or asks a disk, and for bounds that look at more than one queue or at the time.
        """
        ...

    async def turn(
        self,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned = NOTHING_RETURNED,
        progress: Sequence[Progress] = (),
    ) -> Turn:
        """Record `progress`, `settlements` and `returned`, admit `new` and lease ready jobs, in one transaction.

        Each submission is admitted whole or not at all, in order; behind one that found no room in a queue none is let past it.
        `want` maps a queue to what this holder can take; at most that much comes back leased, by priority, then by the moment it
        became ready, and nothing of a paused queue. Then a queue that got new jobs and whose overflow policy is to drop drops what is
        above its bound: these jobs expire. A job has at most one unexpired lease, on any number of machines. A settlement
        whose lease was lost changes nothing and comes back in `Turn.lost`; progress of a run that is over is dropped. Runs count from
        1 and are counted here. `number` counts the turns of this holder; one is in flight at a time.

        Raises:
            StoreUnavailable: whether anything was stored is unknown. The same `number` sent again changes nothing and returns
                what the lost reply said.

        Cost: one transaction, one fsync, whatever the sizes. What comes in are at most `TURN_ROWS` rows and `TURN_BYTES` together, but
            for one submission or result that is larger by itself; what is leased is bounded by `want`.
        """
        ...

    async def arrival(self) -> Arrival:
        """Wait until something came through another holder, since the last call returned. May return for nothing."""
        ...


def as_finished(failed: Mapping[int, Sequence[FailedRun]]) -> Mapping[int, Sequence[FailedRun]]:
    """The failed runs of jobs that return together, by their ids, as they are kept: see `FINISHED_ERROR` and `FINISHED_ERRORS`."""
    size = sum(min(len(one.error), FINISHED_ERROR) for runs in failed.values() for one in runs)
    most = FINISHED_ERROR if size <= FINISHED_ERRORS else 0
    return {id: [replace(one, error=one.error[max(0, len(one.error) - most) :]) for one in runs] for id, runs in failed.items()}


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says about one job.

    `created_at` is the moment when it was stored, `started_at` when its last run was leased, `changed_at` that of its last change of
    state: each where the store keeps it, else 0; of a done job it keeps the first and the last. `error` is why it is where it is, else
    the last error that it ended a run with. `failed_runs` are those whose errors are kept, see `FAILED_RUNS`, oldest first; for a job
    that returned in the end see `as_finished`. `progress` is that of the run that runs now. `result` is JSON; `value` is the result
    itself where it never left the process. These last four are left out of a `Page`. `cancel_asked_at` is when somebody cancelled it
    while it runs, None if nobody did.
    """

    id: int
    handler: str
    queue: str
    state: State
    run: int
    failures: int = 0
    crashes: int = 0
    priority: int = 0
    due_at: float = 0.0
    created_at: float = 0.0
    started_at: float = 0.0
    changed_at: float = 0.0
    tags: Sequence[str] = ()
    reason: str = ""
    error: str = ""
    failed_runs: Sequence[FailedRun] = ()
    progress: Progress | None = None
    result: bytes | None = None
    value: object = None
    cancel_asked_at: float | None = None

    @property
    def cancelling(self) -> bool:
        """Whether it runs, and its holder was or will be told to stop it."""
        return self.cancel_asked_at is not None


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to list: those that are everything that is given. Finished ones are listed only if `state` is `done`."""

    state: State | None = None
    queue: str = ""
    handler: str = ""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the jobs that a filter lets through. `after` is where the next page begins, None behind the last one."""

    records: Sequence[JobRecord]
    after: int | None


class Reopening(msgspec.Struct, frozen=True, kw_only=True):
    """What became of jobs that were to be reopened: how many wait again, and those that do not for their unique key is taken.

    `after` is where to go on, None if that was all.
    """

    reopened: int
    taken: Sequence[int]
    after: int | None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one queue, counted by state. `waiting` includes those that are not yet due. `paused`: nothing of it is leased."""

    waiting: int = 0
    waiting_bytes: int = 0
    running: int = 0
    dead: int = 0
    held: int = 0
    paused: bool = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a waiting job stands to the limit of its handler: `running` jobs of its key run, and in `next_s` its rate lets one start."""

    handler: str
    key: str
    limit: Limit
    running: int
    next_s: float = 0.0

    @property
    def why(self) -> str:
        """Why the limit holds it back, for people; empty if it does not, and the job waits for its turn or for a worker."""
        reasons: list[str] = []
        if self.limit.running is not None and self.running >= self.limit.running:
            reasons.append(f"{self.running} of {self.limit.running} run")
        if self.next_s > 0:
            reasons.append(f"{self.limit.per_s:g} a second may start, the next in {self.next_s:.2g} s")
        whose = f"key {self.key!r} of {self.handler!r}" if self.key else f"{self.handler!r}"
        return f"limit on {whose}: {', '.join(reasons)}" if reasons else ""


class Inspector(Protocol):
    """What people and servers ask of a store, beside the turns."""

    async def find(self, ids: Collection[int]) -> Mapping[int, JobRecord]:
        """The jobs of these ids that are known; finished ones as long as they are kept. Cost: one look-up for each."""
        ...

    async def browse(self, which: JobFilter, *, after: int = 0, limit: int = BROWSED) -> Page:
        """The first `limit` jobs with an id above `after`, in the order of their ids, which is that of their submission.

        A page may hold fewer, even none, and still not be the last: a look is ended when it has cost enough.

        Cost: bounded, whatever the backlog; in memory one look at each job.
        """
        ...

    async def tally(self) -> Mapping[str, Tally]:
        """The jobs of each queue, counted. Cost: does not grow with the backlog."""
        ...

    async def ready(self, queue: str, most: int, *, priority: int = LAST_PRIORITY) -> int:
        """How many jobs of `queue` could be claimed now, of this priority and those before it, counted up to `most`.

        Jobs of handlers with a limit are not counted. Cost: grows with what is counted, 0.1 µs each.
        """
        ...

    async def standing(self, id: int) -> Standing | None:
        """How a waiting job stands to its handler's limit; None if it has none, or the job does not wait. Cost: a look at what runs."""
        ...

    async def cancel(self, id: int) -> bool:
        """Cancel an unfinished job. A waiting one is cancelled at once; a running one's holder is told with its next turn.

        False: it was finished, or unknown.
        """
        ...

    async def reopen(self, id: int) -> bool:
        """Make a dead, cancelled, expired or held job wait again, its failures and crashes counted anew. False: it was none of these.

        The errors of its failed runs are kept.

        Raises:
            UniqueTaken: an unfinished job has the same unique key. Nothing was changed.
        """
        ...

    async def reopen_all(self, which: JobFilter, *, after: int = 0, limit: int = REOPENED) -> Reopening:
        """Reopen the first `limit` dead, cancelled, expired and held jobs with an id above `after` that a filter lets through.

        One whose unique key an unfinished job has stays as it is. Cost: that of a page and of one transaction.
        """
        ...

    async def purge(self, ids: Collection[int]) -> int:
        """Forget these jobs, if they are dead, cancelled, expired or held; how many were. Cost: one transaction."""
        ...

    async def handlers(self) -> Collection[str]:
        """The names of all handlers that some holder, of any process, runs jobs of now. Cost: a look at each holder."""
        ...

    async def pause(self, queue: str) -> None:
        """Lease nothing of `queue` from the next turn of any holder on, until `resume`. Jobs are still admitted; what runs goes on."""
        ...

    async def resume(self, queue: str) -> None:
        """Lease jobs of `queue` again."""
        ...


class InspectedStore(Store, Inspector, Protocol):
    """A store as it is opened: both protocols in one object."""
